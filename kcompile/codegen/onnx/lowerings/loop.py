"""Recurrent layers that ONNX's own operators cannot express, as a Scan over one step."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx

from kcompile.codegen.onnx.assemble import value_info
from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.lower import lower_graph
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Builder, Graph, Node, Value
from kcompile.ir.op import Elementwise
from kcompile.ir.passes.layout import to_channels_first
from kcompile.ir.passes.pipeline import inference
from kcompile.ir.types import TensorType

Recurrent: TypeAlias = ops.Lstm | ops.Gru | ops.SimpleRnn


def looped(e: Emitter, op: Recurrent, node: Node) -> tuple[str, ...]:
    """The op as a loop: the input is projected for all steps at once, the body does the rest."""
    x, kernel, recurrent_kernel, bias, *recurrent_bias = node.inputs[: 3 + op.biases]
    dtype, state = x.type.dtype, node.outputs[1].type
    projected = e.typed("Add", dtype, e.typed("MatMul", dtype, e.name(x), e.name(kernel)), e.name(bias))
    weights = [e.name(value) for value in (recurrent_kernel, *recurrent_bias)]
    given = [e.name(value) for value in node.inputs[3 + op.biases :]]
    if not op.has_initial_state:
        given = [_zeros(e, state)] * op.states + given
    states, masks = given[: op.states], given[op.states :]
    if _repeats(op):
        states.append(_zeros(e, state))
    results = _scan(e, step_graph(op, node), weights, states, [projected, *masks], op.reverse)
    return (results[-1], *results[: op.states])


def _repeats(op: Recurrent) -> bool:
    """Whether the last output is part of the state."""
    return op.has_mask and not op.zero_masked_output


def step_graph(op: Recurrent, node: Node) -> Graph:
    """One step, from weights, states, projected input and mask to states and output."""
    state, weights = node.outputs[1].type, (node.inputs[2], *node.inputs[4 : 3 + op.biases])
    b = Builder("step")
    constants = [b.input(f"w{i}", value.type) for i, value in enumerate(weights)]
    states = [b.input(f"s{i}", state) for i in range(op.states + _repeats(op))]
    x = b.input("x", state.with_shape((state.shape[0], node.inputs[2].type.shape[1])))
    with b.at(node.source):
        new = _step(b, op, x, states, constants)
        if not op.has_mask:
            return b.build([*new, new[0]])
        mask = b.input("mask", TensorType("bool", (state.shape[0],)))
        seen = b(ops.Reshape((state.shape[0], 1)), mask)
        kept = [b(ops.Where(), seen, after, before) for after, before in zip(new, states, strict=False)]
        idle = states[-1] if _repeats(op) else b(ops.Full(state.shape, 0.0, state.dtype))
        output = b(ops.Where(), seen, new[0], idle)
        return b.build([*kept, *[output] * _repeats(op), output])


def _step(b: Builder, op: Recurrent, x: Value, states: Sequence[Value], weights: Sequence[Value]) -> tuple[Value, ...]:
    """The new states, the output first."""
    h, recurrent_kernel = states[0], weights[0]
    if isinstance(op, ops.Gru):
        return (_gru_step(b, op, x, h, recurrent_kernel, weights[1]),)
    drive = b(ops.Add(), x, b(ops.MatMul(), h, recurrent_kernel))
    if isinstance(op, ops.SimpleRnn):
        return (_activated(b, op.activation, drive),)
    i, f, c, o = _split(b, drive, 4)
    gate = op.recurrent_activation
    kept = b(ops.Mul(), _activated(b, gate, f), states[1])
    cell = b(ops.Add(), kept, b(ops.Mul(), _activated(b, gate, i), _activated(b, op.activation, c)))
    return b(ops.Mul(), _activated(b, gate, o), _activated(b, op.activation, cell)), cell


def _gru_step(b: Builder, op: ops.Gru, x: Value, h: Value, kernel: Value, bias: Value) -> Value:
    hidden, wide = int(h.type.shape[1]), int(x.type.shape[1])
    if op.reset_after:
        from_h = _split(b, b(ops.Dense(), h, kernel, bias), 3)
    else:
        gates = b(ops.Dense(), h, _columns(b, kernel, 0, 2 * hidden), _columns(b, bias, 0, 2 * hidden))
        from_h = _split(b, gates, 2)
    from_x = _split(b, x, 3)
    z, r = (_activated(b, op.recurrent_activation, b(ops.Add(), from_x[i], from_h[i])) for i in (0, 1))
    if op.reset_after:
        drive = b(ops.Mul(), r, from_h[2])
    else:
        last = (_columns(b, kernel, 2 * hidden, wide), _columns(b, bias, 2 * hidden, wide))
        drive = b(ops.Dense(), b(ops.Mul(), r, h), *last)
    candidate = _activated(b, op.activation, b(ops.Add(), from_x[2], drive))
    return b(ops.Add(), candidate, b(ops.Mul(), z, b(ops.Sub(), h, candidate)))


def _activated(b: Builder, activation: Elementwise | None, x: Value) -> Value:
    return x if activation is None else b(activation, x)


def _split(b: Builder, x: Value, parts: int) -> list[Value]:
    """`parts` equal parts of the last axis."""
    size = int(x.type.shape[-1]) // parts
    return [_columns(b, x, i * size, (i + 1) * size) for i in range(parts)]


def _columns(b: Builder, x: Value, start: Dim, stop: Dim) -> Value:
    return b(ops.Slice(x.type.rank - 1, start, stop), x)


def _zeros(e: Emitter, type_: TensorType) -> str:
    """A tensor of zeros."""
    value = onnx.numpy_helper.from_array(np.zeros(1, type_.dtype))
    return e.node("ConstantOfShape", e.shape(type_.shape), value=value)


def _scan(
    e: Emitter, step: Graph, weights: Sequence[str], states: Sequence[str], scanned: Sequence[str], reverse: bool
) -> tuple[str, ...]:
    """The last states, then the outputs ``[N, L, ...]``, of `step` run along axis 1 of `scanned`."""
    inner = e.child()
    locals_ = [e.unique(f"{e.source}/step/{value.name}") for value in step.inputs[len(weights) :]]
    results = lower_graph(inner, step, (*weights, *locals_))
    outputs = [inner.copy(result) for result in results]
    body = onnx.helper.make_graph(
        inner.nodes,
        "step",
        [value_info(n, v.type) for n, v in zip(locals_, step.inputs[len(weights) :], strict=True)],
        [value_info(n, v.type) for n, v in zip(outputs, step.outputs, strict=True)],
    )
    return e.multi(
        "Scan",
        (*states, *scanned),
        (True,) * len(outputs),
        body=body,
        num_scan_inputs=len(scanned),
        scan_input_axes=[1] * len(scanned),
        scan_input_directions=[int(reverse)] * len(scanned),
        scan_output_axes=[1],
        scan_output_directions=[int(reverse)],
    )


@ONNX.register(ops.Scan)
def scanned(e: Emitter, op: ops.Scan, node: Node) -> tuple[str, ...]:
    """The body goes through the passes of whole graphs by itself."""
    body = to_channels_first(inference(op.body))
    names = [e.name(value) for value in node.inputs]
    first = op.constants + op.states
    return _scan(e, body, names[: op.constants], names[op.constants : first], names[first:], op.reverse)
