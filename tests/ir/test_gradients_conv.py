"""Gradients of products, convolutions and pooling, over drawn attributes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.ops.gradients_conv import ConvFilterGradient, ConvInputGradient
from kcompile.ir.passes.grad import backward
from kcompile.ir.types import TensorType
from tests.ir.gradient_check import check_gradient, distinct

SEEDS = st.integers(0, 2**32 - 1)
FORMATS = st.sampled_from(["channels_last", "channels_first"])


def activation(rng: np.random.Generator, batch: int, spatial: tuple[int, ...], channels: int, data_format: str) -> Any:
    shape = (batch, *spatial, channels) if data_format == "channels_last" else (batch, channels, *spatial)
    return rng.standard_normal(shape)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_dense(lead: tuple[int, ...], bias: bool, rng: np.random.Generator) -> None:
    operands = [rng.standard_normal(shape) for shape in [(*lead, 3), (3, 5), (5,)][: 2 + bias]]
    check_gradient(ops.Dense(), *operands)


@pytest.mark.parametrize(
    ("first", "second"),
    [((3, 4), (4, 2)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((1, 3, 4), (6, 4, 2))],
)
def test_products_of_matrices(first: tuple[int, ...], second: tuple[int, ...], rng: np.random.Generator) -> None:
    check_gradient(ops.MatMul(), rng.standard_normal(first), rng.standard_normal(second))


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    rank = draw(st.integers(1, 3))
    integers = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * rank))  # noqa: E731
    window, dilation = integers(1, 3), integers(1, 2)
    pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.sampled_from(["valid", "same", draw(st.tuples(*[pads] * rank))]))
    return {
        "window": window,
        "spatial": tuple(max(e, (w - 1) * d + 1) for e, w, d in zip(integers(2, 6), window, dilation, strict=True)),
        "strides": integers(1, 3),
        "padding": padding,
        "dilation": dilation if draw(st.booleans()) else (),
        "groups": draw(st.integers(1, 3)),
        "per_group": draw(st.integers(1, 2)),
        "filters": draw(st.integers(1, 2)),
        "batch": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "data_format": draw(FORMATS),
        "seed": draw(SEEDS),
    }


@given(convolutions())
def test_convolutions(case: dict[str, Any]) -> None:
    rng = np.random.default_rng(case["seed"])
    groups = case["groups"]
    op = ops.Conv(case["strides"], case["padding"], case["dilation"], groups, case["data_format"])
    x = activation(rng, case["batch"], case["spatial"], groups * case["per_group"], case["data_format"])
    kernel = rng.standard_normal((*case["window"], case["per_group"], groups * case["filters"]))
    bias = [rng.standard_normal(groups * case["filters"])] if case["bias"] else []
    check_gradient(op, x, kernel, *bias, seed=case["seed"])


@given(convolutions(), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
def test_transposed_convolutions(case: dict[str, Any], extra: int, low: int, high: int) -> None:
    rng = np.random.default_rng(case["seed"])
    groups, rank = case["groups"], len(case["window"])
    dilation = case["dilation"] or (1,) * rank
    # The result must be at least one element long.
    pairs = tuple(
        (low, high) if (w - 1) * d + extra >= low + high else (0, 0)
        for w, d in zip(case["window"], dilation, strict=True)
    )
    op = ops.ConvTranspose(case["strides"], pairs, (extra,) * rank, case["dilation"], groups, case["data_format"])
    x = activation(rng, case["batch"], case["spatial"], groups * case["filters"], case["data_format"])
    kernel = rng.standard_normal((*case["window"], case["per_group"], groups * case["filters"]))
    bias = [rng.standard_normal(groups * case["per_group"])] if case["bias"] else []
    check_gradient(op, x, kernel, *bias, seed=case["seed"])


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_convolutions_larger_than_a_block(groups: int, rng: np.random.Generator) -> None:
    x, kernel = rng.standard_normal((3, 40, 50, 6)), rng.standard_normal((3, 3, 6 // groups, 12))
    check_gradient(ops.Conv((1, 1), "same", (), groups), x, kernel, rng.standard_normal(12))


@st.composite
def poolings(draw: st.DrawFn) -> dict[str, Any]:
    rank = draw(st.integers(1, 3))
    integers = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * rank))  # noqa: E731
    window = integers(1, 3)
    return {
        "pool_size": window,
        "strides": integers(1, 3),
        "padding": draw(st.sampled_from(["valid", "same", tuple((w // 2, (w - 1) // 2) for w in window)])),
        "spatial": tuple(max(e, w) for e, w in zip(integers(2, 6), window, strict=True)),
        "data_format": draw(FORMATS),
        "seed": draw(SEEDS),
    }


@pytest.mark.parametrize("pool", [ops.MaxPool, ops.AvgPool])
@given(poolings())
def test_pooling(pool: Any, case: dict[str, Any]) -> None:
    rng = np.random.default_rng(case["seed"])
    op = pool(case["pool_size"], case["strides"], case["padding"], case["data_format"])
    shape = activation(rng, 2, case["spatial"], 3, case["data_format"]).shape
    check_gradient(op, distinct(rng, *shape), seed=case["seed"])


def test_of_equal_elements_of_a_window_the_first_gets_the_gradient() -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", (1, 2, 4, 1)))
    (dx,) = backward(b, b(ops.ReduceSum((0, 1, 2, 3)), b(ops.MaxPool((2, 2), (2, 2)), x)), [x])
    image = np.array([[0.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]).reshape(1, 2, 4, 1)
    found = evaluate(b.build([dx]), {"x": image})["output_0"]
    assert found.reshape(2, 4).tolist() == [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def naive_gradients(x: Any, kernel: Any, dy: Any, stride: int) -> tuple[Any, Any]:
    """Loops over every product of a valid two-dimensional convolution."""
    dx, dkernel = np.zeros_like(x), np.zeros_like(kernel)
    for n, i, j, f in np.ndindex(*dy.shape):
        for p, q, c in np.ndindex(*kernel.shape[:3]):
            dx[n, i * stride + p, j * stride + q, c] += dy[n, i, j, f] * kernel[p, q, c, f]
            dkernel[p, q, c, f] += dy[n, i, j, f] * x[n, i * stride + p, j * stride + q, c]
    return dx, dkernel


def test_gradient_kernels_match_loops_in_single_precision(rng: np.random.Generator) -> None:
    x, kernel, dy = (rng.standard_normal(s).astype(np.float32) for s in [(2, 7, 6, 3), (3, 2, 3, 4), (2, 3, 3, 4)])
    op = ops.Conv((2, 2))
    dx, dkernel = naive_gradients(x, kernel, dy, 2)
    np.testing.assert_allclose(ConvInputGradient(op, (7, 6)).kernel((dy, kernel))[0], dx, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ConvFilterGradient(op, (3, 2)).kernel((x, dy))[0], dkernel, rtol=1e-5, atol=1e-5)


def test_gradients_of_images_of_any_size() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", "H", "W", 2)))
    kernel = b.input("kernel", TensorType("float32", (3, 3, 2, 4)))
    pooled = b(
        ops.AvgPool((2, 2), (2, 2)), b(ops.MaxPool((2, 2), (2, 2), "same"), b(ops.Conv((1, 1), "same"), x, kernel))
    )
    dx, dkernel = backward(b, b(ops.ReduceMean((0, 1, 2, 3)), pooled), [x, kernel])
    assert (dx.type, dkernel.type) == (x.type, kernel.type)
    inputs = {"x": np.ones((2, 9, 8, 2), np.float32), "kernel": np.ones((3, 3, 2, 4), np.float32)}
    assert evaluate(b.build([dx, dkernel]), inputs)["output_0"].shape == (2, 9, 8, 2)
