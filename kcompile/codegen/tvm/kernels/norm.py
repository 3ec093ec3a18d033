"""Softmax and normalizations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from kcompile.codegen.tvm import math as polynomials
from kcompile.codegen.tvm.epilogue import Epilogue, overwritable
from kcompile.codegen.tvm.expr import Expr, Index, index, unary
from kcompile.codegen.tvm.kernels.elementwise import Elementwise, collapse, regroup
from kcompile.codegen.tvm.kernels.reduction import (
    Reducer,
    Reduction,
    WidePointer,
    lanes_of,
    require_float,
    shared_blocks,
)
from kcompile.codegen.tvm.plan import TVM, Argument, Plan, Tail
from kcompile.codegen.tvm.tir import Function, Kernel, split
from kcompile.codegen.tvm.vector import Chain
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node
from kcompile.ir.op import Op, Tensor
from kcompile.ir.passes.matching import constant_array

Steps: TypeAlias = tuple[tuple[Op, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Softmax(Kernel, family="softmax"):
    """``exp(x - m) / sum(exp(x - m))`` along the middle axis, m its maximum; its logarithm where `log`.

    x, y: f32[outer, extent, inner]. Where inner is 1, the lanes of a vector are neighbours along the axis.
    """

    outer: Dim
    extent: Dim
    inner: Dim
    log: bool
    dtype: str = "float32"

    @property
    def overwritable(self) -> tuple[int, ...]:
        return (0,)

    def build(self, f: Function) -> None:
        body = _SoftmaxBody(f, self)
        outer = f.extent(self.outer)
        if self.inner == 1:
            with f.parallel(outer) as row:
                body.write(f.name_index(row * body.extent), None)
            return
        for (row,), start, width in shared_blocks(f, [outer], body.stride, f.machine.lanes):
            offset = f.name_index(row * f.name_index(body.extent * body.stride) + start)
            for lanes in split(width, f.machine.lanes):
                body.write(offset, lanes)
                offset = offset + lanes


class _SoftmaxBody:
    def __init__(self, f: Function, kernel: Softmax) -> None:
        self.f = f
        self.log = kernel.log
        self.extent, self.stride = f.extent(kernel.extent), f.extent(kernel.inner)
        self.x, self.y = WidePointer(f, "x", kernel.dtype), WidePointer(f, "y", kernel.dtype)

    def write(self, offset: Index, lanes: int | None) -> None:
        """The softmax of the row from `offset` on, or of `lanes` neighbouring columns."""
        f, x, y = self.f, self.x, self.y

        def reduced(kind: Reducer, term: Callable[[Index, int], Expr]) -> Expr:
            reduction = Reduction(f, kind, "float32", [(self.extent, self.stride)], term)
            return reduction.across(offset, [lanes])[0] if lanes else reduction.along(offset)

        largest = reduced("max", x.load)

        def power(place: Index, width: int) -> Expr:
            value = f.let(polynomials.brief_exp(f, x.load(place, width) - largest.broadcast(width)))
            if not self.log:
                y.store(place, value)
            return value

        total = reduced("sum", power)
        factor = f.let(polynomials.log(f, total) if self.log else 1.0 / total)
        for place, width in self._places(offset, lanes):
            if self.log:
                y.store(place, x.load(place, width) - largest - factor)
            else:
                y.store(place, y.load(place, width) * factor)

    def _places(self, offset: Index, lanes: int | None) -> Iterator[tuple[Index, int]]:
        if lanes is None:
            yield from ((offset + i, width) for i, width in self.f.vectors(self.extent))
            return
        with self.f.loop(self.extent) as i:
            yield self.f.name_index(offset + i * self.stride), lanes


@TVM.register(ops.Softmax, ops.LogSoftmax)
def softmax(plan: Plan, node: Node) -> None:
    """The axes before and behind the normalized one are merged."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, ops.Softmax | ops.LogSoftmax)
    shape, axis = x.type.shape, op.axis % x.type.rank
    outer, inner = dims.mul(*shape[:axis]), dims.mul(*shape[axis + 1 :])
    require_float(node)
    plan.emit(Softmax(outer, shape[axis], inner, isinstance(op, ops.LogSoftmax), x.type.dtype), x, node.outputs[0])


@dataclass(frozen=True)
class LayerNorm(Kernel, family="layer_norm"):
    """``epilogue(gamma * (x - mean) / sqrt(variance + epsilon) + beta)`` along the last axis.

    Arguments: x ``[rows, columns]``, gamma ``[columns]``, beta ``[columns]``, the epilogue's operands, y
    ``[rows, columns]``. Mean and variance are computed one after the other, which cancels nothing.
    """

    dtype: str
    epsilon: float
    epilogue: Chain

    @property
    def overwritable(self) -> tuple[int, ...]:
        return ((0,) if self.dtype == self.epilogue.result.dtype else ()) + overwritable(self.epilogue, 3)

    def build(self, f: Function) -> None:
        x, gamma, beta = (WidePointer(f, name, self.dtype) for name in ("x", "gamma", "beta"))
        epilogue = Epilogue(f, self.epilogue)
        y = f.pointer("y", self.epilogue.result.dtype)
        rows, columns = (f.extent(dim) for dim in self.epilogue.result.shape)
        count = index(columns).cast(x.wide)
        with f.parallel(rows) as row:
            offset = f.name_index(row * columns)
            axes = [(columns, 1)]
            mean = f.let(Reduction(f, "sum", x.wide, axes, x.load).along(offset) / count)

            def square(place: Index, width: int) -> Expr:
                centred = f.let(x.load(place, width) - mean)
                return centred * centred

            variance = Reduction(f, "sum", x.wide, axes, square).along(offset) / count
            scale = f.let(1.0 / unary("sqrt", variance + self.epsilon))
            for i, width in f.vectors(columns, lanes_of(f, self.dtype)):
                centred = (x.load(offset + i, width) - mean) * scale
                value = centred * gamma.load(i, width) + beta.load(i, width)
                y.store(offset + i, epilogue(value.cast(self.dtype), [row, i]))


@TVM.register(ops.LayerNorm)
def layer_norm(plan: Plan, node: Node) -> None:
    """The normalized axes are the last ones, hence one row in memory."""
    op, (x, gamma, beta) = node.op, node.inputs
    assert isinstance(op, ops.LayerNorm)
    ends = [x.type.rank - gamma.type.rank, x.type.rank]
    tail = plan.tail(node)
    chain = regroup(tail.chain, ends)
    if chain is None:
        plan.tails[node] = tail
        tail = Tail(Chain((x.type,), x.type), (), node.outputs[0])
        chain = regroup(tail.chain, ends)
        assert chain
    plan.emit(LayerNorm(x.type.dtype, op.epsilon, chain), x, gamma, beta, *tail.operands, tail.result)


@TVM.register(ops.BatchNorm)
def batch_norm(plan: Plan, node: Node) -> None:
    """``(x - mean) * scale + beta``, the scale computed here where the statistics are known, as at inference."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, ops.BatchNorm)
    shape = tuple(x.type.shape[axis] if axis == op.axis % x.type.rank else 1 for axis in range(x.type.rank))
    gamma, beta, mean, variance = (constant_array(value) for value in node.inputs[1:])
    if gamma is not None and beta is not None and mean is not None and variance is not None:
        with np.errstate(all="ignore"):
            scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + op.epsilon)
        arguments: tuple[Argument, ...] = (scale.astype(x.type.dtype), beta, mean)
        steps: Steps = ((ops.Sub(), (0, 3)), (ops.Mul(), (4, 1)), (ops.Add(), (5, 2)))
    else:
        arguments = node.inputs[1:]
        epsilon = ops.Constant(Tensor(np.asarray(op.epsilon, x.type.dtype)))
        steps = (
            (ops.Sub(), (0, 3)), (epsilon, ()), (ops.Add(), (4, 6)), (ops.Sqrt(), (7,)), (ops.Div(), (5, 8)),
            (ops.Mul(), (9, 1)), (ops.Add(), (10, 2)),
        )  # fmt: skip
    types = (x.type, *[x.type.with_shape(shape)] * len(arguments))
    plan.emit(Elementwise(collapse(Chain(types, x.type, steps))), x, *arguments, node.outputs[0])
