"""Gradients that are ops of their own: of ops that move, sort and multiply elements along axes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Gradients, Op, Types, Unary, Values, bind_shape, normalize_axis
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder


def along(x: Array, axis: int, function: Callable[[Array], Array]) -> Array:
    """`function` of ``x`` with `axis` in front, moved back."""
    return np.moveaxis(function(np.moveaxis(x, axis, 0)), 0, axis)


def add_rows(rows: Array, indices: Array, extent: int) -> Array:
    """The sums of the rows that share an index: ``rows: T[R, ...], indices: i[R] -> T[extent, ...]``."""
    total = np.zeros((extent, *rows.shape[1:]), rows.dtype)
    if not indices.size:
        return total
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    total[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return total


@dataclass(frozen=True)
class StopGradient(Unary, name="stop_gradient"):
    """``x``, through which no gradient flows."""

    def kernel(self, args: Arrays) -> Arrays:
        return args[:1]

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return (None,)


@dataclass(frozen=True)
class ScatterAdd(Op, name="scatter_add", operands=("indices", "dy")):
    """The gradient of `Gather`: zeros, to which every slice of ``dy`` is added at its index, clamped.

    ``indices: i[*I], dy: T[..., *I, ...] -> T[..., extent, ...]``, where the axes of the indices begin at `axis`.
    """

    extent: Dim
    axis: int = 0

    def infer(self, types: Types) -> Types:
        indices, dy = types
        inside = dy.shape[self.axis : self.axis + indices.rank]
        fits = indices.dtype.lstrip("u").startswith("int") and self.axis >= 0 and inside == indices.shape
        self.require(fits, "integer indices must have the shape of dy's axes from `axis` on", types)
        return (dy.with_shape((*dy.shape[: self.axis], self.extent, *dy.shape[self.axis + indices.rank :])),)

    def kernel(self, args: Arrays) -> Arrays:
        indices, dy = args
        extent, lead = int(self.extent), dy.shape[: self.axis]
        flat = np.clip(indices.reshape(-1).astype(np.int64), 0, extent - 1)
        rows = dy.reshape(*lead, flat.size, *dy.shape[self.axis + indices.ndim :])
        return (along(rows, self.axis, lambda part: add_rows(part, flat, extent)),)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, extent=dims.substitute(self.extent, bindings))


@dataclass(frozen=True)
class SliceGradient(Op, name="slice_gradient", operands=("dy",)):
    """Zeros along an axis of `extent`, with the elements of ``dy`` at ``start, start + step, ...`` before `stop`."""

    axis: int
    start: Dim
    stop: Dim
    extent: Dim
    step: int = 1

    def infer(self, types: Types) -> Types:
        axis = normalize_axis(self, self.axis, types)
        length = dims.ceil_div(dims.sub(self.stop, self.start), self.step)
        self.require(types[0].shape[axis] == length, f"dy must be {length} long along axis {axis}", types)
        shape = list(types[0].shape)
        shape[axis] = self.extent
        return (types[0].with_shape(shape),)

    def kernel(self, args: Arrays) -> Arrays:
        dy = args[0]
        shape = list(dy.shape)
        shape[self.axis] = int(self.extent)
        dx = np.zeros(shape, dy.dtype)
        index = [slice(None)] * dy.ndim
        index[self.axis] = slice(int(self.start), int(self.stop), self.step)
        dx[tuple(index)] = dy
        return (dx,)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        start, stop, extent = bind_shape((self.start, self.stop, self.extent), bindings)
        return replace(self, start=start, stop=stop, extent=extent)


@dataclass(frozen=True)
class PadGradient(Op, name="pad_gradient", operands=("dy",)):
    """The gradient of `Pad` in the modes that repeat elements: each element gets the sum over its copies."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    mode: Literal["edge", "reflect", "symmetric"]

    def infer(self, types: Types) -> Types:
        self.require(len(self.low) == len(self.high) == types[0].rank, "one width per axis", types)
        pairs = zip(types[0].shape, self.low, self.high, strict=True)
        return (types[0].with_shape([dims.add(dim, -low, -high) for dim, low, high in pairs]),)

    def kernel(self, args: Arrays) -> Arrays:
        dx = args[0]
        for axis, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if low or high:
                extent = dx.shape[axis] - low - high
                copies = np.pad(np.arange(extent), (low, high), mode=self.mode)
                dx = along(dx, axis, lambda part, copies=copies, extent=extent: add_rows(part, copies, extent))
        return (dx,)


@dataclass(frozen=True)
class SortGradient(Op, name="sort_gradient", operands=("x", "dy")):
    """``dy`` brought back to the places that the elements had before `Sort`."""

    axis: int = -1
    descending: bool = False

    def infer(self, types: Types) -> Types:
        normalize_axis(self, self.axis, types)
        self.require(types[0] == types[1], "x and dy must have one type", types)
        return types[:1]

    def kernel(self, args: Arrays) -> Arrays:
        x, dy = args
        order = np.argsort(x, axis=self.axis)
        dx = np.empty_like(dy)
        np.put_along_axis(dx, order, np.flip(dy, self.axis) if self.descending else dy, self.axis)
        return (dx,)


@dataclass(frozen=True)
class ReduceProdGradient(Op, name="reduce_prod_gradient", operands=("x",)):
    """For each element the product of all others over `axes`; no division, so that zeros are no special case."""

    axes: tuple[int, ...]

    def infer(self, types: Types) -> Types:
        for axis in self.axes:
            normalize_axis(self, axis, types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        x = args[0]
        last = tuple(range(-len(self.axes), 0))
        moved = np.moveaxis(x, self.axes, last)
        flat = moved.reshape(*moved.shape[: x.ndim - len(self.axes)], -1)
        ones = np.ones_like(flat[..., :1])
        before = np.cumprod(np.concatenate([ones, flat[..., :-1]], axis=-1), axis=-1, dtype=x.dtype)
        after = np.cumprod(np.concatenate([ones, flat[..., :0:-1]], axis=-1), axis=-1, dtype=x.dtype)[..., ::-1]
        others = before * after if flat.shape[-1] else flat
        return (np.moveaxis(others.reshape(moved.shape), last, self.axes),)
