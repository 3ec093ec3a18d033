"""Pieces of IR that several layers write."""

from collections.abc import Callable, Sequence

import numpy as np

from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value


def like(t: Trace, x: Value, number: float) -> Value:
    """A constant of rank 0 with the dtype of `x`."""
    return t.constant(np.asarray(number, x.type.dtype))


def cast(t: Trace, x: Value, dtype: str) -> Value:
    """`x` as `dtype`; itself if it is."""
    return x if x.type.dtype == dtype else t(ops.Cast(dtype), x)


def floating(t: Trace, x: Value) -> Value:
    """``x`` as it is if it holds floats, else as f32: of integers, Keras's means are that, whatever the policy."""
    return x if x.type.is_float else cast(t, x, "float32")


def reshape(t: Trace, x: Value, shape: Sequence[Dim]) -> Value:
    """`x` under another shape; itself if it has it."""
    return x if x.type.shape == tuple(shape) else t(ops.Reshape(tuple(shape)), x)


def expand_dims(t: Trace, x: Value, axis: int) -> Value:
    """`x` with a new axis of extent 1 that is axis number `axis` of the result."""
    rank = x.type.rank + 1
    shape = list(x.type.shape)
    shape.insert(axis % rank, 1)
    return t(ops.Reshape(tuple(shape)), x)


def squeeze(t: Trace, x: Value, axis: int) -> Value:
    """`x` without `axis`, whose extent is 1."""
    shape = list(x.type.shape)
    del shape[axis]
    return t(ops.Reshape(tuple(shape)), x)


def transpose(t: Trace, x: Value, perm: Sequence[int]) -> Value:
    """`x` with its axes in another order; itself if it is the same order."""
    return x if list(perm) == list(range(x.type.rank)) else t(ops.Transpose(tuple(perm)), x)


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The order of axes that undoes `perm`."""
    return tuple(int(axis) for axis in np.argsort(perm))


def last_axes(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    """The order of axes that brings `axes` to the end."""
    moved = [axis % rank for axis in axes]
    return (*(axis for axis in range(rank) if axis not in moved), *moved)


def in_channels_last(t: Trace, x: Value, data_format: str, write: Callable[[Value], Value]) -> Value:
    """``write(x)`` where `write` takes and returns channels last."""
    if data_format == "channels_last":
        return write(x)
    rank = x.type.rank
    to_last = (0, *range(2, rank), 1)
    y = write(t(ops.Transpose(to_last), x))
    return t(ops.Transpose(inverse(to_last)), y)


def any_of(t: Trace, mask: Value, axis: int) -> Value:
    """Whether any element of a bool tensor along `axis` holds."""
    return cast(t, t(ops.ReduceMax((axis,)), cast(t, mask, "int32")), "bool")


def all_of(t: Trace, mask: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
    """Whether all elements of a bool tensor along `axes` hold."""
    return cast(t, t(ops.ReduceMin(tuple(axes), keepdims), cast(t, mask, "int32")), "bool")


def full(t: Trace, shape: Sequence[Dim], value: float, dtype: str) -> Value:
    """A tensor of one value."""
    return t(ops.Full(tuple(shape), value, dtype))


def positions(t: Trace, extent: Dim) -> Value:
    """``0, 1, 2, ...`` as int32, `extent` of them."""
    if isinstance(extent, int):
        return t.constant(np.arange(extent, dtype=np.int32))
    counted = t(ops.CumSum(0), full(t, (extent,), 1, "int32"))
    return t(ops.Sub(), counted, t.constant(np.asarray(1, np.int32)))


def broadcast(t: Trace, x: Value, shape: Sequence[Dim]) -> Value:
    """`x` stretched to `shape`; itself if it has it."""
    return x if x.type.shape == tuple(shape) else t(ops.BroadcastTo(tuple(shape)), x)


def moved(shape: Sequence[Dim], perm: Sequence[int]) -> tuple[Dim, ...]:
    """`shape` with its axes in another order."""
    return tuple(shape[axis] for axis in perm)


def size(shape: Sequence[Dim]) -> Dim:
    """The number of elements of a shape."""
    return dims.mul(*shape)
