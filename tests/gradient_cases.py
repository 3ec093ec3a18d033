"""Operands of the ops that stand in training graphs alone: those of gradients come from the rule that writes them."""

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, nodes_of
from kcompile.ir.op import Op
from kcompile.ir.types import type_of
from tests.strategies import CASES, Draw, OpCase, axis_of, case_of, floats, shapes

# Which ops' gradients hold an op.
_SOURCES: dict[type[Op], list[type[Op]]] = {
    ops.AvgPoolGradient: [ops.AvgPool],
    ops.BatchNormTrainingGradient: [ops.BatchNormTraining],
    ops.ConvFilterGradient: [ops.Conv, ops.ConvTranspose],
    ops.ConvInputGradient: [ops.Conv],
    ops.CrossEntropyGradient: [ops.CrossEntropy],
    ops.LayerNormGradient: [ops.LayerNorm],
    ops.MaxPoolGradient: [ops.MaxPool],
    ops.PadGradient: [ops.Pad],
    ops.RecurrentGradient: [ops.Lstm, ops.Gru, ops.SimpleRnn],
    ops.ReduceProdGradient: [ops.ReduceProd],
    ops.ResizeGradient: [ops.Resize],
    ops.ScatterAdd: [ops.Gather],
    ops.SliceGradient: [ops.Slice],
    ops.SortGradient: [ops.Sort],
}


@case_of(*_SOURCES)
def _gradient(draw: Draw, cls: type[Op], dtype: str) -> OpCase:
    case = CASES[draw(st.sampled_from(_SOURCES[cls]))](draw, dtype)
    b = Builder("gradient")
    inputs = {f"x{i}": array for i, array in enumerate(case.arrays)}
    xs = [b.input(name, type_of(array)) for name, array in inputs.items()]
    ys = b.multi(case.op, *xs)
    dys = tuple(b.constant(floats(draw, y.type.static_shape(), dtype)) for y in ys)
    written = [dx for dx in case.op.vjp(b, xs, ys, dys) if dx is not None]
    nodes = [node for node in nodes_of(written) if isinstance(node.op, cls)]
    assume(nodes)
    node = draw(st.sampled_from(nodes))
    found = evaluate(b.build(written), inputs, keep=node.inputs)
    return OpCase(node.op, tuple(np.array(found[f"%{i}"]) for i in range(len(node.inputs))))


@case_of(ops.BatchNormTraining)
def _batch_norm_training(draw: Draw, cls: type[ops.BatchNormTraining], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    axis = axis_of(draw, x.ndim)
    gamma, beta = (floats(draw, (x.shape[axis],), dtype) for _ in range(2))
    return OpCase(cls(draw(st.sampled_from([1e-3, 1e-5])), axis), (x, gamma, beta))


@case_of(ops.CrossEntropy)
def _cross_entropy(draw: Draw, cls: type[ops.CrossEntropy], dtype: str) -> OpCase:
    p = np.abs(floats(draw, (*draw(shapes(1)), draw(st.integers(1, 4))), dtype))
    labels = draw(arrays(np.int32, p.shape[:-1], elements=st.integers(-1, p.shape[-1])))
    return OpCase(cls(draw(st.sampled_from([0.25, 1e-2]))), (p, labels))


@case_of(ops.ScaledSum)
def _scaled_sum(draw: Draw, cls: type[ops.ScaledSum], dtype: str) -> OpCase:
    shape = draw(shapes(low=0))
    return OpCase(cls(), tuple(floats(draw, extents, dtype) for extents in (shape, (), shape, ())))


@case_of(ops.WindowedConv)
def _windowed_conv(draw: Draw, cls: type[ops.WindowedConv], dtype: str) -> OpCase:
    channels, filters, *window = (draw(st.integers(1, 3)) for _ in range(4))
    size = tuple(draw(st.integers(1, 2)) for _ in window)
    x = floats(draw, (draw(st.integers(1, 3)), draw(st.integers(4, 7)), draw(st.integers(4, 7)), channels), dtype)
    operands = x, floats(draw, (*window, channels, filters), dtype), floats(draw, (filters,), dtype)
    of = ops.Conv((draw(st.integers(1, 2)), 1), draw(st.sampled_from(["valid", "same"])))
    return OpCase(cls(of, size), operands[: draw(st.integers(2, 3))])


@case_of(ops.RandomUniform, ops.RandomNormal)
def _random(draw: Draw, cls: Any, dtype: str) -> OpCase:
    seed = np.asarray(draw(st.integers(-(2**31), 2**31 - 1)), draw(st.sampled_from(["int32", "int64"])))
    return OpCase(cls(draw(shapes(low=0)), draw(st.integers(0, 5)), dtype), (seed,))
