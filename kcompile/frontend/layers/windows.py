"""Window functions by the names of ``scipy.signal.get_window``, those without a parameter.

Formulas: Harris 1978, "On the use of windows for harmonic analysis with the discrete Fourier transform", and Nuttall
1981 for "nuttall" and "blackmanharris"; "flattop" has the coefficients of D'Antona and Ferrero 2006.
"""

from collections.abc import Callable

import numpy as np

from kcompile.ir.types import Array

# A window's values for positions from -1 to 1, and for its number of points.
_Formula = Callable[[Array, int], Array]


def _cosines(*coefficients: float) -> _Formula:
    """A sum of cosines of multiples of the angle from -pi to pi."""

    def window(u: Array, count: int) -> Array:
        return sum((a * np.cos(k * np.pi * u) for k, a in enumerate(coefficients)), np.zeros(count))

    return window


def _barthann(u: Array, count: int) -> Array:
    return 0.62 - 0.24 * np.abs(u) + 0.38 * np.cos(np.pi * u)


def _bohman(u: Array, count: int) -> Array:
    d = np.abs(u)
    inside = (1 - d) * np.cos(np.pi * d) + np.sin(np.pi * d) / np.pi
    return np.where(d >= 1, 0.0, inside)


def _cosine(u: Array, count: int) -> Array:
    return np.sin(np.pi / count * (np.arange(count) + 0.5))


def _exponential(u: Array, count: int) -> Array:
    return np.exp(-np.abs(u) * (count - 1) / 2)


def _parzen(u: Array, count: int) -> Array:
    d = np.abs(u) * (count - 1) / count
    return np.where(d <= 0.5, 1 - 6 * d**2 + 6 * d**3, 2 * (1 - d) ** 3)


def _triangle(u: Array, count: int) -> Array:
    return 1 - np.abs(u) * (count - 1) / (count + count % 2)


def _tukey(u: Array, count: int) -> Array:
    d = np.abs(u)
    return np.where(d <= 0.5, 1.0, 0.5 * (1 + np.cos(np.pi * (2 * d - 1))))


_FORMULAS: dict[str, _Formula] = {
    "barthann": _barthann,
    "bartlett": lambda u, count: 1 - np.abs(u),
    "blackman": _cosines(0.42, 0.50, 0.08),
    "blackmanharris": _cosines(0.35875, 0.48829, 0.14128, 0.01168),
    "bohman": _bohman,
    "boxcar": lambda u, count: np.ones(count),
    "cosine": _cosine,
    "exponential": _exponential,
    "flattop": _cosines(0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
    "hamming": _cosines(0.54, 0.46),
    "hann": _cosines(0.5, 0.5),
    "lanczos": lambda u, count: np.sinc(u),
    "nuttall": _cosines(0.3635819, 0.4891775, 0.1365995, 0.0106411),
    "parzen": _parzen,
    "triang": _triangle,
    "tukey": _tukey,
}
WINDOWS = tuple(_FORMULAS)


def window(name: str, length: int, periodic: bool) -> Array:
    """``f64[length]``; a periodic window is a symmetric one of one point more without its last."""
    if length == 1:
        return np.ones(1)
    count = length + periodic
    u = 2 * np.arange(count) / (count - 1) - 1
    return _FORMULAS[name](u, count)[:length]
