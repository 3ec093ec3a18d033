"""Dense layers and matrix products against float64."""

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Builder
from kcompile.ir.types import TensorType
from tests.codegen.tvm.model import Model

# leading extents (a symbol is open), inputs, units, bias, activation
CASES = [
    (("N",), 784, 64, True, ops.Relu()),
    (("N",), 7, 10, False, None),
    (("N",), 1, 1, True, ops.Sigmoid()),
    (("N", 5), 33, 71, True, ops.Gelu()),
    (("N", "T"), 16, 24, True, ops.Tanh()),
    ((29,), 20, 130, False, ops.LeakyRelu(0.1)),
    (("N",), 300, 201, True, ops.Relu()),  # large enough to be fetched ahead
    (("N", 19), 500, 49, True, None),  # rows that are tiled for themselves; a sum in two parts
]
SIZES = {"N": (0, 1, 2, 13, 31), "T": (1, 6)}


def dense_inputs(case: tuple) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    _, inputs, units, _, _ = case
    return rng.normal(size=(inputs, units)).astype(np.float32), rng.normal(size=units).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    """All cases in one library: each has an input ``x0``, ``x1``, … and symbols of its own."""
    b = Builder()
    outputs = {}
    for i, case in enumerate(CASES):
        lead, inputs, _, bias, activation = case
        shape = tuple(f"{d}{i}" if isinstance(d, str) else d for d in lead)
        x = b.input(f"x{i}", TensorType("float32", (*shape, inputs)))
        kernel, offset = dense_inputs(case)
        y = b(ops.Dense(), x, b.constant(kernel), *([b.constant(offset)] if bias else []))
        outputs[f"y{i}"] = b(activation, y) if activation else y
    return Model(b.build(outputs))


@pytest.mark.parametrize("size", range(5))
@pytest.mark.parametrize("threads", [1, 3])
def test_dense_layers_match_float64(model: Model, size: int, threads: int):
    rng = np.random.default_rng(size)
    inputs, expected = {}, {}
    for i, case in enumerate(CASES):
        lead, width, _, bias, activation = case
        extents = [SIZES[d][size % len(SIZES[d])] if isinstance(d, str) else d for d in lead]
        x = rng.normal(size=(*extents, width)).astype(np.float32)
        kernel, offset = dense_inputs(case)
        y = np.einsum("...k,km->...m", x.astype(np.float64), kernel) + (offset if bias else 0)
        inputs[f"x{i}"] = x
        expected[f"y{i}"] = activation.kernel((y,))[0] if activation else y
    for name, y in model.run(inputs, threads).items():
        np.testing.assert_allclose(y, expected[name], rtol=1e-5, atol=1e-4, err_msg=name)


def test_long_sums_of_many_rows_keep_their_digits():
    rng = np.random.default_rng(0)
    x, kernel = rng.random((16, 9000), np.float32), rng.random((9000, 16), np.float32)
    b = Builder()
    model = Model(b.build({"y": b(ops.Dense(), b.input("x", TensorType("float32", x.shape)), b.constant(kernel))}))
    expected = x.astype(np.float64) @ kernel.astype(np.float64)
    # One sum after another would be off by 3e-6.
    np.testing.assert_allclose(model.run({"x": x})["y"], expected, rtol=1.2e-6)
