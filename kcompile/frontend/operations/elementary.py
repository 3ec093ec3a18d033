"""Elementary functions of ``keras.ops``, composed of the few that are ops.

Functions that lose digits near 0 when they are written out are computed from the exact rounding error, after
W. Kahan's ``log1p`` and ``expm1`` (Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.14).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from kcompile.frontend import activations
from kcompile.frontend.operations.operation import Number, as_value, meeting, operation, promoted
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value

Function: TypeAlias = Callable[[Expression], Expression]
_INFINITY = math.inf


def tensor(t: Trace, x: Any) -> Value:
    """`x` itself; an array as a constant."""
    return x if isinstance(x, Value) else t.constant(np.asarray(x))


def floats(t: Trace, *operands: Number) -> tuple[Expression, ...]:
    """Operands as floats of one dtype."""
    return lift(t.b, *meeting(t, *operands, floating=True))


def log1p(x: Expression) -> Expression:
    """``log(1 + x)``."""
    total = x + 1.0
    error = total - 1.0
    return (total.log() * (x / error.where(error.differs(0.0), 1.0))).where(error.differs(0.0), x)


def expm1(x: Expression) -> Expression:
    """``exp(x) - 1``."""
    power = x.exp()
    near = (x.abs() < 0.5) & power.differs(1.0)
    safe = power.where(near, 2.0)
    return ((safe - 1.0) * x / safe.log()).where(near, x.where(power.equals(1.0), power - 1.0))


def truncated(x: Expression) -> Expression:
    """The integer part, towards 0."""
    return x.abs().floor() * x.sign()


def sine(x: Expression) -> Expression:
    """``sin(x)``."""
    return x.apply(ops.Sin())


def _sinh(x: Expression) -> Expression:
    power = expm1(x.abs())
    return (power + power / (power + 1.0)) * 0.5 * x.sign()


def _arcsinh(x: Expression) -> Expression:
    size = x.abs()
    small = size.minimum(1e9)  # whose square is finite
    near = log1p(small + small * small / ((small * small + 1.0).sqrt() + 1.0))
    return near.where(size < 1e9, size.maximum(1.0).log() + math.log(2)) * x.sign()


def _arccosh(x: Expression) -> Expression:
    above = x - 1.0
    return log1p(above + above.sqrt() * (above + 2.0).sqrt())


def _angle(y: Expression, x: Expression | float) -> Expression:
    return y.apply(ops.Atan2(), x)


def _leg(x: Expression) -> Expression:
    """``sqrt(1 - x * x)``."""
    return ((1.0 - x) * (x + 1.0)).sqrt()


def _sinc(x: Expression) -> Expression:
    scaled = x.where(x.differs(0.0), 1.0) * math.pi
    return (sine(scaled) / scaled).where(x.differs(0.0), 1.0)


_FLOATING: dict[str, Function] = {
    "Arccos": lambda x: _angle(_leg(x), x),
    "Arccosh": _arccosh,
    "Arcsin": lambda x: _angle(x, _leg(x)),
    "Arcsinh": _arcsinh,
    "Arctan": lambda x: _angle(x, 1.0),
    "Arctanh": lambda x: log1p(x * 2.0 / (1.0 - x)) * 0.5,
    "Cbrt": lambda x: x.abs() ** (1 / 3) * x.sign(),
    "Cosh": lambda x: (x.exp() + (-x).exp()) * 0.5,
    "Deg2rad": lambda x: x * (math.pi / 180),
    "Exp2": lambda x: (x * math.log(2)).exp(),
    "Expm1": expm1,
    "Fabs": lambda x: x.abs(),
    "Log10": lambda x: x.log() * math.log10(math.e),
    "Log1p": log1p,
    "Log2": lambda x: x.log() * math.log2(math.e),
    "Rad2deg": lambda x: x * (180 / math.pi),
    "Sinc": _sinc,
    "Sinh": _sinh,
    "Tan": lambda x: sine(x) / x.cos(),
}
_PREDICATES: dict[str, Function] = {
    "Isfinite": lambda x: x.abs() < _INFINITY,
    "Isinf": lambda x: x.abs().equals(_INFINITY),
    "Isnan": lambda x: x.differs(x),
    "Isneginf": lambda x: x.equals(-_INFINITY),
    "Isposinf": lambda x: x.equals(_INFINITY),
    "Isreal": lambda x: x.equals(x) | x.differs(x),
    "Signbit": lambda x: x < 0.0,
}


def _floating(function: Function) -> Any:
    def rule(t: Trace, x: Number) -> Value:
        return function(*floats(t, x)).value

    return rule


for _name, _function in {**_FLOATING, **_PREDICATES}.items():
    operation("numpy", _name)(_floating(_function))
operation("math", "Erfc")(_floating(lambda x: 1.0 - x.apply(ops.Erf())))


@operation("numpy", "Trunc")
def trunc(t: Trace, x: Value) -> Value:
    """The integer part, towards 0."""
    return x if not x.type.is_float else truncated(*lift(t.b, x)).value


@operation("numpy", "Conj", "Conjugate", "Real")
def real(t: Trace, x: Value) -> Value:
    """`x`: all numbers of a graph are real."""
    return x


@operation("numpy", "Imag")
def imag(t: Trace, x: Value) -> Value:
    """0: all numbers of a graph are real."""
    return (lift(t.b, x)[0] * 0.0).value


@operation("numpy", "Arctan2")
def arctan2(t: Trace, x1: Number, x2: Number) -> Value:
    """The angle of the point ``(x2, x1)``."""
    return _angle(*floats(t, x1, x2)).value


@operation("numpy", "Hypot")
def hypot(t: Trace, x1: Number, x2: Number) -> Value:
    """``sqrt(x1 * x1 + x2 * x2)``, scaled so that the squares stay finite."""
    x, y = (each.abs() for each in floats(t, x1, x2))
    large, small = x.maximum(y), x.minimum(y)
    ratio = small / large.where(large > 0.0, 1.0)
    return (large * (ratio * ratio + 1.0).sqrt()).value


@operation("numpy", "Logaddexp")
def logaddexp(t: Trace, x1: Number, x2: Number) -> Value:
    """``log(exp(x1) + exp(x2))``."""
    x, y = floats(t, x1, x2)
    return (x.maximum(y) + log1p((-(x - y).abs()).exp())).value


@operation("numpy", "Logaddexp2")
def logaddexp2(t: Trace, x1: Number, x2: Number) -> Value:
    """``log2(2 ** x1 + 2 ** x2)``."""
    x, y = floats(t, x1, x2)
    return (x.maximum(y) + log1p(((x - y).abs() * -math.log(2)).exp()) * math.log2(math.e)).value


@operation("numpy", "Heaviside")
def heaviside(t: Trace, x1: Number, x2: Number) -> Value:
    """0 below 0, 1 above, and `x2` at it."""
    x, at = lift(t.b, *promoted(t, x1, x2))
    return at.where(x.equals(0), (x > 0).cast(x.type.dtype)).value


@operation("numpy", "Fmod")
def fmod(t: Trace, x1: Number, x2: Number) -> Value:
    """What a division rounded towards 0 leaves, with the sign of `x1`."""
    x, y = lift(t.b, *promoted(t, x1, x2))
    return (x.abs().apply(ops.Mod(), y.abs()) * x.sign()).value


def _ignoring_nan(op: Any) -> Any:
    def rule(t: Trace, x1: Number, x2: Number) -> Value:
        x, y = lift(t.b, *promoted(t, x1, x2))
        return x.where(y.differs(y), y.where(x.differs(x), x.apply(op, y))).value

    return rule


operation("numpy", "Fmax")(_ignoring_nan(ops.Maximum()))
operation("numpy", "Fmin")(_ignoring_nan(ops.Minimum()))


@operation("numpy", "Ldexp")
def ldexp(t: Trace, x1: Number, x2: Number) -> Value:
    """``x1 * 2 ** x2``."""
    x, exponent = floats(t, x1, x2)
    return (x * x.like(2.0) ** exponent).value


@operation("numpy", "LogicalXor")
def logical_xor(t: Trace, x1: Number, x2: Number) -> Value:
    """Where one is not 0, and the other is."""
    x, y = lift(t.b, as_value(t, x1, "bool"), as_value(t, x2, "bool"))
    return ((x | y) & ~(x & y)).value


@operation("numpy", "DivideNoNan")
def divide_no_nan(t: Trace, x1: Number, x2: Number) -> Value:
    """``x1 / x2``, and 0 where `x2` is 0."""
    x, y = floats(t, x1, x2)
    return (x / y.where(y.differs(0.0), 1.0)).where(y.differs(0.0), 0.0).value


@operation("numpy", "NanToNum")
def nan_to_num(t: Trace, x: Value, *, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Value:
    """`x` with numbers in place of NaN and of infinities, by default 0 and the largest there are."""
    if not x.type.is_float:
        return x
    (y,) = lift(t.b, x)
    limits = np.finfo(x.type.dtype)
    high, low = (float(limits.max if posinf is None else posinf), float(limits.min if neginf is None else neginf))
    bounded = y.like(high).where(y.equals(_INFINITY), y.like(low).where(y.equals(-_INFINITY), y))
    return y.like(float(nan)).where(y.differs(y), bounded).value


@operation("numpy", "Isclose")
def isclose(
    t: Trace, x1: Number, x2: Number, rtol: float = 1e-5, atol: float = 1e-8, *, equal_nan: bool = False
) -> Value:
    """Where ``|x1 - x2| <= atol + rtol * |x2|``."""
    x, y = floats(t, x1, x2)
    close = ((x - y).abs() <= y.abs() * rtol + atol) & (y.abs() < _INFINITY)
    close = close | x.equals(y)
    return (close | (x.differs(x) & y.differs(y)) if equal_nan else close).value


@operation("nn", "Celu")
def celu(t: Trace, x: Value, *, alpha: float = 1.0) -> Value:
    """``max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)``."""
    return t(ops.Celu(alpha), x)


@operation("nn", "Squareplus")
def squareplus(t: Trace, x: Value, *, b: float = 4) -> Value:
    """``(x + sqrt(x * x + b)) / 2``."""
    (y,) = lift(t.b, x)
    return ((y + (y * y + float(b)).sqrt()) * 0.5).value


@operation("nn", "SoftShrink")
def soft_shrink(t: Trace, x: Value, *, threshold: float = 0.5) -> Value:
    """`x` brought nearer to 0 by `threshold`, at most to it."""
    (y,) = lift(t.b, x)
    return (y - y.clip(-threshold, threshold)).value


@operation("nn", "HardShrink")
def hard_shrink(t: Trace, x: Value, *, threshold: float = 0.5) -> Value:
    """`x` where its magnitude is above `threshold`, else 0."""
    (y,) = lift(t.b, x)
    return y.where(y.abs() > threshold, 0.0).value


@operation("nn", "Threshold")
def threshold(t: Trace, x: Value, *, threshold: float, default_value: float) -> Value:
    """`x` where it is above `threshold`, else `default_value`."""
    (y,) = lift(t.b, x)
    return y.where(y > threshold, default_value).value


def _along(name: str) -> Any:
    def rule(t: Trace, x: Value, *, axis: int = -1) -> Value:
        rank = x.type.rank
        order = list(range(rank))
        order.append(order.pop(axis % rank))
        inverse = [order.index(i) for i in range(rank)]
        return t(ops.Transpose(tuple(inverse)), activations.apply(t, name, t(ops.Transpose(tuple(order)), x)))

    return rule


operation("nn", "Glu")(_along("glu"))
operation("nn", "Sparsemax")(_along("sparsemax"))


# Minimax polynomials near 0 and towards 1; M. Giles, Approximating the erfinv function, GPU Computing Gems 2, 2010.
_ERFINV_NEAR = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_ERFINV_FAR = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


@operation("math", "Erfinv")
def erfinv(t: Trace, x: Number) -> Value:
    """The inverse of `erf`, to single precision."""
    (y,) = floats(t, x)
    w = -((1.0 - y) * (y + 1.0)).log()
    near, far = _polynomial(w - 2.5, _ERFINV_NEAR), _polynomial(w.maximum(5.0).sqrt() - 3.0, _ERFINV_FAR)
    return (near.where(w < 5.0, far) * y).value


def _polynomial(x: Expression, coefficients: Sequence[float]) -> Expression:
    total = x * 0.0 + coefficients[0]
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total
