"""What is left to BLAS."""

from typing import Any

import numpy as np
import pytest

from kcompile.ir import blas

DTYPES = ["float32", "float64", "float16"]


@pytest.fixture(params=[True, False], ids=["BLAS", "NumPy alone"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(blas, "_axpby", lambda kind: None)


def test_the_library_that_numpy_multiplies_with_has_the_function() -> None:
    assert blas._axpby("f") is not None
    assert blas._axpby("d") is not None
    assert blas._axpby("e") is None


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", ["x", "y", "elsewhere"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (0,), (1,)])
def test_a_scaled_sum_may_lie_in_an_operand(dtype: str, where: str, shape: tuple[int, ...]) -> None:
    x, y = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
    a, b = np.asarray([0.25, -3], dtype)
    expected = 0.25 * x.astype(float) - 3 * y.astype(float)
    out = {"x": x, "y": y}.get(where, np.full(shape, np.nan, dtype))
    blas.scaled_sum(x, a, y, b, out)
    np.testing.assert_allclose(out, expected, rtol=3e-3 if dtype == "float16" else 1e-6, atol=1e-3)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("layout", ["reversed", "every second", "transposed", "read-only"])
def test_operands_may_lie_in_any_order(layout: str) -> None:
    def laid(array: Any) -> Any:
        match layout:
            case "reversed":
                return array[::-1].copy()[::-1]
            case "every second":
                return np.repeat(array, 2, axis=1)[:, ::2]
            case "transposed":
                return array.T.copy().T
            case _:
                array.flags.writeable = False
                return array

    x, y = np.random.default_rng(1).standard_normal((2, 4, 6)).astype(np.float32)
    expected, out = 2 * x + 5 * y, y.copy()
    blas.scaled_sum(laid(x.copy()), np.float32(2), out, np.float32(5), out)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 0), (0, 0)])
def test_zero_times_infinity_is_no_number(a: float, b: float) -> None:
    x, y = np.array([[np.inf, 1, np.nan], [2, np.inf, 3]], np.float32)
    out = y.copy()
    with np.errstate(invalid="ignore"):
        expected = np.float32(a) * x + np.float32(b) * y
        blas.scaled_sum(x, np.float32(a), out, np.float32(b), out)
    np.testing.assert_array_equal(out, expected)
