"""Activations, with the formulas and argument names of https://keras.io/api/layers/activations/.

Those that a backend may lack say how to `decompose`. Rare ones (``hard_shrink``, ``squareplus`` and others) have no op:
the frontend writes them with the ops of `arithmetic`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcompile.ir import expression
from kcompile.ir.op import Arrays, Binary, Gradients, Op, Types, Unary, Values, normalize_axis
from kcompile.ir.ops.arithmetic import Add, Clip, Exp, Log, Maximum, Minimum, Mul, Sub
from kcompile.ir.ops.error_function import erf
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Value


def scalar_like(b: "Builder", x: "Value", number: float) -> "Value":
    """A constant of rank 0 with the dtype of `x`."""
    return b.constant(np.asarray(number, x.type.dtype))


@dataclass(frozen=True)
class Relu(Unary, name="relu"):
    """``max(x, 0)``; the derivative at 0 is 0, as in Keras."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.maximum(args[0], args[0].dtype.type(0)),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return (dy.where(y > 0.0, 0.0).value,)


@dataclass(frozen=True)
class LeakyRelu(Unary, name="leaky_relu"):
    """``x`` where ``x >= 0``, else ``negative_slope * x``."""

    negative_slope: float

    def kernel(self, args: Arrays) -> Arrays:
        x = args[0]
        return (np.where(x >= 0, x, x * x.dtype.type(self.negative_slope)),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return (dy.where(x >= 0.0, dy * self.negative_slope).value,)


@dataclass(frozen=True)
class PRelu(Binary, name="prelu", operands=("x", "alpha")):
    """``x`` where ``x >= 0``, else ``alpha * x``; alpha broadcasts against x. Derivatives at 0 are 0, as in Keras."""

    def kernel(self, args: Arrays) -> Arrays:
        x, alpha = args
        return (np.where(x >= 0, x, x * alpha),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        zero = scalar_like(b, xs[0], 0.0)
        return (b(Add(), b(Relu(), xs[0]), b(Mul(), xs[1], b(Minimum(), xs[0], zero))),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, alpha, dy = expression.lift(b, *xs, *dys)
        below = dy.where(x < 0.0, 0.0)
        dx = dy.where(x > 0.0, below * alpha)
        return expression.unbroadcast(dx, xs[0].type), expression.unbroadcast(below * x, xs[1].type)


@dataclass(frozen=True)
class Elu(Unary, name="elu"):
    """``x`` where ``x > 0``, else ``alpha * (exp(x) - 1)``."""

    alpha: float = 1.0

    def kernel(self, args: Arrays) -> Arrays:
        x = args[0]
        return (np.where(x > 0, x, x.dtype.type(self.alpha) * np.expm1(np.minimum(x, x.dtype.type(0)))),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *ys, *dys)
        return (dy.where(x > 0.0, dy * (y + self.alpha)).value,)


@dataclass(frozen=True)
class Selu(Unary, name="selu"):
    """``scale * elu(x, alpha)`` with the constants of Klambauer et al. 2017, arXiv:1706.02515."""

    ALPHA = 1.6732632423543772848170429916717
    SCALE = 1.0507009873554804934193349852946

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].dtype.type(self.SCALE) * Elu(self.ALPHA).kernel(args)[0],)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        return (b(Mul(), b(Elu(self.ALPHA), xs[0]), scalar_like(b, xs[0], self.SCALE)),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *ys, *dys)
        scaled = dy * self.SCALE
        return (scaled.where(x > 0.0, dy * (y + self.SCALE * self.ALPHA)).value,)


@dataclass(frozen=True)
class Celu(Unary, name="celu"):
    """``max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))``."""

    alpha: float = 1.0

    def kernel(self, args: Arrays) -> Arrays:
        x, zero, alpha = args[0], args[0].dtype.type(0), args[0].dtype.type(self.alpha)
        return (np.where(x > 0, x, alpha * np.expm1(np.minimum(x, zero) / alpha)),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        scaled = b(Mul(), xs[0], scalar_like(b, xs[0], 1.0 / self.alpha))
        return (b(Mul(), b(Elu(1.0), scaled), scalar_like(b, xs[0], self.alpha)),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *ys, *dys)
        return (dy.where(x > 0.0, dy * (y / self.alpha + 1.0)).value,)


def _sigmoid(x: Array) -> Array:
    # Where exp overflows, the quotient is 0 as it should be. A choice by sign would be several times as slow.
    one = x.dtype.type(1)
    with np.errstate(over="ignore"):
        return one / (one + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.maximum(x, x.dtype.type(0)) + np.log1p(np.exp(-np.abs(x)))


@dataclass(frozen=True)
class Sigmoid(Unary, name="sigmoid"):
    """``1 / (1 + exp(-x))``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (_sigmoid(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return ((dy * (y * (1.0 - y))).value,)


@dataclass(frozen=True)
class HardSigmoid(Unary, name="hard_sigmoid"):
    """``clip(alpha * x + beta, 0, 1)``: alpha is 1/6 in Keras 3 and 0.2 in Keras 1 and 2."""

    alpha: float = 1.0 / 6.0
    beta: float = 0.5

    def kernel(self, args: Arrays) -> Arrays:
        kind = args[0].dtype.type
        return (np.clip(kind(self.alpha) * args[0] + kind(self.beta), kind(0), kind(1)),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        scaled = b(Mul(), xs[0], scalar_like(b, xs[0], self.alpha))
        return (b(Clip(0.0, 1.0), b(Add(), scaled, scalar_like(b, xs[0], self.beta))),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return ((dy * self.alpha).where((y > 0.0) & (y < 1.0), 0.0).value,)


@dataclass(frozen=True)
class Silu(Unary, name="silu"):
    """``x * sigmoid(x)``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0] * _sigmoid(args[0]),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        return (b(Mul(), xs[0], b(Sigmoid(), xs[0])),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *ys, *dys)
        gate = x.apply(Sigmoid())
        return ((dy * (gate + y * (1.0 - gate))).value,)


@dataclass(frozen=True)
class HardSilu(Unary, name="hard_silu"):
    """``x * hard_sigmoid(x)``, Howard et al. 2019, arXiv:1905.02244."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0] * HardSigmoid().kernel(args)[0],)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        return (b(Mul(), xs[0], b(HardSigmoid(), xs[0])),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        gate = x.apply(HardSigmoid())
        slope = (x * HardSigmoid().alpha).where((gate > 0.0) & (gate < 1.0), 0.0)
        return ((dy * (gate + slope)).value,)


@dataclass(frozen=True)
class Tanh(Unary, name="tanh"):
    """The hyperbolic tangent."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.tanh(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return ((dy * (1.0 - y * y)).value,)


@dataclass(frozen=True)
class Softplus(Unary, name="softplus"):
    """``log(1 + exp(x))``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (_softplus(args[0]),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        x, zero, one = xs[0], scalar_like(b, xs[0], 0.0), scalar_like(b, xs[0], 1.0)
        minus_abs = b(Minimum(), x, b(Sub(), zero, x))
        return (b(Add(), b(Maximum(), x, zero), b(Log(), b(Add(), one, b(Exp(), minus_abs)))),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return ((dy * x.apply(Sigmoid())).value,)


@dataclass(frozen=True)
class Softsign(Unary, name="softsign"):
    """``x / (1 + |x|)``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0] / (args[0].dtype.type(1) + np.abs(args[0])),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return ((dy * (1.0 - y.abs()).square()).value,)


@dataclass(frozen=True)
class Mish(Unary, name="mish"):
    """``x * tanh(softplus(x))``, Misra 2019, arXiv:1908.08681."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0] * np.tanh(_softplus(args[0])),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        return (b(Mul(), xs[0], b(Tanh(), b(Softplus(), xs[0]))),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        curve = x.apply(Softplus()).apply(Tanh())
        return ((dy * (curve + x * (1.0 - curve * curve) * x.apply(Sigmoid()))).value,)


@dataclass(frozen=True)
class Erf(Unary, name="erf"):
    """The error function, ``2 / sqrt(pi) * integral of exp(-t^2) from 0 to x``."""

    def kernel(self, args: Arrays) -> Arrays:
        return (erf(args[0]),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return ((dy * (-(x * x)).exp() * (2.0 / math.sqrt(math.pi))).value,)


@dataclass(frozen=True)
class Gelu(Unary, name="gelu"):
    """``x * Phi(x)``, or its tanh approximation, Hendrycks and Gimpel 2016, arXiv:1606.08415."""

    approximate: bool = False

    def kernel(self, args: Arrays) -> Arrays:
        x, kind = args[0], args[0].dtype.type
        if self.approximate:
            inner = kind(math.sqrt(2 / math.pi)) * (x + kind(0.044715) * x * x * x)
            return (kind(0.5) * x * (kind(1) + np.tanh(inner)),)
        return (kind(0.5) * x * (kind(1) + Erf().kernel((x * kind(math.sqrt(0.5)),))[0]),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        x, half, one = xs[0], scalar_like(b, xs[0], 0.5), scalar_like(b, xs[0], 1.0)
        if self.approximate:
            cube = b(Mul(), b(Mul(), b(Mul(), x, x), x), scalar_like(b, x, 0.044715))
            curve = b(Tanh(), b(Mul(), b(Add(), x, cube), scalar_like(b, x, math.sqrt(2 / math.pi))))
        else:
            curve = b(Erf(), b(Mul(), x, scalar_like(b, x, math.sqrt(0.5))))
        return (b(Mul(), b(Mul(), x, half), b(Add(), one, curve)),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        if self.approximate:
            square = x * x
            curve = (x * (1.0 + 0.044715 * square) * math.sqrt(2 / math.pi)).apply(Tanh())
            bend = x * (1.0 - curve * curve) * (1.0 + 3 * 0.044715 * square) * math.sqrt(2 / math.pi)
            return ((dy * 0.5 * (1.0 + curve + bend)).value,)
        share = 0.5 * (1.0 + (x * math.sqrt(0.5)).apply(Erf()))
        density = (x * x * -0.5).exp() * (1.0 / math.sqrt(2 * math.pi))
        return ((dy * (share + x * density)).value,)


@dataclass(frozen=True)
class Softmax(Op, name="softmax", operands=("x",)):
    """``exp(x) / sum(exp(x))`` along `axis`."""

    axis: int = -1

    def infer(self, types: Types) -> Types:
        normalize_axis(self, self.axis, types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        powers = np.exp(args[0] - args[0].max(axis=self.axis, keepdims=True, initial=-np.inf))
        return (powers / powers.sum(axis=self.axis, keepdims=True),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return ((y * (dy - (dy * y).sum((self.axis,), keepdims=True))).value,)


@dataclass(frozen=True)
class LogSoftmax(Op, name="log_softmax", operands=("x",)):
    """``x - log(sum(exp(x)))`` along `axis`."""

    axis: int = -1

    def infer(self, types: Types) -> Types:
        normalize_axis(self, self.axis, types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        shifted = args[0] - args[0].max(axis=self.axis, keepdims=True, initial=-np.inf)
        return (shifted - np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True)),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, dy = expression.lift(b, *ys, *dys)
        return ((dy - y.exp() * dy.sum((self.axis,), keepdims=True)).value,)
