"""Elementwise arithmetic, comparison and selection. Operands broadcast as in numpy and share one dtype."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kcompile.ir.op import Arrays, Binary, Elementwise, Types, Unary, broadcast_shapes
from kcompile.ir.types import Array, TensorType


@dataclass(frozen=True)
class Add(Binary, name="add"):
    """``x + y``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.add(args[0], args[1]),)


@dataclass(frozen=True)
class Sub(Binary, name="sub"):
    """``x - y``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.subtract(args[0], args[1]),)


@dataclass(frozen=True)
class Mul(Binary, name="mul"):
    """``x * y``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.multiply(args[0], args[1]),)


@dataclass(frozen=True)
class Div(Binary, name="div"):
    """``x / y``; of integers, the quotient rounded down."""

    def kernel(self, args: Arrays) -> Arrays:
        divide = np.divide if args[0].dtype.kind == "f" else np.floor_divide
        return (divide(args[0], args[1]),)


@dataclass(frozen=True)
class FloorDiv(Binary, name="floor_div"):
    """``floor(x / y)``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.floor_divide(args[0], args[1]),)


@dataclass(frozen=True)
class Mod(Binary, name="mod"):
    """``x - y * floor(x / y)``: the remainder with the divisor's sign."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.mod(args[0], args[1]),)


@dataclass(frozen=True)
class Pow(Binary, name="pow"):
    """``x ** y``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.power(args[0], args[1]),)


@dataclass(frozen=True)
class Maximum(Binary, name="maximum"):
    """The larger operand; NaN if either is."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.maximum(args[0], args[1]),)


@dataclass(frozen=True)
class Minimum(Binary, name="minimum"):
    """The smaller operand; NaN if either is."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.minimum(args[0], args[1]),)


@dataclass(frozen=True)
class Neg(Unary, name="neg"):
    """``-x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.negative(args[0]),)


@dataclass(frozen=True)
class Abs(Unary, name="abs"):
    """``|x|``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.abs(args[0]),)


@dataclass(frozen=True)
class Exp(Unary, name="exp"):
    """``e ** x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.exp(args[0]),)


@dataclass(frozen=True)
class Log(Unary, name="log"):
    """The natural logarithm."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.log(args[0]),)


@dataclass(frozen=True)
class Sqrt(Unary, name="sqrt"):
    """The square root."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.sqrt(args[0]),)


@dataclass(frozen=True)
class Sign(Unary, name="sign"):
    """-1, 0 or 1."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.sign(args[0]),)


@dataclass(frozen=True)
class Floor(Unary, name="floor"):
    """The largest integer not above ``x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.floor(args[0]),)


@dataclass(frozen=True)
class Ceil(Unary, name="ceil"):
    """The smallest integer not below ``x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.ceil(args[0]),)


@dataclass(frozen=True)
class Round(Unary, name="round"):
    """The nearest integer, halves to even."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.round(args[0]),)


@dataclass(frozen=True)
class Sin(Unary, name="sin"):
    """The sine of an angle in radians."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.sin(args[0]),)


@dataclass(frozen=True)
class Cos(Unary, name="cos"):
    """The cosine of an angle in radians."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.cos(args[0]),)


@dataclass(frozen=True)
class Clip(Unary, name="clip"):
    """``min(max(x, min), max)``; NaN stays NaN. Use ``inf`` for an open side."""

    min: float
    max: float

    def kernel(self, args: Arrays) -> Arrays:
        return (np.clip(args[0], args[0].dtype.type(self.min), args[0].dtype.type(self.max)),)


@dataclass(frozen=True)
class Cast(Elementwise, name="cast", operands=("x",)):
    """``x`` as another dtype; to integers, rounded towards zero."""

    dtype: str

    def infer(self, types: Types) -> Types:
        return (types[0].with_dtype(self.dtype),)

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].astype(self.dtype),)


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


class _Logical(Binary):
    """Binary ops on bool."""

    def infer(self, types: Types) -> Types:
        self.require(all(t.dtype == "bool" for t in types), "operands must be bool", types)
        return super().infer(types)


@dataclass(frozen=True)
class And(_Logical, name="and"):
    """Both."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.logical_and(args[0], args[1]),)


@dataclass(frozen=True)
class Or(_Logical, name="or"):
    """Either."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.logical_or(args[0], args[1]),)


@dataclass(frozen=True)
class Not(Unary, name="not"):
    """The opposite, on bool."""

    def infer(self, types: Types) -> Types:
        self.require(types[0].dtype == "bool", "operand must be bool", types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        return (np.logical_not(args[0]),)


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
