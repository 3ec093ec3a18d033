"""What rules ask about values."""

import math

import numpy as np

from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value
from kcompile.ir.op import Op
from kcompile.ir.ops import (
    Abs,
    AvgPool,
    Clip,
    Exp,
    Full,
    HardSigmoid,
    MaxPool,
    ReduceMax,
    ReduceMean,
    Relu,
    Sigmoid,
    Softmax,
    Softplus,
)
from kcompile.ir.types import Array

_NONNEGATIVE = (Abs, Exp, HardSigmoid, Relu, Sigmoid, Softmax, Softplus)
_KEEPS_SIGN = (AvgPool, MaxPool, ReduceMax, ReduceMean)


def constant_array(value: Value) -> Array | None:
    """The array of a constant, or of a `Full` of known extents; a view that holds one element."""
    op = value.op
    if isinstance(op, Full) and value.type.is_static:
        number = np.asarray(op.value, op.dtype)
        return np.broadcast_to(number, value.type.static_shape())
    return value.constant


def uniform(value: Value) -> float | None:
    """The number that every element of `value` is, where that is known."""
    op = value.op
    if isinstance(op, Full):
        return float(np.asarray(op.value, op.dtype))
    array = value.constant
    if array is None or not array.size:
        return None
    first = array.flat[0]
    return float(first) if bool((array == first).all()) else None


def along_axis(value: Value, shape: Shape, axis: int) -> Array | None:
    """The numbers by which a constant, broadcast to `shape`, varies along `axis` alone: one per element, in float64."""
    array, extent = constant_array(value), shape[axis]
    if array is None or not isinstance(extent, int) or array.ndim > len(shape):
        return None
    wide = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    others = [size for i, size in enumerate(wide.shape) if i != axis % len(shape)]
    if math.prod(others) != 1:
        return None
    return np.broadcast_to(wide.reshape(-1), (extent,)).astype(np.float64)


def is_nonnegative(value: Value) -> bool:
    """Whether no element can be below zero."""
    op: Op | None = value.op
    while isinstance(op, _KEEPS_SIGN) and value.producer:
        value = value.producer.inputs[0]
        op = value.op
    return isinstance(op, _NONNEGATIVE) or (isinstance(op, Clip) and 0 <= op.min <= op.max)
