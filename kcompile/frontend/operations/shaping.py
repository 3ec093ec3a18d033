"""Operations of ``keras.ops`` that move elements: reshaping, joining, cutting, indexing."""

from collections.abc import Sequence
from itertools import pairwise
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.agreement import agreeing, reshaped
from kcompile.frontend.operations.operation import (
    Number,
    as_value,
    axes_of,
    axis_of,
    meeting,
    one_axis,
    operation,
    promoted,
)
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value

# What stands between the brackets of ``x[...]``.
Index: TypeAlias = int | slice | EllipsisType | None


@operation("numpy", "Reshape")
def reshape(t: Trace, x: Value, *, newshape: Sequence[int | None]) -> Value:
    """`x` under another shape, in which one extent may be -1 or None for what is left.

    Raises:
        ModelError: the extents do not fit.
    """
    shape = [-1 if extent is None else extent for extent in newshape]
    y = reshaped(t, x, shape) if shape.count(-1) <= 1 else None
    if y is None:
        raise ModelError(f"a tensor {x.type} cannot be given the shape {tuple(newshape)}.")
    return y


@operation("numpy", "Ravel")
def ravel(t: Trace, x: Value) -> Value:
    """`x` with all elements on one axis."""
    return t(ops.Reshape((dims.mul(*x.type.shape),)), x)


@operation("numpy", "Transpose")
def transpose(t: Trace, x: Value, *, axes: Sequence[int] | None = None) -> Value:
    """`x` with its axes in another order, by default the reverse."""
    order = reversed(range(x.type.rank)) if axes is None else [axis_of(x, axis) for axis in axes]
    return t(ops.Transpose(tuple(order)), x)


@operation("numpy", "Swapaxes")
def swapaxes(t: Trace, x: Value, *, axis1: int, axis2: int) -> Value:
    """`x` with two axes exchanged."""
    order = list(range(x.type.rank))
    first, second = axis_of(x, axis1), axis_of(x, axis2)
    order[first], order[second] = second, first
    return t(ops.Transpose(tuple(order)), x)


@operation("numpy", "ExpandDims")
def expand_dims(t: Trace, x: Value, *, axis: int | Sequence[int]) -> Value:
    """`x` with new axes of extent 1."""
    new = [axis] if isinstance(axis, int) else list(axis)
    rank = x.type.rank + len(new)
    places = {a % rank for a in new}
    rest = iter(x.type.shape)
    return t(ops.Reshape(tuple(1 if i in places else next(rest) for i in range(rank))), x)


@operation("numpy", "Squeeze")
def squeeze(t: Trace, x: Value, *, axis: Any = None) -> Value:
    """`x` without axes of extent 1."""
    ones = [i for i, extent in enumerate(x.type.shape) if extent == 1]
    left_out = ones if axis is None else axes_of(x, axis)
    if not set(left_out) <= set(ones):
        raise ModelError(f"an operation Squeeze leaves out axes of extent 1. Received: axis={axis!r} of {x.type}.")
    return t(ops.Reshape(tuple(extent for i, extent in enumerate(x.type.shape) if i not in left_out)), x)


@operation("numpy", "Concatenate")
def concatenate(t: Trace, xs: Sequence[Value], *, axis: int = 0) -> Value:
    """The tensors one after the other along an axis."""
    values, place = promoted(t, *xs), axis_of(xs[0], axis)
    return t(ops.Concat(place), *agreeing(t, values, [a for a in range(xs[0].type.rank) if a != place]))


@operation("numpy", "Stack")
def stack(t: Trace, x: Sequence[Value], *, axis: int = 0) -> Value:
    """The tensors along a new axis."""
    place = axis % (x[0].type.rank + 1)
    return t(ops.Concat(place), *(expand_dims(t, each, axis=place) for each in meeting(t, *x)))


@operation("core", "Unstack")
def unstack(t: Trace, x: Value, *, num: int | None = None, axis: int = 0) -> list[Value]:
    """The slices of `x` along an axis, without it."""
    place = axis_of(x, axis)
    extent = x.type.shape[place]
    if not isinstance(extent, int) or num not in (None, extent):
        raise ModelError(f"an operation Unstack needs a known extent. Received: num={num} of {x.type}.")
    return [squeeze(t, t(ops.Slice(place, i, i + 1), x), axis=place) for i in range(extent)]


@operation("numpy", "Split")
def split(t: Trace, x: Value, *, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Value]:
    """`x` in equal parts, or cut at indices."""
    place = axis_of(x, axis)
    extent = x.type.shape[place]
    if isinstance(indices_or_sections, int):
        part = dims.exact_div(extent, indices_or_sections)
        if part is None:
            law = f"axis {place} of {x.type} must divide into {indices_or_sections} equal parts"
            raise ModelError(f"{law}.")
        cuts: list[Dim] = [dims.mul(part, i) for i in range(1, indices_or_sections)]
    else:
        cuts = [dims.add(extent, cut) if cut < 0 else cut for cut in indices_or_sections]
    edges = [0, *cuts, extent]
    return [t(ops.Slice(place, a, b), x) for a, b in pairwise(edges)]


@operation("numpy", "Flip")
def flip(t: Trace, x: Value, *, axis: Any = None) -> Value:
    """`x` with the order along axes reversed."""
    return t(ops.Reverse(axes_of(x, axis)), x)


@operation("numpy", "Tile")
def tile(t: Trace, x: Value, *, repeats: Sequence[int]) -> Value:
    """`x` again and again along each axis."""
    return t(ops.Tile(tuple(repeats)), x)


@operation("numpy", "Pad", order=("x", "pad_width", "mode", "constant_values"))
def pad(t: Trace, x: Value, constant_values: Any = None, *, pad_width: Any, mode: str = "constant") -> Value:
    """`x` with borders."""
    pairs = np.broadcast_to(np.asarray(pad_width), (x.type.rank, 2)).tolist()
    low, high = (tuple(int(pair[side]) for pair in pairs) for side in (0, 1))
    return t(ops.Pad(low, high, mode, float(constant_values or 0.0)), x)  # pyright: ignore[reportArgumentType]


@operation("numpy", "Take")
def take(t: Trace, x: Value, indices: Any, *, axis: int | None = None) -> Value:
    """Slices of `x` along an axis, by their numbers, which count from the end where they are negative."""
    x, place = one_axis(t, x, axis)
    if isinstance(indices, Value):
        return t(ops.Gather(place), x, as_value(t, indices, "int32"))
    numbers, extent = np.asarray(indices, np.int32), x.type.shape[place]
    numbers = np.where(numbers < 0, numbers + extent, numbers) if isinstance(extent, int) else numbers
    return t(ops.Gather(place), x, t.constant(numbers.astype(np.int32)))


@operation("numpy", "OnesLike")
def ones_like(t: Trace, x: Value, *, dtype: str | None = None) -> Value:
    """Ones in the shape of `x`."""
    return t(ops.Full(x.type.shape, 1, dtype or x.type.dtype))


@operation("numpy", "ZerosLike")
def zeros_like(t: Trace, x: Value, *, dtype: str | None = None) -> Value:
    """Zeros in the shape of `x`."""
    return t(ops.Full(x.type.shape, 0, dtype or x.type.dtype))


@operation("numpy", "BroadcastTo")
def broadcast_to(t: Trace, x: Number, *, shape: Sequence[int]) -> Value:
    """`x` stretched to a shape."""
    return t(ops.BroadcastTo(tuple(shape)), as_value(t, x, x.type.dtype if isinstance(x, Value) else "float32"))


@operation("numpy", "GetItem")
def get_item(t: Trace, x: Value, key: Any) -> Value:
    """``x[key]`` for numbers, slices, None and ``...``.

    Raises:
        ModelError: the key holds something else.
    """
    items: list[Any] = list(key) if isinstance(key, list | tuple) else [key]
    if not all(item is None or isinstance(item, int | slice | EllipsisType) for item in items):
        raise ModelError(f"a tensor is indexed by numbers, slices, None and `...`. Received: {key!r}.")
    shape: list[Dim] = []
    axis = 0
    for item in _spread(items, x.type.rank):
        if item is None:
            shape.append(1)
            continue
        if isinstance(item, int):
            x = t(ops.Slice(axis, *_element(x.type.shape[axis], item)), x)
        else:
            x = _sliced(t, x, axis, item)
            shape.append(x.type.shape[axis])
        axis += 1
    return t(ops.Reshape(tuple(shape)), x) if tuple(shape) != x.type.shape else x


def _spread(items: Sequence[Index], rank: int) -> list[Any]:
    """The items with ``...`` written out; at the end where there is none."""
    given = list(items)
    if Ellipsis not in given:
        given.append(Ellipsis)
    place = given.index(Ellipsis)
    whole = [slice(None)] * (rank - sum(item is not None for item in given) + 1)
    return [*given[:place], *whole, *given[place + 1 :]]


def _element(extent: Dim, index: int) -> tuple[Dim, Dim]:
    start = dims.add(extent, index) if index < 0 else index
    return start, dims.add(start, 1)


def _sliced(t: Trace, x: Value, axis: int, item: slice) -> Value:
    if item == slice(None):
        return x
    step = item.step or 1
    extent = x.type.shape[axis]
    if isinstance(extent, int):
        start, stop, _ = item.indices(extent)
        count = len(range(start, stop, step))
        if step < 0:
            first = start + (count - 1) * step
            return t(ops.Reverse((axis,)), t(ops.Slice(axis, first, start + 1, -step), x)) if count else x
        return t(ops.Slice(axis, start, max(start, stop), step), x)
    if step < 0:
        if item.start is not None or item.stop is not None or step != -1:
            raise ModelError(f"an open extent is reversed whole (`::-1`) or not. Received: {item} on {x.type}.")
        return t(ops.Reverse((axis,)), x)
    return t(ops.Slice(axis, _bound(item.start, extent, 0), _bound(item.stop, extent, extent), step), x)


def _bound(given: int | None, extent: Dim, default: Dim) -> Dim:
    if given is None:
        return default
    return dims.add(extent, given) if given < 0 else given
