"""Dense layers and matrix products against float64."""

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Value
from kcompile.ir.op import Op
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


def test_rounding_errors_of_long_sums_are_those_of_short_ones():
    """Whatever the kernel: one row, many rows, windows, Winograd's products, matrices that the model computes."""
    rng = np.random.default_rng(0)
    b = Builder()
    graphs, terms = dict[str, Value](), dict[str, int]()

    def case(name: str, op: Op, shape: tuple[int, ...], kernel: tuple[int, ...], length: int) -> None:
        x = b.input(name, TensorType("float32", shape))
        y = rng.random(kernel, np.float32) - 0.3
        other = (
            b(ops.Neg(), b.input(f"{name}_y", TensorType("float32", kernel))) if op == ops.MatMul() else b.constant(y)
        )
        graphs[name], terms[name] = b(op, x, other), length

    case("row", ops.Dense(), (1, 4096), (4096, 72), 4096)
    case("rows", ops.Dense(), (29, 2100), (2100, 40), 2100)
    case("windows", ops.Conv((2, 2)), (1, 13, 13, 150), (3, 3, 150, 33), 1350)
    case("winograd", ops.Conv((1, 1)), (1, 14, 14, 300), (3, 3, 300, 32), 2700)
    case("matrices", ops.MatMul(), (2, 19, 1500), (2, 1500, 18), 1500)
    model = Model(b.build(graphs))
    inputs = {name: rng.random(t.static_shape(), np.float32) for name, t in model.graph.input_types.items()}
    expected = evaluate(model.graph, inputs, precision="float64")
    for name, y in model.run(inputs).items():
        products = rng.random((1000, terms[name]), np.float32) * (rng.random(terms[name], np.float32) - 0.3)
        one_by_one = np.add.accumulate(products, axis=1)[:, -1]
        exact = products.sum(axis=1, dtype=np.float64)
        error, other = (
            np.sqrt(np.mean((a - c) ** 2) / np.mean(c**2)) for a, c in ((y, expected[name]), (one_by_one, exact))
        )
        assert error < 0.4 * other, f"{name}: {error / other}"
