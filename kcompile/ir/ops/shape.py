"""Ops that move elements and compute nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from kcompile.ir import dims, expression
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values, bind_shape, broadcast_shapes, normalize_axis
from kcompile.ir.types import TensorType, type_of

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Value


@dataclass(frozen=True)
class Reshape(Op, name="reshape", operands=("x",)):
    """The same elements in row-major order under another shape, whose extents may hold symbols."""

    shape: Shape

    def infer(self, types: Types) -> Types:
        result = types[0].with_shape(self.shape)
        self.require(result.size == types[0].size, f"{result} has another number of elements", types)
        return (result,)

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].reshape(TensorType("bool", self.shape).static_shape()),)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, shape=bind_shape(self.shape, bindings))

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return (dy.reshape(xs[0].type.shape).value,)


@dataclass(frozen=True)
class Transpose(Op, name="transpose", operands=("x",)):
    """Axis ``i`` of the result is axis ``perm[i]`` of ``x``."""

    perm: tuple[int, ...]

    def infer(self, types: Types) -> Types:
        self.require(sorted(self.perm) == list(range(types[0].rank)), "`perm` must name each axis once", types)
        return (types[0].with_shape([types[0].shape[axis] for axis in self.perm]),)

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].transpose(self.perm),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return (dy.transpose([self.perm.index(axis) for axis in range(len(self.perm))]).value,)


@dataclass(frozen=True)
class Concat(Op, name="concat", operands=("*xs",)):
    """The operands one after another along `axis`."""

    axis: int

    def infer(self, types: Types) -> Types:
        axis = normalize_axis(self, self.axis, types)
        outside = {(t.dtype, t.shape[:axis], t.shape[axis + 1 :]) for t in types}
        self.require(len(outside) == 1, f"operands must agree outside axis {axis}", types)
        shape = list(types[0].shape)
        shape[axis] = dims.add(*(t.shape[axis] for t in types))
        return (types[0].with_shape(shape),)

    def kernel(self, args: Arrays) -> Arrays:
        return (np.concatenate(args, axis=self.axis),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        stops = list(accumulate((x.type.shape[self.axis] for x in xs), dims.add))
        starts: list[Dim] = [0, *stops]
        axis = self.axis % dy.type.rank
        return tuple(dy.apply(Slice(axis, *bounds)).value for bounds in zip(starts, stops, strict=False))


@dataclass(frozen=True)
class Slice(Op, name="slice", operands=("x",)):
    """Along `axis`, every `step`-th element from `start` on, before `stop`; bounds are extents from 0 on."""

    axis: int
    start: Dim
    stop: Dim
    step: int = 1

    def infer(self, types: Types) -> Types:
        axis = normalize_axis(self, self.axis, types)
        shape = list(types[0].shape)
        self.require(self.step > 0, "`step` must be from 1 on", types)
        shape[axis] = dims.ceil_div(dims.sub(self.stop, self.start), self.step)
        length, extent = shape[axis], types[0].shape[axis]
        inside = not (isinstance(length, int) and length < 0)
        inside = inside and not (isinstance(self.stop, int) and isinstance(extent, int) and self.stop > extent)
        self.require(inside and not (isinstance(self.start, int) and self.start < 0), "bounds leave the axis", types)
        return (types[0].with_shape(shape),)

    def kernel(self, args: Arrays) -> Arrays:
        index = [slice(None)] * args[0].ndim
        index[self.axis] = slice(int(self.start), int(self.stop), self.step)
        return (args[0][tuple(index)],)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        start, stop = bind_shape((self.start, self.stop), bindings)
        return replace(self, start=start, stop=stop)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients import SliceGradient

        (dy,) = expression.lift(b, *dys)
        gradient = SliceGradient(self.axis, self.start, self.stop, xs[0].type.shape[self.axis], self.step)
        return (dy.apply(gradient).value,)


@dataclass(frozen=True)
class ExpectExtent(Op, name="expect_extent", operands=("x",)):
    """``x`` as it is, whose extent along `axis` must be `extent`, which nothing but the inputs' shapes can tell."""

    axis: int
    extent: Dim

    def infer(self, types: Types) -> Types:
        axis = normalize_axis(self, self.axis, types)
        shape = list(types[0].shape)
        known = isinstance(shape[axis], int) and isinstance(self.extent, int)
        law = f"the extent along axis {axis} must be {self.extent}"
        self.require(not known or shape[axis] == self.extent, law, types)
        shape[axis] = self.extent
        return (types[0].with_shape(shape),)

    def kernel(self, args: Arrays) -> Arrays:
        self.infer((type_of(args[0]),))
        return args[:1]

    def decompose(self, b: "Builder", xs: Values) -> "tuple[Value, ...]":
        return (b(Slice(self.axis, 0, self.extent), xs[0]),)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, extent=dims.substitute(self.extent, bindings))

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return (dy.apply(ExpectExtent(self.axis, xs[0].type.shape[self.axis])).value,)


@dataclass(frozen=True)
class Pad(Op, name="pad", operands=("x",)):
    """`low[i]` elements before and `high[i]` after axis ``i``: `value`, or the nearest, or mirrored ones."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant"
    value: float = 0.0

    def infer(self, types: Types) -> Types:
        fits = len(self.low) == len(self.high) == types[0].rank and min((*self.low, *self.high, 0)) == 0
        self.require(fits, "`low` and `high` must hold one number from 0 on per axis", types)
        shape = [dims.add(dim, low, high) for dim, low, high in zip(types[0].shape, self.low, self.high, strict=True)]
        return (types[0].with_shape(shape),)

    def kernel(self, args: Arrays) -> Arrays:
        widths = list(zip(self.low, self.high, strict=True))
        if not any((*self.low, *self.high)):
            return args[:1]
        if self.mode != "constant":
            return (np.pad(args[0], widths, mode=self.mode),)
        return (np.pad(args[0], widths, constant_values=args[0].dtype.type(self.value)),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients import PadGradient

        (dx,) = expression.lift(b, *dys)
        if self.mode != "constant":
            return (dx.apply(PadGradient(self.low, self.high, self.mode)).value,)
        for axis, (low, dim) in enumerate(zip(self.low, xs[0].type.shape, strict=True)):
            dx = dx if dim == dx.shape[axis] else dx.apply(Slice(axis, low, dims.add(low, dim)))
        return (dx.value,)


@dataclass(frozen=True)
class Reverse(Op, name="reverse", operands=("x",)):
    """The elements along each of `axes` in reverse order."""

    axes: tuple[int, ...]

    def infer(self, types: Types) -> Types:
        for axis in self.axes:
            normalize_axis(self, axis, types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        return (np.flip(args[0], self.axes),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return (dy.apply(self).value,)


@dataclass(frozen=True)
class Tile(Op, name="tile", operands=("x",)):
    """The whole tensor `repeats[i]` times along axis ``i``."""

    repeats: tuple[int, ...]

    def infer(self, types: Types) -> Types:
        self.require(len(self.repeats) == types[0].rank, "`repeats` must hold one number per axis", types)
        shape = [dims.mul(dim, count) for dim, count in zip(types[0].shape, self.repeats, strict=True)]
        return (types[0].with_shape(shape),)

    def kernel(self, args: Arrays) -> Arrays:
        return (np.tile(args[0], self.repeats),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        pairs = zip(self.repeats, xs[0].type.shape, strict=True)
        apart = dy.reshape([extent for pair in pairs for extent in pair])
        return (apart.sum(range(0, 2 * len(self.repeats), 2)).value,)


@dataclass(frozen=True)
class BroadcastTo(Op, name="broadcast_to", operands=("x",)):
    """Numpy broadcasting to `shape`, whose extents may hold symbols."""

    shape: Shape

    def infer(self, types: Types) -> Types:
        result = types[0].with_shape(self.shape)
        law = broadcast_shapes(self, (types[0], result)) == self.shape
        self.require(law, f"the operand does not broadcast to {result}", types)
        return (result,)

    def kernel(self, args: Arrays) -> Arrays:
        return (np.broadcast_to(args[0], TensorType("bool", self.shape).static_shape()),)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, shape=bind_shape(self.shape, bindings))

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return (expression.unbroadcast(dy, xs[0].type),)


@dataclass(frozen=True)
class Gather(Op, name="gather", operands=("x", "indices")):
    """``x`` along `axis` at integer `indices`, whose axes stand where `axis` stood.

    ``x: T[..., K, ...], indices: i[...] -> T[..., *indices, ...]``. Indices outside ``[0, K)`` are clamped into it, so
    that no input makes a back end read outside a table.
    """

    axis: int = 0

    def infer(self, types: Types) -> Types:
        axis = normalize_axis(self, self.axis, types[:1])
        self.require(types[1].dtype.lstrip("u").startswith("int"), "indices must be integers", types)
        shape = types[0].shape
        return (types[0].with_shape(shape[:axis] + types[1].shape + shape[axis + 1 :]),)

    def kernel(self, args: Arrays) -> Arrays:
        return (np.take(args[0], args[1].astype(np.int64), axis=self.axis, mode="clip"),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients import ScatterAdd

        (dy,) = expression.lift(b, *dys)
        scatter = ScatterAdd(xs[0].type.shape[self.axis], self.axis % xs[0].type.rank)
        return b(scatter, xs[1], dy.value), None
