"""Elementary functions of float32 and float64 vectors as polynomials.

TVM would turn its own `exp` on a vector into one library call per lane. These take and give an `Expr` of any number of
lanes, are right at NaN, ±infinity, overflow and denormals, and need no instruction beyond SSE2. The bounds, in units of
the last place of float32, are the largest errors against float64 on a grid over all bit patterns that a test walks
through; for float64 all functions keep a relative error below 1e-14, `sin` and `cos` an absolute one below 1e-15.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kcompile.codegen.tvm.expr import Expr, constant, is_nan, masked_intrinsic, maximum, minimum, select, unary
from kcompile.codegen.tvm.tir import Function

_INFINITY = math.inf


@dataclass(frozen=True)
class _Format:
    """What the functions must know of a binary floating-point format."""

    integer: str
    mantissa: int  # stored bits
    bias: int
    root_half: int  # bits of sqrt(1/2)
    smallest: float  # normal number
    low: float  # exp is 0 below
    high: float  # exp is infinite above
    ln2_high: float  # few bits, so that its product with an exponent is exact (Cody and Waite, 1980)
    ln2_low: float
    exp: tuple[float, ...]  # (exp(r) - 1 - r) / r² on |r| <= ln(2)/2, highest coefficient first

    @property
    def rounding(self) -> float:
        """Adding and subtracting it rounds to an integer, which then stands in the low bits of the sum."""
        return 1.5 * 2.0**self.mantissa


_FORMATS = {
    # The coefficients are those of expf in the Cephes Mathematical Library (Moshier, 1989).
    "float32": _Format(
        "int32", 23, 127, 0x3F3504F3, 2.0**-126, -104.0, 89.0, 0.693359375, -2.12194440e-4,
        (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
    ),
    # Taylor's series, whose next term is below 2**-54.
    "float64": _Format(
        "int64", 52, 1023, 0x3FE6A09E667F3BCD, 2.0**-1022, -746.0, 710.0, 0.693145751953125, 1.42860682030941723212e-6,
        tuple(1.0 / math.factorial(k) for k in range(14, 1, -1)),
    ),
}  # fmt: skip

# (exp(-r) - 1 + r) / r² on |r| <= ln(2)/2: a fit of least largest relative error (as below) of exp(-r), 3e-9.
_NEGATED_EXP = (0.00138146, -0.00836872, 0.04166839, -0.16666521, 0.49999993)
# Where the logistic function is taken for 0 and 1: it is 1.3e-38 there, next to the smallest normal number.
_LOGISTIC_END = 87.25
# (log(1+t) - t + t²/2) / t³ on sqrt(1/2) <= 1+t < sqrt(2): logf of the Cephes library.
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
# sin(r)/r - 1 over r² and cos(r) - 1 + r²/2 over r⁴ on |r| <= pi/4: sinf and cosf of the same library; for float64
# Taylor's series, whose next terms are below 2**-60.
_SIN = {
    "float32": (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1),
    "float64": tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(8, 0, -1)),
}
_COS = {
    "float32": (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2),
    "float64": tuple((-1) ** k / math.factorial(2 * k) for k in range(9, 1, -1)),
}
# tanh(x)/x on |x| <= 9 and erf(x)/x on |x| <= 3.8325 as quotients of polynomials in x²: fits of least largest relative
# error (iteratively reweighted least squares, Lawson 1961) of 2.1e-8 and 1.3e-8. At the ends below, a little further
# out, their values exceed 1 by more than rounding takes away.
_TANH = (
    (1.335468891028313e-08, 2.060910264845006e-05, 0.0034955893643200397, 0.13381026685237885, 1.0),
    (7.77657021444611e-07, 0.0003285637067165226, 0.025876987725496292, 0.4671434164047241, 1.0),
)
_ERF = (
    (2.123131707776338e-06, 0.0002859439991880208, 0.0036527777556329966, 0.05241860821843147, 0.18730884790420532,
     1.1283791065216064),
    (3.889831714332104e-05, 0.0011417134664952755, 0.014742545783519745, 0.11290072649717331, 0.4993310570716858, 1.0),
)  # fmt: skip


_TANH_END, _ERF_END = 9.6, 4.1
# erfc(x) · exp(x²) on 1 <= x <= 6 as a polynomial in (x - 2) / (x + 2), after Shepherd and Laframboise (1981): a fit to
# the function's continued fraction that keeps erf within 3.4e-16.
_ERF_TAIL = (
    1.4836166132805361e-06, -1.170910780009963e-05, -2.7054604952505366e-05, 2.7146683181721536e-05,
    0.00017420803050794212, 4.35642570814197e-05, -0.0009819659876671787, -0.0008471421959240767, 0.0069974615506732,
    0.0037328923713310764, -0.07897858101572729, 0.24165819424267343, -0.4271858474139479, 0.25539567631050597,
)  # fmt: skip
# e**r on |r| <= 0.347, a fit of least largest relative error of 1.9e-9.
_EXP = (
    0.0013836717698723078, 0.008374917320907116, 0.041668232530355453, 0.16666418313980103, 0.49999991059303284, 1.0,
    1.0,
)  # fmt: skip
# 2**r on |r| <= 1/2, as exact.
_EXP2 = (
    0.0001534581242594868, 0.0013399930903688073, 0.009618489071726799, 0.05550328642129898, 0.24022646248340607,
    0.6931471824645996, 1.0,
)  # fmt: skip


def exp(f: Function, x: Expr) -> Expr:
    """``e**x`` within 1 ulp; 0 below -104, infinity above 88.73."""
    power, r, tail = _reduced(f, x)
    half = f.let(power >> 1)
    return (r + tail + 1.0) * _power_of_two(half, x.dtype) * _power_of_two(power - half, x.dtype)


def brief_exp(f: Function, x: Expr) -> Expr:
    """As `exp`, but 0 below -87.7, where the true value is next to no normal number, and infinity above 88.3.

    For sums and quotients in which such values count for nothing.
    """
    if x.dtype != "float32":
        return exp(f, x)
    form = _FORMATS["float32"]
    x = f.let(x)
    low = f.let(select(x < -88.0, -88.0, x))
    bounded = f.let(select(low > 89.0, 89.0, low))
    shifted = f.let(bounded * math.log2(math.e) + form.rounding)
    n = f.let(shifted - form.rounding)
    r = f.let(bounded - n * form.ln2_high - n * form.ln2_low)
    # The exponents -127 and 128, which the bounds lead to, are those of 0 and of infinity.
    return polynomial(f, r, _EXP) * ((shifted.bits("int32") << 23) + 0x3F800000).bits("float32")


def brief_exp2(f: Function, x: Expr) -> Expr:
    """``2**x`` of float32 within 2 ulp for x <= 0; 0 below -126.5."""
    rounding = _FORMATS["float32"].rounding
    bounded = f.let(select(x < -127.0, -127.0, x))
    shifted = f.let(bounded + rounding)
    r = f.let(bounded - f.let(shifted - rounding))
    return polynomial(f, r, _EXP2) * ((shifted.bits("int32") << 23) + 0x3F800000).bits("float32")


def expm1(f: Function, x: Expr) -> Expr:
    """``e**x - 1`` within 2 ulp, also near 0."""
    x = f.let(x)
    power, r, tail = _reduced(f, x)
    half = f.let(power >> 1)
    low, high = f.let(_power_of_two(half, x.dtype)), f.let(_power_of_two(power - half, x.dtype))
    whole = f.let((r + tail) * low * high + (low * high - 1.0))
    # At the top of the range 2**power alone overflows, while e**x need not.
    return select(x > _FORMATS[x.dtype].high - 1.0, (r + tail + 1.0) * low * high, whole)


def sigmoid(f: Function, x: Expr) -> Expr:
    """``1 / (1 + e**-x)`` within 3 ulp; 0 below -87.25 (float64: where ``e**-x`` is infinite)."""
    if x.dtype != "float32":
        return 1.0 / (exp(f, -x) + 1.0)
    x = f.let(x)
    # Within these bounds both e**-x and its reciprocal are normal numbers; a comparison is false at NaN, which stays.
    bounded = f.let(select(x < -_LOGISTIC_END, -_LOGISTIC_END, x))
    bounded = f.let(select(bounded > _LOGISTIC_END, _LOGISTIC_END, bounded))
    form = _FORMATS[x.dtype]
    shifted = f.let(bounded * -math.log2(math.e) + form.rounding)
    n = f.let(shifted - form.rounding)
    r = f.let(bounded + n * form.ln2_high + n * form.ln2_low)
    # Estrin's scheme: what waits for r is shorter than in Horner's.
    square = f.let(r * r)
    fourth, third, second, first, zeroth = _NEGATED_EXP
    high = f.let(square * fourth + f.let(r * third + second))
    tail = f.let(square * f.let(square * high + f.let(r * first + zeroth)))
    # The low bits of `shifted` are n; moved to the exponent, they multiply by 2**n.
    power = (f.let(1.0 - r + tail).bits("int32") + (shifted.bits("int32") << form.mantissa)).bits(x.dtype)
    # A sum of bits may turn NaN into a number, but r, which is NaN then, stays one.
    return select(x < -_LOGISTIC_END, 0.0, reciprocal(f, power + f.let(r * 0.0 + 1.0)))


def reciprocal(f: Function, x: Expr) -> Expr:
    """``1 / x`` within 1 ulp for 1 <= x <= 2**126; NaN at NaN.

    AVX-512's estimate has 14 bits, and one step of Newton's method doubles them in less time than a division takes.
    """
    if f.machine.lanes < 16 or x.lanes * 32 not in (128, 256, 512):
        return 1.0 / x
    x = f.let(x)
    y = f.let(masked_intrinsic(f"llvm.x86.avx512.rcp14.ps.{32 * x.lanes}", x))
    return y + y * (1.0 - x * y)


def sigmoid_excess(f: Function, x: Expr) -> Expr:
    """``e > 0`` with ``sigmoid(x) = 1 / (1 + e)`` within 2.5e-8, for float32; infinity below -88.4.

    It is for gates, which a product with other values follows: it saves what it takes to be exact where the sigmoid is
    small, and lets several quotients share a division.
    """
    # The bounds lead to the exponents 128, which is that of infinity, and -126, the smallest of a normal number.
    bounded = f.let(minimum(f.let(maximum(x, -89.0)), 87.0))
    shifted = f.let(bounded * -math.log2(math.e) + _FORMATS["float32"].rounding)
    r = f.let(bounded * -math.log2(math.e) - f.let(shifted - _FORMATS["float32"].rounding))
    # Multiplied, and not added to the exponent, so that NaN stays.
    scale = f.let(((shifted.bits("int32") << 23) + 0x3F800000).bits("float32"))
    return f.let(polynomial(f, r, _EXP2) * scale)


def tanh_quotient(f: Function, x: Expr) -> tuple[Expr, Expr]:
    """``n, d`` with ``tanh(x) = n / d`` within 4 ulp, for float32, where -d <= n <= d; both are NaN where x is."""
    bounded = f.let(clamped(f, f.let(x), _TANH_END))
    square = f.let(bounded * bounded)
    *above, one = _TANH[0]
    assert one == 1.0
    # x + x³ · P(x²) is rounded once where it matters, x · (1 + x² · P(x²)) twice.
    value = f.let(f.let(bounded * square) * polynomial(f, square, above) + bounded)
    divisor = f.let(polynomial(f, square, _TANH[1]))
    return f.let(clamped(f, value, divisor)), divisor


def tanh(f: Function, x: Expr) -> Expr:
    """Hyperbolic tangent within 6 ulp; of float64, ``m / (m + 2)`` of ``m = expm1(2|x|)``."""
    x = f.let(x)
    magnitude = f.let(unary("abs", x))
    if x.dtype == "float64":
        m = f.let(expm1(f, minimum(magnitude, 20.0) * 2.0))
        return copysign(m / (m + 2.0), x)
    value, divisor = _odd_quotient(f, x, _TANH, _TANH_END)
    return clamped(f, f.let(value / divisor), 1.0)


def erf(f: Function, x: Expr) -> Expr:
    """The error function within 6 ulp; of float64, its Taylor series up to 1, and from there ``1 - e**-x² · p``."""
    x = f.let(x)
    if x.dtype == "float64":
        return _wide_erf(f, x)
    value, divisor = _odd_quotient(f, x, _ERF, _ERF_END)
    return clamped(f, f.let(value / divisor), 1.0)


def half_normal(f: Function, x: Expr) -> Expr:
    """``erf(x / sqrt(2)) / 2``, by which the normal distribution differs from 1/2; as exact as `erf`."""
    x = f.let(x)
    if x.dtype == "float64":
        return erf(f, x * math.sqrt(0.5)) * 0.5
    scale = [0.5**k for k in range(len(_ERF[0]) - 1, -1, -1)]
    above = [c * p * 0.5 * math.sqrt(0.5) for c, p in zip(_ERF[0], scale, strict=True)]
    below = [c * p for c, p in zip(_ERF[1], scale, strict=True)]
    value, divisor = _odd_quotient(f, x, (above, below), _ERF_END * math.sqrt(2.0))
    return clamped(f, f.let(value / divisor), 0.5)


def log(f: Function, x: Expr) -> Expr:
    """Natural logarithm within 1 ulp; -infinity at 0, NaN below."""
    form = _FORMATS[x.dtype]
    x = f.let(x)
    tiny = x < form.smallest
    scaled = f.let(select(tiny, x * 2.0**form.mantissa, x))
    bits = f.let(scaled.bits(form.integer))
    # The mantissa as a number in [sqrt(1/2), sqrt(2)) and the exponent that goes with it.
    exponent = f.let((bits - form.root_half) >> form.mantissa)
    t = f.let((bits - (exponent << form.mantissa)).bits(x.dtype) - 1.0)
    power = f.let(exponent.cast(x.dtype) - select(tiny, constant(form.mantissa, x.dtype), 0.0))
    tail = f.let(_log_tail(f, t) + power * form.ln2_low)
    value = f.let(t + tail + power * form.ln2_high)
    value = f.let(select(x.equals(0.0), -_INFINITY, value))
    value = f.let(select(x.equals(_INFINITY), x, value))
    return select((x < 0.0) | is_nan(x), math.nan, value)


def log1p(f: Function, x: Expr) -> Expr:
    """``log(1 + x)`` within 3 ulp: log(u)·x / (u - 1) of u = 1 + x undoes the sum's rounding (Kahan; HP-15C manual)."""
    x = f.let(x)
    u = f.let(x + 1.0)
    plain = f.let(log(f, u))
    corrected = f.let(plain * (x / (u - 1.0)))
    return select(u.equals(1.0), x, select(u.equals(_INFINITY) | u.equals(0.0), plain, corrected))


def softplus(f: Function, x: Expr) -> Expr:
    """``log(1 + e**x)`` within 3 ulp, as ``max(x, 0) + log1p(e**-|x|)``."""
    x = f.let(x)
    return maximum(x, 0.0) + log1p(f, exp(f, -unary("abs", x)))


def power(f: Function, x: Expr, y: Expr) -> Expr:
    """``x**y`` within 1 ulp, by way of float64; NaN for a negative x and a fraction y, as in C."""
    if not x.is_float:
        return unary("nearbyint", power(f, x.cast("float64"), y.cast("float64"))).cast(x.dtype)
    base, exponent = f.let(x.cast("float64")), f.let(y.cast("float64"))
    magnitude = f.let(unary("abs", base))
    value = f.let(exp(f, exponent * log(f, magnitude)))
    value = f.let(select(magnitude.equals(1.0) | exponent.equals(0.0), 1.0, value))
    whole = f.let(unary("floor", exponent))
    odd = (unary("floor", exponent * 0.5) * 2.0).differs(whole) & whole.equals(exponent)
    value = f.let(select((base.bits("int64") < 0) & odd, -value, value))
    fraction = (base < 0.0) & whole.differs(exponent) & magnitude.differs(_INFINITY)
    value = f.let(select(fraction & ~is_nan(exponent), math.nan, value))
    known = base.equals(1.0) | exponent.equals(0.0)
    return select((is_nan(base) | is_nan(exponent)) & ~known, math.nan, value).cast(x.dtype)


def sin(f: Function, x: Expr) -> Expr:
    """Sine, absolutely within 1.2e-7 up to |x| = 1e9, of float64 within 1e-15 up to 1e6; NaN at infinity.

    Beyond, where neighbouring float32 angles are many turns apart, it is that of an angle near 0.
    """
    return _circular(f, x, 0)


def cos(f: Function, x: Expr) -> Expr:
    """Cosine, as exact as `sin`."""
    return _circular(f, x, 1)


def copysign(magnitude: Expr, sign: Expr) -> Expr:
    """`magnitude`, which is not negative, with the sign of `sign`."""
    integer = _FORMATS[sign.dtype].integer
    negative = -(2**31) if integer == "int32" else -(2**63)
    return (magnitude.bits(integer) | (sign.bits(integer) & negative)).bits(sign.dtype)


def clamped(f: Function, x: Expr, bound: Expr | float) -> Expr:
    """`x`, at most `bound`, which is not negative, away from 0; NaN stays."""
    above = f.let(select(x < -bound, -bound, x))
    return select(above > bound, bound, above)


def polynomial(f: Function, x: Expr, coefficients: Sequence[float]) -> Expr:
    """The polynomial in Horner's form, highest coefficient first."""
    value = constant(coefficients[0], x.dtype, x.lanes)
    for coefficient in coefficients[1:]:
        value = f.let(value * x + coefficient)
    return value


def _reduced(f: Function, x: Expr) -> tuple[Expr, Expr, Expr]:
    """``(n, r, t)`` with ``e**x = 2**n · (1 + r + t)``, n an integer and |r| <= ln(2)/2."""
    form = _FORMATS[x.dtype]
    x = f.let(x)
    # Beyond these bounds the result is 0 or infinity; a comparison is false at NaN, which therefore stays.
    bounded = f.let(select(x < form.low, form.low, x))
    bounded = f.let(select(bounded > form.high, form.high, bounded))
    shifted = f.let(bounded * math.log2(math.e) + form.rounding)
    n = f.let(shifted - form.rounding)
    r = f.let(bounded - n * form.ln2_high - n * form.ln2_low)
    zero = (form.bias + form.mantissa << form.mantissa) + (1 << form.mantissa - 1)
    return f.let(shifted.bits(form.integer) - zero), r, f.let(polynomial(f, r, form.exp) * (r * r))


def _power_of_two(power: Expr, dtype: str) -> Expr:
    """``2**power`` for exponents of normal numbers, by writing the exponent's bits."""
    form = _FORMATS[dtype]
    return ((power + form.bias) << form.mantissa).bits(dtype)


def _log_tail(f: Function, t: Expr) -> Expr:
    """``log(1+t) - t`` for sqrt(1/2) <= 1+t < sqrt(2)."""
    if t.dtype == "float32":
        square = f.let(t * t)
        return t * square * polynomial(f, t, _LOG) - square * 0.5
    # log(1+t) = 2 artanh(s) of s = t / (2+t); 2s - t = -st.
    s = f.let(t / (t + 2.0))
    square = f.let(s * s)
    series = polynomial(f, square, [2.0 / (2 * k + 1) for k in range(12, 0, -1)])
    return s * square * series - s * t


def _odd_quotient(f: Function, x: Expr, fit: tuple[Sequence[float], Sequence[float]], end: float) -> tuple[Expr, Expr]:
    """``x · P(x²)`` and ``Q(x²)``; x beyond ±end counts as that."""
    bounded = f.let(clamped(f, x, end))
    square = f.let(bounded * bounded)
    return f.let(bounded * polynomial(f, square, fit[0])), f.let(polynomial(f, square, fit[1]))


def _wide_erf(f: Function, x: Expr) -> Expr:
    magnitude = f.let(minimum(unary("abs", x), 6.0))
    taylor = [2.0 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(19, -1, -1)]
    near = f.let(magnitude * polynomial(f, f.let(minimum(magnitude * magnitude, 1.0)), taylor))
    place = f.let((magnitude - 2.0) / (magnitude + 2.0))
    far = f.let(1.0 - exp(f, -(magnitude * magnitude)) * polynomial(f, place, _ERF_TAIL))
    value = f.let(select(magnitude < 1.0, near, far))
    return select(is_nan(x), x, copysign(value, x))


def _circular(f: Function, x: Expr, quarter: int) -> Expr:
    """``sin(x + quarter · pi/2)``; the angle is reduced in float64."""
    wide = f.let(x.cast("float64"))
    form = _FORMATS["float64"]
    shifted = f.let(wide * (2.0 / math.pi) + form.rounding)
    n = f.let(shifted - form.rounding)
    # pi/2 in two parts, the first with 33 bits, so that its product with n is exact.
    r = f.let((wide - n * 1.57079632673412561417 - n * 6.07710050650619224932e-11).cast(x.dtype))
    r = f.let(select(unary("abs", r) > 1.0, r - r, r))
    # NaN and infinity make r NaN, whatever the quadrant.
    quadrant = f.let(shifted.bits("int64").cast("int32") + quarter)
    square = f.let(r * r)
    sine = f.let(polynomial(f, square, _SIN[x.dtype]) * square * r + r)
    cosine = f.let(polynomial(f, square, _COS[x.dtype]) * (square * square) - square * 0.5 + 1.0)
    value = f.let(select((quadrant & 1).equals(0), sine, cosine))
    return select((quadrant & 2).equals(0), value, -value).cast(x.dtype)
