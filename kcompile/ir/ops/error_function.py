"""The error function on arrays, which numpy lacks.

Rational approximations of W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of
Computation 23 (1969), pages 631-637, with the coefficients of the tables there for 16 digits.
"""

import math

import numpy as np

from kcompile.ir.types import Array

# erf(x) = x * P(x^2) / Q(x^2) for |x| <= 0.46875; highest power first.
_SMALL = 0.46875
_P_SMALL = (
    1.85777706184603153e-1,
    3.16112374387056560e00,
    1.13864154151050156e02,
    3.77485237685302021e02,
    3.20937758913846947e03,
)
_Q_SMALL = (
    1.0,
    2.36012909523441209e01,
    2.44024637934444173e02,
    1.28261652607737228e03,
    2.84423683343917062e03,
)

# 1 - erf(x) = exp(-x^2) * P(x) / Q(x) for 0.46875 <= x <= 4.
_LARGE = 4.0
_P_MIDDLE = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e00,
    6.61191906371416295e01,
    2.98635138197400131e02,
    8.81952221241769090e02,
    1.71204761263407058e03,
    2.05107837782607147e03,
    1.23033935479799725e03,
)
_Q_MIDDLE = (
    1.0,
    1.57449261107098347e01,
    1.17693950891312499e02,
    5.37181101862009858e02,
    1.62138957456669019e03,
    3.29079923573345963e03,
    4.36261909014324716e03,
    3.43936767414372164e03,
    1.23033935480374942e03,
)

# 1 - erf(x) = exp(-x^2) / x * (1 / sqrt(pi) - P(1 / x^2) / (x^2 * Q(1 / x^2))) for x >= 4.
_P_LARGE = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
_Q_LARGE = (
    1.0,
    2.56852019228982242e00,
    1.87295284992346725e00,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)


def erf(x: Array) -> Array:
    """``2 / sqrt(pi) * integral of exp(-t^2) from 0 to x``, elementwise, in the dtype of `x`."""
    wide = np.asarray(x, np.float64).reshape(-1)
    size = np.abs(wide)
    y = np.sign(wide) * np.ones_like(wide)
    small, middle = size <= _SMALL, (size > _SMALL) & (size <= _LARGE)
    y[small] = _near_zero(wide[small])
    y[middle] *= 1.0 - _middle(size[middle])
    # From 6 on the difference to 1 is less than half a unit in the last place.
    large = (size > _LARGE) & (size < 6.0)
    y[large] *= 1.0 - _far(size[large])
    y[np.isnan(wide)] = np.nan
    return y.astype(x.dtype).reshape(np.shape(x))


def _near_zero(x: Array) -> Array:
    square = x * x
    return x * np.polyval(_P_SMALL, square) / np.polyval(_Q_SMALL, square)


def _middle(x: Array) -> Array:
    return np.exp(-x * x) * np.polyval(_P_MIDDLE, x) / np.polyval(_Q_MIDDLE, x)


def _far(x: Array) -> Array:
    inverse = 1.0 / (x * x)
    correction = inverse * np.polyval(_P_LARGE, inverse) / np.polyval(_Q_LARGE, inverse)
    return np.exp(-x * x) / x * (1.0 / math.sqrt(math.pi) - correction)
