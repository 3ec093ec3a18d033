"""Padding in all modes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kcompile.codegen.tvm.arrays import Pointer
from kcompile.codegen.tvm.epilogue import strides
from kcompile.codegen.tvm.expr import Expr, Index, constant, index, index_max, index_min, select
from kcompile.codegen.tvm.kernels.move import bits_of, carrier
from kcompile.codegen.tvm.kernels.nest import dot, shared_nest
from kcompile.codegen.tvm.kernels.reduction import lanes_of
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Node


@dataclass(frozen=True)
class PadConstant(Kernel, family="pad_constant"):
    """`value`, the bits of an element, around ``x[extents]``: rows of padding, and rows of padding, x and padding."""

    itemsize: int
    extents: Shape
    low: Shape
    high: Shape
    value: int

    def build(self, f: Function) -> None:
        dtype = carrier(self.itemsize)
        x, y = f.pointer("x", dtype), f.pointer("y", dtype)
        padded = tuple(dims.add(*axis) for axis in zip(self.extents, self.low, self.high, strict=True))
        sizes, to_y = [f.extent(dim) for dim in padded], [f.extent(s) for s in strides(padded)]
        extents, low = [f.extent(dim) for dim in self.extents], [f.extent(dim) for dim in self.low]
        from_x = [f.extent(s) for s in strides(self.extents)]
        with shared_nest(f, sizes[:-1], sizes[-1]) as position:
            target = f.name_index(dot(position, to_y[:-1]))
            place = [f.name_index(i - before) for i, before in zip(position, low, strict=False)]
            source = f.name_index(dot(place, from_x[:-1]))
            inside = constant(True, "bool")
            for axis, i in enumerate(place):
                if padded[axis] != self.extents[axis]:
                    inside = inside & (index(i) >= 0) & (index(i) < extents[axis])
            with f.when(inside):
                self._fill(f, y, target, low[-1])
                for i, width in f.vectors(extents[-1], lanes_of(f, dtype)):
                    y.store(target + low[-1] + i, x.load(source + i, width))
                self._fill(f, y, f.name_index(target + low[-1] + extents[-1]), f.extent(self.high[-1]))
            with f.when(~inside):
                self._fill(f, y, target, sizes[-1])

    def _fill(self, f: Function, y: Pointer, start: Index, count: Index) -> None:
        for i, width in f.vectors(count, lanes_of(f, y.dtype)):
            y.store(start + i, constant(self.value, y.dtype, width))


@dataclass(frozen=True)
class PadMirrored(Kernel, family="pad_mirrored"):
    """``x[extents, inner]`` continued beyond its ends by the nearest or by mirrored elements."""

    itemsize: int
    mode: Literal["edge", "reflect", "symmetric"]
    extents: Shape
    low: Shape
    high: Shape
    inner: Dim

    def build(self, f: Function) -> None:
        dtype = carrier(self.itemsize)
        x, y = f.pointer("x", dtype), f.pointer("y", dtype)
        padded = tuple(dims.add(*axis) for axis in zip(self.extents, self.low, self.high, strict=True))
        sizes, inner = [f.extent(dim) for dim in padded], f.extent(self.inner)
        to_y = [f.extent(dims.mul(s, self.inner)) for s in strides(padded)]
        from_x = [f.extent(dims.mul(s, self.inner)) for s in strides(self.extents)]
        with shared_nest(f, sizes, inner) as position:
            place = [
                self._source(f, i, extent, low) for i, extent, low in zip(position, self.extents, self.low, strict=True)
            ]
            source, target = f.name_index(dot(place, from_x)), f.name_index(dot(position, to_y))
            for i, width in f.vectors(inner, lanes_of(f, dtype)):
                y.store(target + i, x.load(source + i, width))

    def _source(self, f: Function, i: Index, dim: Dim, low: Dim) -> Index:
        """Where element `i` of the padded axis comes from."""
        i, extent = f.name_index(i - f.extent(low)), f.extent(dim)
        if self.mode == "edge":
            return f.name_index(index_max(index_min(i, extent - 1), 0))
        # Mirroring repeats itself; at the ends, "symmetric" shows the outermost element twice.
        twice = 1 if self.mode == "symmetric" else 0
        period = f.name_index(index_max(extent * 2 - 2 + 2 * twice, 1))
        phase = f.let(index(i) % period)
        back: Expr = index(period) - phase - twice
        return f.let(select(phase < extent, phase, back))


@TVM.register(ops.Pad)
def pad(plan: Plan, node: Node) -> None:
    """Axes without padding are merged with the one before."""
    op, x, y = node.op, node.inputs[0], node.outputs[0]
    assert isinstance(op, ops.Pad)
    axes = [(extent, low, high) for extent, low, high in zip(x.type.shape, op.low, op.high, strict=True)]
    if op.mode == "constant":
        extents, low, high = _merged(axes)
        plan.emit(PadConstant(x.type.itemsize, extents, low, high, bits_of(op.value, x.type.dtype)), x, y)
        return
    inner: Dim = 1
    while axes and axes[-1][1:] == (0, 0):
        inner = dims.mul(axes.pop()[0], inner)
    extents, low, high = zip(*axes, strict=True) if axes else ((), (), ())
    plan.emit(PadMirrored(x.type.itemsize, op.mode, extents, low, high, inner), x, y)


def _merged(axes: Sequence[tuple[Dim, int, int]]) -> tuple[Shape, Shape, Shape]:
    kept: list[tuple[Dim, Dim, Dim]] = []
    for extent, low, high in axes:
        if kept and low == high == 0:
            before = kept.pop()
            kept.append((dims.mul(before[0], extent), dims.mul(before[1], extent), dims.mul(before[2], extent)))
        else:
            kept.append((extent, low, high))
    extents, lows, highs = zip(*(kept or [(1, 0, 0)]), strict=True)
    return extents, lows, highs
