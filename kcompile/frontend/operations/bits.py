"""Operations of ``keras.ops`` on the bits of integers, which are in two's complement."""

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.operations.operation import Number, as_value, meeting, operation, promoted
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value
from kcompile.ir.op import Op


def _integers(t: Trace, *operands: Number) -> tuple[Expression, ...]:
    values = meeting(t, *operands)
    if values[0].type.is_float:
        raise ModelError(f"bits are those of integers or bools. Received: {values[0].type.dtype}.")
    return lift(t.b, *values)


@operation("numpy", "BitwiseAnd")
def bitwise_and(t: Trace, x: Number, y: Number) -> Value:
    """The bits that both have."""
    left, right = _integers(t, x, y)
    return (left & right).value


@operation("numpy", "BitwiseOr")
def bitwise_or(t: Trace, x: Number, y: Number) -> Value:
    """The bits that one has."""
    left, right = _integers(t, x, y)
    return (left | right).value


@operation("numpy", "BitwiseXor")
def bitwise_xor(t: Trace, x: Number, y: Number) -> Value:
    """The bits that one has and the other has not."""
    left, right = _integers(t, x, y)
    return ((left | right) & ~(left & right)).value


@operation("numpy", "BitwiseNot", "BitwiseInvert")
def bitwise_not(t: Trace, x: Number) -> Value:
    """The bits that `x` has not."""
    return (~_integers(t, x)[0]).value


def _moved(t: Trace, op: Op, x: Number, y: Number) -> Value:
    """`x` by the power `y` of 2, in 64 bits and two steps, so that nothing exceeds the dtype on the way.

    As in XLA, places below 0 and from the number of bits on move all bits out.
    """
    number, places = promoted(t, x, y)
    dtype = number.type.dtype
    if number.type.is_float or dtype == "bool":
        raise ModelError(f"bits that are moved are those of integers. Received: {dtype}.")
    width = np.dtype(dtype).itemsize * 8
    (moved,) = lift(t.b, places)
    moved = moved.minimum(width)
    if not dtype.startswith("u"):
        moved = moved.where(~(moved < 0), width)
    half = moved.apply(ops.FloorDiv(), 2)
    wide = "uint64" if dtype == "uint64" else "int64"
    powers = t.constant(np.array([1 << place for place in range(width // 2 + 1)], wide))
    first, second = (t(ops.Gather(0), powers, as_value(t, place.value, "int32")) for place in (half, moved - half))
    return as_value(t, t(op, t(op, as_value(t, number, wide), first), second), dtype)


@operation("numpy", "LeftShift", "BitwiseLeftShift")
def left_shift(t: Trace, x: Number, y: Number) -> Value:
    """``x`` with its bits moved up by ``y`` places; those that leave are lost."""
    return _moved(t, ops.Mul(), x, y)


@operation("numpy", "RightShift", "BitwiseRightShift")
def right_shift(t: Trace, x: Number, y: Number) -> Value:
    """``floor(x / 2^y)``: ``x`` with its bits moved down by ``y`` places, its sign coming in."""
    return _moved(t, ops.FloorDiv(), x, y)
