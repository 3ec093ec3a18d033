"""Pooling kernels against loops over windows."""

from itertools import product

import numpy as np
import pytest

from kcompile.codegen.tvm.kernels.pooling import Kind, Pool
from kcompile.codegen.tvm.vector import Chain
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir import ops
from kcompile.ir.types import TensorType
from tests.codegen.tvm.harness import Array, Compiled

# spatial, channels, window, strides, padding
CASES = [
    ((7, 9), 3, (2, 2), (2, 2), "valid"),
    ((7, 9), 19, (3, 3), (2, 2), "same"),
    ((5, 4), 67, (3, 2), (1, 1), ((1, 0), (1, 1))),
    ((4,), 1, (4,), (4,), "valid"),
    ((11,), 16, (2,), (5,), "same"),
    ((3, 4, 5), 33, (2, 2, 3), (1, 2, 2), "same"),
    ((1, 1), 8, (1, 1), (1, 1), "valid"),
]


def pool_kernel(kind: Kind, case: tuple, dtype: str = "float32", open_axis: bool = False) -> Pool:
    spatial, channels, window, strides, padding = case
    shape = ("T", *spatial[1:]) if open_axis else spatial
    x = TensorType(dtype, ("N", *shape, channels))
    op = (ops.MaxPool if kind == "max" else ops.AvgPool)(window, strides, padding)
    (y,) = op.infer((x,))
    relu = ((ops.Relu(), (0,)), (ops.Add(), (1, 1)))
    chain = Chain((y,), y, relu if dtype == "float32" else ())
    return Pool(kind, dtype, Windows.of(x, y, window, strides, (1,) * len(window), padding), chain)


def loops(kind: str, x: Array, case: tuple) -> Array:
    """One window at a time, over the elements inside the input."""
    spatial, channels, window, strides, padding = case
    if padding == "same":
        total = [max((-(-d // s) - 1) * s + w - d, 0) for d, w, s in zip(spatial, window, strides, strict=True)]
        padding = tuple((t // 2, t - t // 2) for t in total)
    elif padding == "valid":
        padding = ((0, 0),) * len(window)
    out = [(d + sum(p) - w) // s + 1 for d, p, w, s in zip(spatial, padding, window, strides, strict=True)]
    y = np.zeros((len(x), *out, channels), x.dtype)
    for position in product(*map(range, out)):
        start = [o * s - p[0] for o, s, p in zip(position, strides, padding, strict=True)]
        part = tuple(slice(max(b, 0), max(b + w, 0)) for b, w in zip(start, window, strict=True))
        patch = x[(slice(None), *part)]
        window_axes = tuple(range(1, patch.ndim - 1))
        y[(slice(None), *position)] = patch.max(window_axes) if kind == "max" else patch.mean(window_axes)
    return y


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    kernels = [
        pool_kernel(kind, case, open_axis=o) for kind in ("max", "mean") for case in CASES for o in (False, True)
    ]
    return Compiled([*kernels, pool_kernel("max", CASES[1], "int32")])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("open_axis", [False, True])
def test_pooling_matches_loops_over_windows(compiled: Compiled, case: tuple, kind: Kind, batch: int, open_axis: bool):
    x = np.random.default_rng(0).normal(size=(batch, *case[0], case[1])).astype(np.float32)
    expected = 2 * np.maximum(loops(kind, x, case), 0)
    symbols = {"N": batch, "T": case[0][0]}
    kernel = pool_kernel(kind, case, open_axis=open_axis)
    (y,) = compiled(kernel, [x], [np.zeros_like(expected)], symbols, threads=2)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_maximum_pooling_of_integers(compiled: Compiled):
    case = CASES[1]
    x = np.random.default_rng(0).integers(-99, 99, (2, *case[0], case[1])).astype(np.int32)
    expected = loops("max", x, case)
    (y,) = compiled(pool_kernel("max", case, "int32"), [x], [np.zeros_like(expected)], {"N": 2})
    np.testing.assert_array_equal(y, expected)


def test_maximum_pooling_keeps_not_a_number(compiled: Compiled):
    case = CASES[0]
    x = np.zeros((1, *case[0], case[1]), np.float32)
    x[0, 1, 1, 2] = np.nan
    (y,) = compiled(pool_kernel("max", case), [x], [np.zeros((1, 3, 4, 3), np.float32)], {"N": 1})
    assert np.isnan(y[0, 0, 0, 2])
    assert np.isnan(y).sum() == 1
