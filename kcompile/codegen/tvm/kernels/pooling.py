"""Windows over channels-last activations: maximum and average."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from kcompile.codegen.tvm.arrays import Accumulators
from kcompile.codegen.tvm.epilogue import Epilogue, overwritable
from kcompile.codegen.tvm.expr import Expr, Index, constant, index, maximum
from kcompile.codegen.tvm.kernels.channelwise import ChannelwiseFunction
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.vector import Chain
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir import ops
from kcompile.ir.graph import Node

Kind: TypeAlias = Literal["max", "mean"]


@dataclass(frozen=True)
class Pool(Kernel, family="pool"):
    """The maximum or the mean of each window, over the elements that are not padding.

    Arguments: x ``[N, *spatial, C]``, the epilogue's operands, y ``[N, *out, C]``.
    """

    kind: Kind
    dtype: str
    windows: Windows
    epilogue: Chain

    @property
    def overwritable(self) -> tuple[int, ...]:
        return overwritable(self.epilogue, 1)

    def build(self, f: Function) -> None:
        _PoolFunction(f, self).write()


class _PoolFunction(ChannelwiseFunction):
    def __init__(self, f: Function, spec: Pool) -> None:
        self._kind: Kind = spec.kind
        x, epilogue = f.pointer("x", spec.dtype), Epilogue(f, spec.epilogue)
        y = f.pointer("y", spec.epilogue.result.dtype)
        super().__init__(f, spec.windows, spec.dtype, x, y, epilogue)

    def start(self, c: Index, lanes: int) -> Expr:
        del c, lanes
        return neutral(self._kind, self._dtype)

    def add(self, sums: Accumulators, i: int, x: Expr, weight: Expr | None) -> None:
        del weight
        sums[i] = combined(self._kind, sums[i], x)

    def finish(self, value: Expr, count: Index) -> Expr:
        return finished(self._kind, value, count)


def neutral(kind: Kind, dtype: str) -> Expr:
    """What a window of no elements gives."""
    if kind == "mean":
        return constant(0, dtype)
    return constant(-math.inf if dtype.startswith("float") else int(np.iinfo(dtype).min), dtype)


def combined(kind: Kind, total: Expr, value: Expr) -> Expr:
    """The total with one more element."""
    return maximum(value, total) if kind == "max" else total + value


def finished(kind: Kind, total: Expr, count: Index) -> Expr:
    """The result of a window of `count` elements."""
    return total if kind == "max" else total / index(count).cast(total.dtype)


@TVM.register(ops.MaxPool, ops.AvgPool)
def pool(plan: Plan, node: Node) -> None:
    """Channels-last only: `layout` has seen to that."""
    op, x, y = node.op, node.inputs[0], node.outputs[0]
    assert isinstance(op, ops.MaxPool | ops.AvgPool)
    windows = Windows.of(x.type, y.type, op.pool_size, op.strides, (1,) * len(op.strides), op.padding)
    tail = plan.tail(node)
    plan.emit(Pool(kind_of(op), x.type.dtype, windows, tail.chain), x, *tail.operands, tail.result)


def kind_of(op: ops.MaxPool | ops.AvgPool) -> Kind:
    """What a pooling computes of its windows."""
    return "max" if isinstance(op, ops.MaxPool) else "mean"
