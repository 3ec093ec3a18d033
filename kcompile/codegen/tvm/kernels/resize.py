"""Resampling of images at half-pixel centres."""

from dataclasses import dataclass
from typing import Literal

from kcompile.codegen.tvm.arrays import Pointer
from kcompile.codegen.tvm.epilogue import strides
from kcompile.codegen.tvm.expr import Expr, Index, index, index_max, index_min, maximum, minimum, unary
from kcompile.codegen.tvm.kernels.move import carrier
from kcompile.codegen.tvm.kernels.nest import dot, shared_nest
from kcompile.codegen.tvm.kernels.reduction import lanes_of
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Node


@dataclass(frozen=True)
class Resize(Kernel, family="resize"):
    """``x: T[outer, *extents, inner] -> T[outer, *sizes, inner]``; "nearest" moves elements of any dtype.

    Positions are computed in float64 as the op states them, so that ties fall as they do in the reference.
    """

    dtype: str
    interpolation: Literal["nearest", "bilinear"]
    outer: Dim
    extents: Shape
    sizes: Shape
    inner: Dim

    def build(self, f: Function) -> None:
        x, y = f.pointer("x", self.dtype), f.pointer("y", self.dtype)
        sizes, inner = [f.extent(dim) for dim in (self.outer, *self.sizes)], f.extent(self.inner)
        to_y = [f.extent(s) for s in strides((self.outer, *self.sizes, self.inner))[:-1]]
        from_x = [f.extent(s) for s in strides((self.outer, *self.extents, self.inner))[:-1]]
        with shared_nest(f, sizes, inner) as (outer, *position):
            axes = [
                self._sample(f, i, extent, size, step)
                for i, extent, size, step in zip(position, self.extents, self.sizes, from_x[1:], strict=True)
            ]
            origin, target = f.name_index(outer * from_x[0]), f.name_index(dot([outer, *position], to_y))
            for c, width in f.vectors(inner, lanes_of(f, self.dtype)):
                y.store(target + c, self._value(f, x, axes, origin + c, width))

    def _sample(self, f: Function, i: Index, extent: Dim, size: Dim, step: Index) -> "_Sample":
        whole = index(f.extent(extent)).cast("float64")
        parts = index(index_max(f.extent(size), 1)).cast("float64")
        position = f.let((index(i).cast("float64") + 0.5) * f.let(whole / parts))
        last = f.name_index(f.extent(extent) - 1)
        if self.interpolation == "nearest":
            near = f.name_index(index_min(unary("floor", position).cast("int32"), last))
            return _Sample(f.name_index(near * step))
        clamped = f.let(minimum(f.let(maximum(position - 0.5, 0.0)), index(last).cast("float64")))
        floor = f.let(unary("floor", clamped))
        low = f.let(floor.cast("int32"))
        high = f.name_index(index_min(low + 1, last))
        return _Sample(f.name_index(low * step), f.name_index(high * step), f.let((clamped - floor).cast(self.dtype)))

    def _value(self, f: Function, x: Pointer, axes: "list[_Sample]", offset: Index, width: int) -> Expr:
        """The element, interpolated along the first axis first."""
        if not axes:
            return x.load(offset, width)
        last, rest = axes[-1], axes[:-1]
        low = f.let(self._value(f, x, rest, offset + last.low, width))
        if last.weight is None:
            return low
        high = f.let(self._value(f, x, rest, offset + last.high, width))
        return f.let(low * (1.0 - last.weight) + high * last.weight)


@dataclass(frozen=True)
class _Sample:
    """Offsets of the neighbours along one axis and the weight of the upper one; one neighbour where that is None."""

    low: Index
    high: Index = 0
    weight: Expr | None = None


@TVM.register(ops.Resize)
def resize(plan: Plan, node: Node) -> None:
    """Channels-first images are rows of one channel."""
    op, x, y = node.op, node.inputs[0], node.outputs[0]
    assert isinstance(op, ops.Resize)
    shape = x.type.shape
    if op.data_format == "channels_last":
        outer, extents, inner = shape[0], shape[1:-1], shape[-1]
    else:
        outer, extents, inner = dims.mul(*shape[:2]), shape[2:], 1
    dtype = carrier(x.type.itemsize) if op.interpolation == "nearest" else x.type.dtype
    plan.emit(Resize(dtype, op.interpolation, outer, extents, op.size, inner), x, y)
