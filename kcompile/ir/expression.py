"""Formulas over graph values in Python's operators; each operator writes one op.

    dy, y = lift(b, dys[0], ys[0])
    return ((dy * y * (1.0 - y)).value,)

Numbers become constants with the dtype of the value they meet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.op import Op
from kcompile.ir.ops import arithmetic, constant, reduction, shape
from kcompile.ir.types import TensorType

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Value

Operand: TypeAlias = "Expression | float"
Reduction: TypeAlias = "reduction.ReduceSum | reduction.ReduceMean | reduction.ReduceMax | reduction.ReduceMin"


@dataclass(frozen=True, eq=False)
class Expression:
    """A value with the builder that writes what is computed from it."""

    b: "Builder"
    value: "Value"

    @property
    def type(self) -> TensorType:
        """The value's type."""
        return self.value.type

    @property
    def shape(self) -> Shape:
        """The value's extents."""
        return self.value.type.shape

    def apply(self, op: Op, *others: Operand) -> "Expression":
        """``op(self, *others)``."""
        return Expression(self.b, self.b(op, self.value, *(self.like(other).value for other in others)))

    def like(self, other: Operand) -> "Expression":
        """`other` itself; a number as a constant of this value's dtype."""
        if isinstance(other, Expression):
            return other
        return Expression(self.b, self.b.constant(np.asarray(other, self.type.dtype)))

    def __add__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Add(), other)

    def __radd__(self, other: float) -> "Expression":
        return self.like(other) + self

    def __sub__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Sub(), other)

    def __rsub__(self, other: float) -> "Expression":
        return self.like(other) - self

    def __mul__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Mul(), other)

    def __rmul__(self, other: float) -> "Expression":
        return self * other

    def __truediv__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Div(), other)

    def __rtruediv__(self, other: float) -> "Expression":
        return self.like(other) / self

    def __pow__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Pow(), other)

    def __rpow__(self, other: float) -> "Expression":
        return self.like(other) ** self

    def __neg__(self) -> "Expression":
        return self.apply(arithmetic.Neg())

    def __gt__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Compare(">"), other)

    def __ge__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Compare(">="), other)

    def __lt__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Compare("<"), other)

    def __le__(self, other: Operand) -> "Expression":
        return self.apply(arithmetic.Compare("<="), other)

    def equals(self, other: Operand) -> "Expression":
        """``self == other``, element by element."""
        return self.apply(arithmetic.Compare("=="), other)

    def differs(self, other: Operand) -> "Expression":
        """``self != other``, element by element."""
        return self.apply(arithmetic.Compare("!="), other)

    def __and__(self, other: "Expression") -> "Expression":
        return self.apply(arithmetic.And(), other)

    def __or__(self, other: "Expression") -> "Expression":
        return self.apply(arithmetic.Or(), other)

    def __invert__(self) -> "Expression":
        return self.apply(arithmetic.Not())

    def where(self, condition: "Expression", other: Operand) -> "Expression":
        """This value where the condition holds, else `other`."""
        return condition.apply(arithmetic.Where(), self, self.like(other))

    def maximum(self, other: Operand) -> "Expression":
        """The larger of the two."""
        return self.apply(arithmetic.Maximum(), other)

    def minimum(self, other: Operand) -> "Expression":
        """The smaller of the two."""
        return self.apply(arithmetic.Minimum(), other)

    def clip(self, low: float, high: float) -> "Expression":
        """The nearest number from `low` to `high`."""
        return self.apply(arithmetic.Clip(low, high))

    def exp(self) -> "Expression":
        """``e ** self``."""
        return self.apply(arithmetic.Exp())

    def log(self) -> "Expression":
        """The natural logarithm."""
        return self.apply(arithmetic.Log())

    def sqrt(self) -> "Expression":
        """The square root."""
        return self.apply(arithmetic.Sqrt())

    def square(self) -> "Expression":
        """``self * self``."""
        return self * self

    def abs(self) -> "Expression":
        """The absolute value."""
        return self.apply(arithmetic.Abs())

    def sign(self) -> "Expression":
        """-1, 0 or 1."""
        return self.apply(arithmetic.Sign())

    def floor(self) -> "Expression":
        """The largest integer not above."""
        return self.apply(arithmetic.Floor())

    def ceil(self) -> "Expression":
        """The smallest integer not below."""
        return self.apply(arithmetic.Ceil())

    def cos(self) -> "Expression":
        """The cosine."""
        return self.apply(arithmetic.Cos())

    def cast(self, dtype: str) -> "Expression":
        """This value as another dtype."""
        return self if self.type.dtype == dtype else self.apply(arithmetic.Cast(dtype))

    def sum(self, axes: Sequence[int] | None = None, keepdims: bool = False) -> "Expression":
        """The sum over `axes`, by default all."""
        return self._reduced(reduction.ReduceSum, axes, keepdims)

    def mean(self, axes: Sequence[int] | None = None, keepdims: bool = False) -> "Expression":
        """The mean over `axes`, by default all."""
        return self._reduced(reduction.ReduceMean, axes, keepdims)

    def max(self, axes: Sequence[int] | None = None, keepdims: bool = False) -> "Expression":
        """The largest element over `axes`, by default all."""
        return self._reduced(reduction.ReduceMax, axes, keepdims)

    def min(self, axes: Sequence[int] | None = None, keepdims: bool = False) -> "Expression":
        """The smallest element over `axes`, by default all."""
        return self._reduced(reduction.ReduceMin, axes, keepdims)

    def all(self, axes: Sequence[int] | None = None) -> "Expression":
        """Whether every bool over `axes`, by default all, holds."""
        return self.cast("int32").min(axes) > 0

    def any(self, axes: Sequence[int] | None = None) -> "Expression":
        """Whether one of the bools over `axes`, by default all, holds."""
        return self.cast("int32").max(axes) > 0

    def _reduced(self, op: "type[Reduction]", axes: Sequence[int] | None, keepdims: bool) -> "Expression":
        chosen = tuple(range(self.type.rank)) if axes is None else tuple(axes)
        return self.apply(op(chosen, keepdims)) if chosen else self

    def reshape(self, extents: Sequence[Dim]) -> "Expression":
        """The same elements under another shape."""
        return self if self.shape == tuple(extents) else self.apply(shape.Reshape(tuple(extents)))

    def broadcast_to(self, extents: Sequence[Dim]) -> "Expression":
        """This value stretched to a shape."""
        return self if self.shape == tuple(extents) else self.apply(shape.BroadcastTo(tuple(extents)))

    def transpose(self, perm: Sequence[int]) -> "Expression":
        """The axes in another order."""
        return self.apply(shape.Transpose(tuple(perm)))

    def swap_last(self) -> "Expression":
        """The last two axes exchanged."""
        rank = self.type.rank
        return self.transpose((*range(rank - 2), rank - 1, rank - 2))

    def expand(self, axis: int) -> "Expression":
        """A new axis of extent 1 that is axis number `axis` of the result."""
        extents = list(self.shape)
        extents.insert(axis % (self.type.rank + 1), 1)
        return self.reshape(extents)

    def squeeze(self, axis: int) -> "Expression":
        """This value without `axis`, whose extent is 1."""
        extents = list(self.shape)
        del extents[axis]
        return self.reshape(extents)

    def one_hot(self, classes: int, dtype: str, axis: int = -1) -> "Expression":
        """1 where the position along the new `axis` is the integer found here, else 0; nowhere for others."""
        rank = self.type.rank + 1
        positions = np.arange(classes).reshape([classes if a == axis % rank else 1 for a in range(rank)])
        places = Expression(self.b, self.b.constant(positions.astype(self.type.dtype)))
        return self.expand(axis).equals(places).cast(dtype)

    def keep(self, axes: Sequence[int], rank: int) -> "Expression":
        """The axes that a reduction of a value of `rank` dropped, put back with extent 1."""
        dropped = {axis % rank for axis in axes}
        extents = iter(self.shape)
        return self.reshape([1 if axis in dropped else next(extents) for axis in range(rank)])


def lift(b: "Builder", *values: "Value | None") -> tuple[Expression, ...]:
    """The values as expressions; none may be missing."""
    return tuple(Expression(b, value) for value in values if value is not None)


def zeros(b: "Builder", type: TensorType) -> "Value":
    """A tensor of zeros."""
    return b(constant.Full(type.shape, 0.0, type.dtype))


def given(b: "Builder", gradients: "Sequence[Value | None]", ys: "Sequence[Value]") -> "tuple[Value, ...]":
    """The gradients with zeros in place of missing ones."""
    return tuple(dy if dy is not None else zeros(b, y.type) for dy, y in zip(gradients, ys, strict=True))


def count(b: "Builder", extents: Sequence[Dim], dtype: str) -> Expression:
    """The number of elements of a shape, which may hold symbols, as a number of `dtype`."""
    size = dims.mul(*extents)
    if isinstance(size, int):
        return Expression(b, b.constant(np.asarray(size, dtype)))
    return Expression(b, b(constant.Full((size,), 1.0, dtype))).sum()


def unbroadcast(dy: Expression, type: TensorType) -> "Value":
    """The gradient by a value of `type` that was stretched to the shape of `dy`: the sum over what was stretched."""
    extra = dy.type.rank - type.rank
    stretched = [extra + i for i, dim in enumerate(type.shape) if dim == 1 and dy.shape[extra + i] != 1]
    return dy.sum((*range(extra), *stretched)).reshape(type.shape).value
