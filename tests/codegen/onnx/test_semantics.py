"""Where ONNX and the IR could differ: special numbers, rounding, division, clamping, exact indices."""

from typing import Literal

import numpy as np
import pytest

from kcompile.codegen.onnx import emit
from kcompile.errors import UnsupportedOp
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.op import Op
from kcompile.ir.types import Array, TensorType
from tests.codegen.onnx.cases import Case, attention, f32, graph_of, of
from tests.codegen.onnx.harness import check, draw, run

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.5, 0.5, 2.5, -0.5, 3.0, 1e30, -1e-30], np.float32)


@pytest.mark.parametrize(
    "op",
    [
        *(ops.Relu(), ops.Clip(-1.0, 2.0), ops.Sign(), ops.Round(), ops.Floor(), ops.Ceil(), ops.Abs(), ops.Sqrt()),
        *(ops.LeakyRelu(0.1), ops.Elu(), ops.Sigmoid(), ops.Tanh(), ops.Softplus(), ops.Exp(), ops.HardSigmoid()),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_numbers_pass_as_in_the_reference(op: Op, dtype: str) -> None:
    graph = graph_of((op, (of(dtype, "N"),)))
    check(graph, {"x0": np.tile(SPECIAL, 5).astype(dtype)})


@pytest.mark.parametrize("op", [ops.Maximum(), ops.Minimum(), ops.Div(), ops.FloorDiv(), ops.Mod()], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_numbers_pass_in_pairs(op: Op, dtype: str) -> None:
    x, y = np.meshgrid(SPECIAL, SPECIAL)
    graph = graph_of((op, (of(dtype, "N"), of(dtype, "N"))))
    check(graph, {"x0": x.reshape(-1).astype(dtype), "x1": y.reshape(-1).astype(dtype)})


@pytest.mark.parametrize("op", [ops.Div(), ops.FloorDiv(), ops.Mod()], ids=str)
@pytest.mark.parametrize("dtype", ["int32", "int64", "int8", "uint8"])
def test_integers_divide_downwards_and_by_zero_without_a_trap(op: Op, dtype: str) -> None:
    numbers = np.arange(0 if dtype == "uint8" else -7, 8).astype(dtype)
    x, y = (a.reshape(-1) for a in np.meshgrid(numbers, numbers))
    check(graph_of((op, (of(dtype, "N"), of(dtype, "N")))), {"x0": x, "x1": y})
    for divisor in numbers:
        check(graph_of((op, (of(dtype, "N"), np.asarray(divisor)))), {"x0": numbers})


def test_tenths_divide_as_in_the_reference(rng: np.random.Generator) -> None:
    x = rng.integers(-50, 50, 500).astype(np.float32) / np.float32(10)
    graph = graph_of((ops.FloorDiv(), (f32("N"), np.array([0.1], np.float32))))
    check(graph, {"x0": x})


def test_gather_clamps_indices_that_leave_the_table() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    indices = np.array([[-9, -1, 0], [3, 4, 2**31 - 1]])
    for dtype in ("int32", "int64"):
        check(graph_of((ops.Gather(0), (table, of(dtype, "N", 3)))), {"x1": indices.astype(dtype)})


def _pairs(limit: int) -> list[tuple[int, int]]:
    return [(extent, size) for extent in range(1, limit) for size in range(1, limit)]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_resize_samples_the_same_elements_at_every_ratio(
    interpolation: Literal["nearest", "bilinear"], rng: np.random.Generator
) -> None:
    for extent, size in _pairs(14):
        graph = graph_of((ops.Resize((size, size), interpolation), (f32("N", extent, extent, 1),)))
        check(graph, {"x0": draw(f32(1, extent, extent, 1), rng)})


def test_resize_of_open_extents_samples_the_same_elements(rng: np.random.Generator) -> None:
    for size in (4, 6, 9, 10):
        graph = graph_of((ops.Resize((size, size)), (f32("N", "H", "W", 1),)))
        for extent in range(1, 30):
            check(graph, {"x0": draw(f32(1, extent, extent, 1), rng)})


@pytest.mark.parametrize("kind", [ops.MaxPool, ops.AvgPool])
def test_same_padding_of_open_extents_is_that_of_known_ones(kind: type, rng: np.random.Generator) -> None:
    for window, stride in ((2, 2), (3, 2), (3, 1), (2, 3), (5, 2)):
        graph = graph_of((kind((window,) * 2, (stride,) * 2, "same"), (f32("N", "H", "W", 2),)))
        for extent in range(1, 9):
            check(graph, {"x0": draw(f32(2, extent, extent + 1, 2), rng)})


def test_zeros_around_a_max_pool_win_over_negative_elements() -> None:
    b = Builder("zeros")
    padded = b(ops.Pad((0, 1, 1, 0), (0, 1, 1, 0)), b.input("x0", f32("N", 5, 5, 2)))
    model = emit(b.build([b(ops.MaxPool((3, 3), (2, 2)), padded)]), metadata={}).message()
    (y,) = run(model, {"x0": np.full((2, 5, 5, 2), -1, np.float32)}).values()
    np.testing.assert_array_equal(y.max((0, 3)), [[0, 0, 0], [0, -1, 0], [0, 0, 0]])


def test_same_padding_of_open_convolutions_is_that_of_known_ones(rng: np.random.Generator) -> None:
    for window, stride, rate in ((1, 2, 1), (2, 2, 1), (2, 3, 1), (3, 2, 1), (4, 3, 1), (3, 1, 2), (2, 1, 3)):
        kernel = draw(f32(window, window, 2, 3), rng)
        graph = graph_of((ops.Conv((stride,) * 2, "same", (rate,) * 2), (f32("N", "H", "W", 2), kernel)))
        for extent in range(1, 9):
            check(graph, {"x0": draw(f32(2, extent, extent + 1, 2), rng)})


@pytest.mark.parametrize("outputs", [1, 2])
def test_attention_of_a_row_without_visible_keys_is_even(outputs: int, rng: np.random.Generator) -> None:
    types = (f32("N", "T", 2, 4), f32("N", "T", 2, 4), f32("N", "T", 2, 4), of("bool", "N", 1, 1, "T"))
    for causal in (False, True):
        graph = graph_of((ops.Attention(0.5, causal), types), outputs)
        inputs = {name: draw(type_, rng, N=3, T=5) for name, type_ in graph.input_types.items()}
        inputs["x3"][0] = False
        inputs["x3"][1, ..., :3] = False
        inputs["x0"] *= 1000  # far apart, as scores of a row that is even nevertheless
        check(graph, inputs)


@pytest.mark.parametrize("case", list(attention()), ids=str)
def test_attention_is_one_operator_where_its_weights_are_not_read(case: Case, rng: np.random.Generator) -> None:
    graph = graph_of(case, 1)
    inputs = {name: draw(t, rng, N=3, T=5, Q=4, K=6) for name, t in graph.input_types.items()}
    model = check(graph, inputs)
    is_single = case[1][0].dtype == "float32"
    assert [node.op_type for node in model.graph.node].count("Attention") == is_single
    assert [node.op_type for node in model.graph.node].count("Transpose") == (0 if is_single else 4)


@pytest.mark.parametrize("height", [1, 6, 7, 8, 20])
@pytest.mark.parametrize(
    "op",
    [
        ops.Conv((5, 4), "same"),
        ops.Conv((4, 3), "same", (2, 3)),
        ops.MaxPool((3, 2), (5, 3), "same"),
        ops.AvgPool((3, 3), (5, 4), "same"),
    ],
    ids=str,
)
def test_same_padding_follows_open_extents_where_the_engine_itself_cannot(
    op: Op, height: int, rng: np.random.Generator
) -> None:
    kernel = [rng.normal(size=(3, 3, 2, 4)).astype(np.float32)] if isinstance(op, ops.Conv) else []
    graph = graph_of((op, (f32("N", "H", "W", 2), *kernel)))
    # All below 0, so that padding of zeros would be the largest.
    check(graph, {"x0": -np.abs(rng.normal(size=(2, height, 9, 2))).astype(np.float32)})


def test_ops_that_the_engine_cannot_run_are_all_named() -> None:
    b = Builder("model")
    x = b.input("x", TensorType("float32", ("N", 8, 8, 2)))
    kernel: Array = np.ones((3, 3, 2, 2), np.float32)
    for layer in ("up1", "up2"):
        with b.source(f"decoder/{layer}"):
            x = b(ops.ConvTranspose((2, 2), ((0, 0), (0, 0)), (3, 3)), x, b.constant(kernel))
    with pytest.raises(UnsupportedOp) as caught:
        emit(b.build({"y": x}), metadata={})
    reason = "ONNX Runtime needs `output_padding` below stride or dilation"
    assert str(caught.value) == (
        'target "onnx" cannot express 2 op(s) of this model:\n'
        f"  `conv_transpose` at decoder/up1: {reason}\n"
        f"  `conv_transpose` at decoder/up2: {reason}"
    )


def test_what_has_no_float64_kernel_is_computed_in_float32(rng: np.random.Generator) -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", ("N", 6, 5, 2)))
    kernel, bias = b.constant(rng.normal(size=(3, 2, 2, 4))), b.constant(rng.normal(size=4))
    y = b(ops.Conv((2, 1), "same"), x, kernel, bias)
    graph = b.build({"y": y, "z": b(ops.Gelu(), y), "w": b(ops.AvgPool((2, 2), (2, 2)), y)})
    inputs = {"x": rng.normal(size=(3, 6, 5, 2))}
    received = run(emit(graph, metadata={}).message(), inputs)
    for name, expected in evaluate(graph, inputs).items():
        assert received[name].dtype == np.float64
        np.testing.assert_allclose(received[name], expected, atol=1e-5)
