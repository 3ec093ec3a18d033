"""Elementwise arithmetic, comparison and selection. Operands broadcast as in numpy and share one dtype."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from kcompile.ir import expression
from kcompile.ir.op import Arrays, Binary, Elementwise, Gradients, Op, Types, Unary, Values, broadcast_shapes
from kcompile.ir.types import Array, TensorType

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder


@dataclass(frozen=True)
class Add(Binary, name="add"):
    """``x + y``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.add(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return expression.unbroadcast(dy, xs[0].type), expression.unbroadcast(dy, xs[1].type)


@dataclass(frozen=True)
class Sub(Binary, name="sub"):
    """``x - y``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.subtract(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return expression.unbroadcast(dy, xs[0].type), expression.unbroadcast(-dy, xs[1].type)


@dataclass(frozen=True)
class Mul(Binary, name="mul"):
    """``x * y``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.multiply(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *dys)
        return expression.unbroadcast(dy * y, xs[0].type), expression.unbroadcast(dy * x, xs[1].type)


@dataclass(frozen=True)
class Div(Binary, name="div"):
    """``x / y``; of integers, the quotient rounded down."""

    def kernel(self, args: Arrays) -> Arrays:
        divide = np.divide if args[0].dtype.kind == "f" else np.floor_divide
        return (divide(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, quotient, dy = expression.lift(b, xs[1], *ys, *dys)
        dx = dy / y
        return expression.unbroadcast(dx, xs[0].type), expression.unbroadcast(-(dx * quotient), xs[1].type)


@dataclass(frozen=True)
class FloorDiv(Binary, name="floor_div"):
    """``floor(x / y)``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.floor_divide(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return None, None


@dataclass(frozen=True)
class Mod(Binary, name="mod"):
    """``x - y * floor(x / y)``: the remainder with the divisor's sign."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.mod(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *dys)
        return expression.unbroadcast(dy, xs[0].type), expression.unbroadcast(
            -(dy * x.apply(FloorDiv(), y)), xs[1].type
        )


@dataclass(frozen=True)
class Pow(Binary, name="pow"):
    """``x ** y``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.power(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, power, dy = expression.lift(b, *xs, *ys, *dys)
        slope = (y * x ** (y - 1.0)).where(y.differs(0.0), 0.0)
        growth = power * x.where(x > 0.0, 1.0).log()
        return expression.unbroadcast(dy * slope, xs[0].type), expression.unbroadcast(dy * growth, xs[1].type)


@dataclass(frozen=True)
class Maximum(Binary, name="maximum"):
    """The larger operand; NaN if either is. Where they are equal each gets half of the gradient."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.maximum(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *dys)
        tie = (dy * 0.5).where(x.equals(y), 0.0)
        dx, other = dy.where(x > y, tie), dy.where(y > x, tie)
        return expression.unbroadcast(dx, xs[0].type), expression.unbroadcast(other, xs[1].type)


@dataclass(frozen=True)
class Minimum(Binary, name="minimum"):
    """The smaller operand; NaN if either is. Where they are equal each gets half of the gradient."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.minimum(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *dys)
        tie = (dy * 0.5).where(x.equals(y), 0.0)
        dx, other = dy.where(x < y, tie), dy.where(y < x, tie)
        return expression.unbroadcast(dx, xs[0].type), expression.unbroadcast(other, xs[1].type)


@dataclass(frozen=True)
class Neg(Unary, name="neg"):
    """``-x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.negative(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return ((-dy).value,)


@dataclass(frozen=True)
class Abs(Unary, name="abs"):
    """``|x|``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.abs(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return ((dy * x.sign()).value,)


@dataclass(frozen=True)
class Exp(Unary, name="exp"):
    """``e ** x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.exp(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return ((dy * y).value,)


@dataclass(frozen=True)
class Log(Unary, name="log"):
    """The natural logarithm."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.log(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return ((dy / x).value,)


@dataclass(frozen=True)
class Sqrt(Unary, name="sqrt"):
    """The square root."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.sqrt(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return ((dy * 0.5 / y).value,)


@dataclass(frozen=True)
class Sign(Unary, name="sign"):
    """-1, 0 or 1."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.sign(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return (None,)


@dataclass(frozen=True)
class Floor(Unary, name="floor"):
    """The largest integer not above ``x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.floor(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return (None,)


@dataclass(frozen=True)
class Ceil(Unary, name="ceil"):
    """The smallest integer not below ``x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.ceil(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return (None,)


@dataclass(frozen=True)
class Round(Unary, name="round"):
    """The nearest integer, halves to even."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.round(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return (None,)


@dataclass(frozen=True)
class Sin(Unary, name="sin"):
    """The sine of an angle in radians."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.sin(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return ((dy * x.apply(Cos())).value,)


@dataclass(frozen=True)
class Cos(Unary, name="cos"):
    """The cosine of an angle in radians."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.cos(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return ((-(dy * x.apply(Sin()))).value,)


@dataclass(frozen=True)
class Clip(Unary, name="clip"):
    """``min(max(x, min), max)``; NaN stays NaN. Use ``inf`` for an open side. The derivative at the bounds is 0."""

    min: float
    max: float

    def kernel(self, args: Arrays) -> Arrays:
        return (np.clip(args[0], args[0].dtype.type(self.min), args[0].dtype.type(self.max)),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return (dy.where((x > self.min) & (x < self.max), 0.0).value,)


@dataclass(frozen=True)
class Cast(Elementwise, name="cast", operands=("x",)):
    """``x`` as another dtype; to integers, rounded towards zero."""

    dtype: str

    def infer(self, types: Types) -> Types:
        return (types[0].with_dtype(self.dtype),)

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].astype(self.dtype),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        (dy,) = expression.lift(b, *dys)
        return (dy.cast(xs[0].type.dtype).value if dy.type.is_float else None,)


@dataclass(frozen=True)
class Compare(Elementwise, name="compare", operands=("x", "y")):
    """``x <relation> y``, as bool."""

    relation: Literal["==", "!=", "<", "<=", ">", ">="]

    def infer(self, types: Types) -> Types:
        self.require(types[0].dtype == types[1].dtype, "operands must have one dtype", types)
        return (TensorType("bool", broadcast_shapes(self, types)),)

    def kernel(self, args: Arrays) -> Arrays:
        compare = {
            "==": np.equal,
            "!=": np.not_equal,
            "<": np.less,
            "<=": np.less_equal,
            ">": np.greater,
            ">=": np.greater_equal,
        }[self.relation]
        return (compare(args[0], args[1]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return None, None


def _require_bits(op: Op, types: Types) -> None:
    has_bits = all(not t.is_float and t.dtype != "string" for t in types)
    op.require(has_bits, "operands must be bool or integers", types)


class _Logical(Binary):
    """Binary ops on bool, or on the bits of integers."""

    def infer(self, types: Types) -> Types:
        _require_bits(self, types)
        return super().infer(types)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return None, None


@dataclass(frozen=True)
class And(_Logical, name="and"):
    """Both, bit by bit where the operands are integers."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.bitwise_and(args[0], args[1]),)


@dataclass(frozen=True)
class Or(_Logical, name="or"):
    """Either, bit by bit where the operands are integers."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.bitwise_or(args[0], args[1]),)


@dataclass(frozen=True)
class Not(Unary, name="not"):
    """The opposite, bit by bit of an integer."""

    def infer(self, types: Types) -> Types:
        _require_bits(self, types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        return (np.bitwise_not(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return (None,)


@dataclass(frozen=True)
class Where(Elementwise, name="where", operands=("condition", "x", "y")):
    """``x`` where the condition holds, else ``y``."""

    def infer(self, types: Types) -> Types:
        fits = types[0].dtype == "bool" and types[1].dtype == types[2].dtype
        self.require(fits, "the condition must be bool, and x and y of one dtype", types)
        return (TensorType(types[1].dtype, broadcast_shapes(self, types)),)

    def kernel(self, args: Arrays) -> Arrays:
        chosen: Array = np.where(args[0], args[1], args[2])
        return (chosen,)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        condition, dy = expression.lift(b, xs[0], *dys)
        dx, other = dy.where(condition, 0.0), dy.where(~condition, 0.0)
        return None, expression.unbroadcast(dx, xs[1].type), expression.unbroadcast(other, xs[2].type)
