"""Products of computed matrices against float64."""

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Builder
from kcompile.ir.types import TensorType
from tests.codegen.tvm.model import Model

# shapes of x and y; symbols are open
CASES = [
    (("N", "T", 8), ("N", 8, "T")),
    (("N", 4, 33, 5), ("N", 4, 5, 37)),
    (("N", "T", "T"), ("N", "T", 19)),
    ((3, 1), (1, 70)),
    (("N", 2, 3, 6), (6, 40)),
    ((7, 5), ("N", 5, 1)),
]


@pytest.fixture(scope="module")
def model() -> Model:
    b = Builder()
    outputs = {}
    for i, shapes in enumerate(CASES):
        x, y = (b.input(f"{name}{i}", TensorType("float32", s)) for name, s in zip("xy", shapes, strict=True))
        outputs[f"z{i}"] = b(ops.Relu(), b(ops.MatMul(), x, y))
    x, kernel, bias = (
        b.input(name, TensorType("float32", s)) for name, s in (("x", ("N", 6)), ("k", (6, 9)), ("bias", (9,)))
    )
    scaled = b(ops.Mul(), b(ops.Dense(), x, kernel, bias), bias)
    outputs["dense"] = b(ops.Sub(), scaled, b.constant(np.arange(9, dtype=np.float32)))
    return Model(b.build(outputs))


@pytest.mark.parametrize(("batch", "length", "threads"), [(0, 3, 1), (1, 1, 2), (2, 21, 3), (3, 0, 1)])
def test_matrix_products_match_float64(model: Model, batch: int, length: int, threads: int):
    rng = np.random.default_rng(batch)
    types = {name: t.bind({"N": batch, "T": length}) for name, t in model.graph.input_types.items()}
    inputs = {name: rng.normal(size=t.static_shape()).astype(np.float32) for name, t in types.items()}
    results = model.run(inputs, threads)
    wide = {name: x.astype(np.float64) for name, x in inputs.items()}
    for i in range(len(CASES)):
        expected = np.maximum(wide[f"x{i}"] @ wide[f"y{i}"], 0)
        np.testing.assert_allclose(results[f"z{i}"], expected, rtol=1e-5, atol=1e-5)
    expected = (wide["x"] @ wide["k"] + wide["bias"]) * wide["bias"] - np.arange(9)
    np.testing.assert_allclose(results["dense"], expected, rtol=1e-5, atol=1e-5)


def test_a_dense_layer_with_computed_weights_is_one_kernel_with_its_bias_and_tail(model: Model):
    assert len(model.compiled.calls) == len(CASES) + 1
