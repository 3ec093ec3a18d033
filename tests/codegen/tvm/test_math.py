"""The vector polynomials against NumPy in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from math import erf as scalar_erf
from math import sqrt
from typing import Any

import numpy as np
import pytest

from kcompile.codegen.tvm import math as polynomials
from kcompile.codegen.tvm.tir import Function, Kernel
from tests.codegen.tvm.harness import Array, Compiled

LANES = 16


@dataclass(frozen=True)
class Map(Kernel, family="map"):
    """``y = function(x)``; x, y: T[N], N a multiple of 16."""

    function: str
    dtype: str = "float32"

    def build(self, f: Function) -> None:
        x, y = f.pointer("x", self.dtype), f.pointer("y", self.dtype)
        with f.parallel(f.extent("N//16")) as i:
            y.store(i * LANES, getattr(polynomials, self.function)(f, x.load(i * LANES, LANES)))


@dataclass(frozen=True)
class Power(Kernel, family="power"):
    """``z = x ** y``."""

    def build(self, f: Function) -> None:
        x, y, z = f.pointer("x"), f.pointer("y"), f.pointer("z")
        with f.parallel(f.extent("N//16")) as i:
            z.store(i * LANES, polynomials.power(f, x.load(i * LANES, LANES), y.load(i * LANES, LANES)))


@dataclass(frozen=True)
class Gates(Kernel, family="gates"):
    """``d = sigmoid_excess(x)``, ``n, e = tanh_quotient(x)``."""

    def build(self, f: Function) -> None:
        x, *results = (f.pointer(name) for name in ("x", "d", "n", "e"))
        with f.parallel(f.extent("N//16")) as i:
            value = x.load(i * LANES, LANES)
            for y, result in zip(
                results, (polynomials.sigmoid_excess(f, value), *polynomials.tanh_quotient(f, value)), strict=True
            ):
                y.store(i * LANES, result)


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "exp": (np.exp, 1),
    "expm1": (np.expm1, 2),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 3),
    "tanh": (np.tanh, 6),
    "erf": (np.vectorize(scalar_erf), 6),
    "half_normal": (np.vectorize(lambda x: scalar_erf(x / sqrt(2)) / 2), 6),
    "log": (np.log, 1),
    "log1p": (np.log1p, 3),
    "softplus": (lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), 3),
}
WIDE = ("exp", "expm1", "sigmoid", "tanh", "erf", "half_normal", "log", "log1p", "softplus")


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    kernels = [Map(name) for name in (*FUNCTIONS, "sin", "cos", "brief_exp", "brief_exp2")]
    kernels += [Map(name, "float64") for name in (*WIDE, "sin", "cos")]
    return Compiled([*kernels, Power(), Gates()])


def grid() -> Array:
    """All exponents and signs, the middle of the range, and the edges."""
    patterns = np.linspace(0, 2**32 - 1, 1 << 17).astype(np.uint32).view(np.float32)
    edges = [0.0, -0.0, np.nan, np.inf, -np.inf, 88.7, 88.72, 88.73, 89.1, -87.4, -103.9, -104, 1e-45, -1e-45, 1, -1]
    middle = [np.linspace(-110, 110, 1 << 15), np.linspace(-2, 2, 1 << 15), edges]
    return np.concatenate([patterns, np.concatenate(middle).astype(np.float32)])


def run(compiled: Compiled, kernel: Kernel, *inputs: Array) -> Array:
    (y,) = compiled(kernel, inputs, [np.zeros_like(inputs[0])], {"N": inputs[0].size})
    return y


def units_off(y: Array, expected: Array) -> Array:
    """The error of finite results in units of the last place of a normal number."""
    with np.errstate(over="ignore"):
        rounded = expected.astype(y.dtype)
    finite = np.isfinite(rounded) & np.isfinite(y)
    unit = np.spacing(np.maximum(np.abs(rounded[finite]), np.finfo(y.dtype).tiny))
    return np.abs(y[finite] - expected[finite]) / unit


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_stays_within_its_bound_on_all_exponents(compiled: Compiled, name: str):
    reference, bound = FUNCTIONS[name]
    x = grid()
    y = run(compiled, Map(name), x)
    with np.errstate(all="ignore"):
        expected = reference(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
    infinite = np.isinf(rounded) | np.isinf(y)
    np.testing.assert_array_equal(y[infinite], rounded[infinite])
    if name == "sigmoid":  # 0 where the true value is denormal, or next to it
        y, expected = y[x >= -87.25], expected[x >= -87.25]
    assert units_off(y, expected).max() <= bound


def test_brief_exponentials_are_exact_but_at_the_ends_of_the_range(compiled: Compiled):
    x = grid()
    y = run(compiled, Map("brief_exp"), x)
    usual = (x > -87.3) & (x < 88.3)
    assert units_off(y[usual], np.exp(x[usual].astype(np.float64))).max() <= 1.5
    assert (y[x < -87.7] == 0).all()
    assert (y[x > 88.4] == np.inf).all()
    assert np.isnan(y[np.isnan(x)]).all()
    x = x[x <= 0][: x[x <= 0].size // 16 * 16]
    y = run(compiled, Map("brief_exp2"), x)
    usual = x > -126
    assert units_off(y[usual], np.exp2(x[usual].astype(np.float64))).max() <= 2
    assert (y[x < -126.6] == 0).all()


def test_gates_are_exact_beside_1_and_keep_nan_whatever_its_bits(compiled: Compiled):
    nans = np.resize(np.array([0x7FC00001, 0x7FC00000, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32), 16)
    x = np.concatenate([grid(), nans])
    d, n, e = compiled(Gates(), [x], [np.zeros_like(x) for _ in range(3)], {"N": x.size})
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        sigmoid, tanh = 1 / (1 + np.exp(-wide)), np.tanh(wide)
        gate = 1 / (1 + d.astype(np.float64))
    seen = ~np.isnan(x)
    assert (np.isnan(gate) == ~seen).all()
    assert (np.isnan(n / e) == ~seen).all()
    assert np.abs(gate - sigmoid)[seen].max() < 2.5e-8
    assert (gate[x < -88.4] == 0).all()
    assert (d[seen] >= np.finfo(np.float32).tiny).all()
    assert (d[x > 87] < 2e-38).all()
    assert (np.abs(n) <= e)[seen].all()
    assert units_off((n / e)[seen], tanh[seen]).max() <= 4


@pytest.mark.parametrize("name", ["tanh", "erf", "log1p"])
def test_odd_functions_keep_the_sign_of_zero(compiled: Compiled, name: str):
    x = np.resize(np.array([0.0, -0.0], np.float32), 16)
    np.testing.assert_array_equal(np.signbit(run(compiled, Map(name), x)), np.signbit(x))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_circular_functions_stay_exact_for_large_angles(compiled: Compiled, name: str):
    x = np.concatenate([np.linspace(-20, 20, 1 << 14), np.linspace(-1e6, 1e6, 1 << 14)]).astype(np.float32)
    y = run(compiled, Map(name), x)
    expected = getattr(np, name)(x.astype(np.float64))
    assert np.abs(y - expected).max() < 1.2e-7
    special = np.resize(np.array([np.nan, np.inf, -np.inf], np.float32), 16)
    assert np.isnan(run(compiled, Map(name), special)).all()


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_circular_functions_of_float64_keep_double_precision(compiled: Compiled, name: str):
    x = np.concatenate(
        [np.linspace(-20, 20, 1 << 13), np.linspace(-1e6, 1e6, 1 << 13), np.pi / 2 * np.arange(-512, 512)]
    )
    y = run(compiled, Map(name, "float64"), x)
    assert np.abs(y - getattr(np, name)(x.astype(np.longdouble))).max() < 1e-15
    special = np.resize(np.array([np.nan, np.inf, -np.inf]), 16)
    assert np.isnan(run(compiled, Map(name, "float64"), special)).all()


@pytest.mark.parametrize("name", WIDE)
def test_float64_functions_keep_double_precision(compiled: Compiled, name: str):
    x = np.concatenate(
        [np.linspace(-740, 740, 1 << 13), np.linspace(-3, 3, 1 << 13), np.geomspace(1e-300, 1e300, 1 << 10)]
    )
    y = run(compiled, Map(name, "float64"), x)
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[name][0](x.astype(np.longdouble))
        usual = np.isfinite(expected) & (np.abs(expected) > 1e-300) & (np.abs(expected) < 1e300)
        assert np.max(np.abs(y - expected)[usual] / np.abs(expected)[usual]) < 1e-14
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))


def test_power_matches_numpy_on_ordinary_and_special_operands(compiled: Compiled):
    values = [0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, 2.5, 10, 1e10, 1e-10, np.inf, -np.inf, np.nan, -7.3, 1e38, 63]
    x, y = (part.ravel().astype(np.float32) for part in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_max_ulp(run(compiled, Power(), x, y), expected, 1)
