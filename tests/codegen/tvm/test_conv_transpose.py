"""Transposed convolutions against the definition: every input element adds a scaled window to the result."""

from itertools import product

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Builder
from kcompile.ir.types import TensorType
from tests.codegen.tvm.harness import Array
from tests.codegen.tvm.model import Model

# spatial, channels, window, filters, strides, padding, output padding, dilation, groups
CASES = [
    ((5, 6), 3, (3, 3), 20, (2, 2), ((0, 1), (1, 0)), (0, 0), (1, 1), 1),
    ((4, 7), 5, (4, 2), 8, (2, 3), ((1, 1), (0, 0)), (0, 1), (1, 1), 1),
    ((9,), 4, (5,), 3, (1,), ((2, 2),), (0,), (1,), 1),
    ((6, 5), 4, (3, 2), 6, (1, 1), ((1, 2), (0, 1)), (0, 0), (2, 3), 2),
    ((3,), 2, (2,), 5, (4,), ((0, 0),), (2,), (1,), 1),
    ((2, 3, 2), 3, (2, 3, 2), 4, (2, 1, 2), ((0, 0), (1, 1), (0, 0)), (0, 0, 0), (1, 1, 1), 1),
    # Phases with fewer taps than strides or none, whose first results stand inside the input.
    ((1,), 1, (3,), 2, (3,), ((1, 1),), (0,), (1,), 1),
    ((7,), 2, (4,), 3, (3,), ((2, 2),), (0,), (1,), 1),
    ((5, 4), 2, (4, 1), 2, (3, 3), ((2, 2), (0, 0)), (0, 0), (1, 1), 1),
]


def parameters(i: int) -> tuple[Array, Array]:
    _, channels, window, filters, *_, groups = CASES[i]
    rng = np.random.default_rng(i)
    kernel = rng.normal(size=(*window, filters // groups, channels)).astype(np.float32)
    return kernel, rng.normal(size=filters).astype(np.float32)


def scattered(x: Array, i: int) -> Array:
    spatial, channels, window, filters, strides, padding, extra, dilation, groups = CASES[i]
    kernel, bias = parameters(i)
    full = [
        (e - 1) * s + (w - 1) * d + 1 + o
        for e, s, w, d, o in zip(spatial, strides, window, dilation, extra, strict=True)
    ]
    y = np.zeros((len(x), *full, filters))
    for at, tap in product(product(*map(range, spatial)), product(*map(range, window))):
        to = [a * s + t * d for a, s, t, d in zip(at, strides, tap, dilation, strict=True)]
        for group in range(groups):
            own = slice(group * channels // groups, (group + 1) * channels // groups)
            made = slice(group * filters // groups, (group + 1) * filters // groups)
            y[(slice(None), *to, made)] += x[(slice(None), *at, own)] @ kernel[tap][:, own].T.astype(np.float64)
    crop = tuple(slice(low, e - high) for e, (low, high) in zip(full, padding, strict=True))
    return y[(slice(None), *crop)] + bias


@pytest.fixture(scope="module", params=["known", "open", "all open"])
def model(request: pytest.FixtureRequest) -> Model:
    b = Builder()
    outputs = {}
    for i, (spatial, channels, _, _, strides, padding, extra, dilation, groups) in enumerate(CASES):
        symbols = tuple(f"T{i}_{axis}" for axis in range(len(spatial)))
        shape = {"known": spatial, "open": (symbols[0], *spatial[1:]), "all open": symbols}[request.param]
        x = b.input(f"x{i}", TensorType("float32", ("N", *shape, channels)))
        kernel, bias = (b.constant(array) for array in parameters(i))
        y = b(ops.ConvTranspose(strides, padding, extra, dilation, groups), x, kernel, bias)
        outputs[f"y{i}"] = b(ops.Add(), b(ops.Relu(), y), b.constant(np.arange(y.type.shape[-1], dtype=np.float32)))
    return Model(b.build(outputs))


@pytest.mark.parametrize(("batch", "threads"), [(0, 1), (2, 3)])
def test_transposed_convolutions_match_the_definition(model: Model, batch: int, threads: int):
    rng = np.random.default_rng(batch)
    inputs = {f"x{i}": rng.normal(size=(batch, *case[0], case[1])).astype(np.float32) for i, case in enumerate(CASES)}
    for name, y in model.run(inputs, threads).items():
        i = int(name[1:])
        expected = np.maximum(scattered(inputs[f"x{i}"], i), 0) + np.arange(y.shape[-1])
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5, err_msg=name)
