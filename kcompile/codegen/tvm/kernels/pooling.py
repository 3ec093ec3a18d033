"""Windows over channels-last activations: maximum and average."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from kcompile.codegen.tvm.epilogue import Epilogue, overwritable
from kcompile.codegen.tvm.expr import Expr, Index, constant, index, maximum
from kcompile.codegen.tvm.kernels.nest import product
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel, split
from kcompile.codegen.tvm.vector import Chain
from kcompile.codegen.tvm.windows import OpenWindows, Windows
from kcompile.ir import ops
from kcompile.ir.graph import Node

# Vectors of channels that one pass over a window keeps in registers.
_VECTORS = 4


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
        x = f.pointer("x", self.dtype)
        epilogue = Epilogue(f, self.epilogue)
        y = f.pointer("y", self.epilogue.result.dtype)
        channels = self.windows.channels
        windows = OpenWindows(f, self.windows)
        with f.parallel(f.extent(self.windows.pixels)) as pixel:
            n, *position = f.unravel(pixel, [windows.batch, *windows.out])
            bounds = [windows.bounds(axis, at) for axis, at in enumerate(position)]
            origin = windows.origin(n, position)
            for start, length in f.tiles(channels, _VECTORS * f.machine.lanes):
                widths = split(length, f.machine.lanes)
                starts = [start + sum(widths[:i]) for i in range(len(widths))]
                totals = [f.accumulators(1, width, self.dtype) for width in widths]
                for total in totals:
                    total[0] = neutral(self.kind, self.dtype)
                with windows.taps(bounds) as (_, offset):
                    for total, c, width in zip(totals, starts, widths, strict=True):
                        total[0] = combined(self.kind, total[0], x.load(origin + offset + c, width))
                for total, c in zip(totals, starts, strict=True):
                    value = finished(self.kind, total[0], product([last - first for first, last in bounds]))
                    y.store(pixel * channels + c, epilogue(value, [n, *position, c]))


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
