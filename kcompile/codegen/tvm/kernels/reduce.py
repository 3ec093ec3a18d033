"""Reductions over any axes.

The axes of ``x`` are merged to runs that are kept or reduced in turn. Where the last run is kept, its elements are the
lanes of the vectors; where it is reduced, the lanes hold partial results, which are folded at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kcompile.codegen.tvm.epilogue import strides
from kcompile.codegen.tvm.expr import Expr, Index, index
from kcompile.codegen.tvm.kernels.nest import dot, merged, product, units
from kcompile.codegen.tvm.kernels.reduction import Axes, Reducer, Reduction, WidePointer, lanes_of, shared_blocks
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel, split
from kcompile.ir import ops
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Node


@dataclass(frozen=True)
class Reduce(Kernel, family="reduce"):
    """``y[kept] = kind of x[kept, reduced]``: `extents` of x, and for each axis whether it is reduced.

    Integers wrap. A mean of integers is rounded towards zero, as numpy's ``mean(dtype=int)`` has it. Not-a-number
    stays, as in numpy.
    """

    kind: Literal["sum", "mean", "max", "min", "prod"]
    dtype: str
    extents: Shape
    reduced: tuple[bool, ...]

    def build(self, f: Function) -> None:
        x, y = WidePointer(f, "x", self.dtype), WidePointer(f, "y", self.dtype)
        kept, gone = self._axes(f)
        kind: Reducer = "sum" if self.kind == "mean" else self.kind
        reduction = Reduction(f, kind, x.wide, gone, x.load)
        # A kept last axis has distance 1; it cannot be reduced and of extent 1, as such axes are dropped.
        if kept and kept[-1][1] == 1:
            self._across(f, reduction, y, kept, gone)
        else:
            self._along(f, reduction, y, kept, gone)

    def _axes(self, f: Function) -> tuple[Axes, Axes]:
        result = [1 if gone else extent for extent, gone in zip(self.extents, self.reduced, strict=True)]
        kept_strides = [0 if gone else s for s, gone in zip(strides(tuple(result)), self.reduced, strict=True)]
        # A stride of 0 keeps reduced axes from merging with kept ones.
        extents, ours, theirs = merged(self.extents, tuple(strides(self.extents)), tuple(kept_strides))
        axes = [(f.extent(e), f.extent(s)) for e, s in zip(extents, ours, strict=True)]
        kept = [axis for axis, stride in zip(axes, theirs, strict=True) if stride != 0]
        return kept, [axis for axis, stride in zip(axes, theirs, strict=True) if stride == 0]

    def _across(self, f: Function, reduction: Reduction, y: WidePointer, kept: Axes, gone: Axes) -> None:
        columns, lanes = kept[-1][0], lanes_of(f, self.dtype)
        extents, strides = [extent for extent, _ in kept[:-1]], [stride for _, stride in kept[:-1]]
        for outer, column, width in shared_blocks(f, extents, columns, lanes):
            offset = f.name_index(dot(outer, strides, column))
            place = f.name_index(dot(outer, _dense(extents, columns), column))
            for value in reduction.across(offset, split(width, lanes)):
                y.store(place, self._finish(value, gone))
                place = place + value.lanes

    def _along(self, f: Function, reduction: Reduction, y: WidePointer, kept: Axes, gone: Axes) -> None:
        with units(f, [extent for extent, _ in kept]) as position:
            value = reduction.along(f.name_index(dot(position, [stride for _, stride in kept])))
            y.store(dot(position, _dense([extent for extent, _ in kept], 1)), self._finish(value, gone))

    def _finish(self, value: Expr, gone: Axes) -> Expr:
        if self.kind != "mean":
            return value
        count = index(product([extent for extent, _ in gone]))
        if value.is_float:
            return value / count.cast(value.dtype)
        return (value.cast("float64") / count.cast("float64")).cast(value.dtype)


def _dense(extents: Sequence[Index], inner: Index) -> list[Index]:
    """Distances along each of `extents` in a dense array whose innermost block has `inner` elements."""
    return [product([inner, *extents[axis + 1 :]]) for axis in range(len(extents))]


_KINDS: dict[type, Literal["sum", "mean", "max", "min", "prod"]] = {
    ops.ReduceSum: "sum",
    ops.ReduceMean: "mean",
    ops.ReduceMax: "max",
    ops.ReduceMin: "min",
    ops.ReduceProd: "prod",
}
# Of truth values, numpy's sum is "any" and its product "all".
_BOOL_KINDS: dict[type, Literal["max", "min"]] = {
    ops.ReduceSum: "max",
    ops.ReduceMax: "max",
    ops.ReduceMin: "min",
    ops.ReduceProd: "min",
}


@TVM.register(ops.ReduceSum, ops.ReduceMean, ops.ReduceMax, ops.ReduceMin, ops.ReduceProd)
def reduce(plan: Plan, node: Node) -> None:
    """Merged axes, so that global pooling over height and width is one run."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, ops.ReduceSum | ops.ReduceMean | ops.ReduceMax | ops.ReduceMin | ops.ReduceProd)
    axes = {axis % x.type.rank for axis in op.axes}
    reduced = tuple(axis in axes for axis in range(x.type.rank))
    truth = x.type.dtype == "bool"
    kind = (_BOOL_KINDS if truth else _KINDS)[type(op)]
    plan.emit(Reduce(kind, "uint8" if truth else x.type.dtype, x.type.shape, reduced), x, node.outputs[0])
