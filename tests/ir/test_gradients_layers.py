"""Gradients of normalizations, attention, recurrence, resampling and fused bodies, over drawn attributes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.errors import GraphError
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.ops.gradients_norm import BatchNormTraining
from kcompile.ir.ops.random import RandomNormal, RandomUniform
from kcompile.ir.passes.grad import backward
from kcompile.ir.types import TensorType
from tests.ir.gradient_check import check_gradient

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
def test_batch_normalization_at_inference(axis: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 3, 5))
    gamma, beta, mean = (rng.standard_normal(x.shape[axis]) for _ in range(3))
    check_gradient(ops.BatchNorm(1e-3, axis), x, gamma, beta, mean, rng.uniform(0.5, 2.0, x.shape[axis]))


@pytest.mark.parametrize("results", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("axis", [-1, 1])
def test_batch_normalization_while_training(axis: int, results: tuple[int, ...], rng: np.random.Generator) -> None:
    x = 3 * rng.standard_normal((4, 3, 2, 5)) + 1
    gamma, beta = (rng.standard_normal(x.shape[axis]) for _ in range(2))
    check_gradient(BatchNormTraining(1e-3, axis), x, gamma, beta, results=results)


def test_batch_normalization_uses_the_statistics_of_the_batch(rng: np.random.Generator) -> None:
    x, gamma, beta = rng.standard_normal((6, 4, 3)), rng.standard_normal(3), rng.standard_normal(3)
    y, mean, variance = BatchNormTraining(0.1).kernel((x, gamma, beta))
    np.testing.assert_allclose(mean, x.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(variance, x.var((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(y, gamma * (x - mean) / np.sqrt(variance + 0.1) + beta, rtol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5)])
def test_layer_normalization(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4, 5))
    check_gradient(ops.LayerNorm(1e-3), x, rng.standard_normal(shape), rng.standard_normal(shape))


@given(st.booleans(), st.booleans(), st.sampled_from([(4, 4), (4, 2), (3, 1)]), SEEDS)
def test_attention(causal: bool, masked: bool, heads: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((2, 5, heads[0], 3))
    key, value = rng.standard_normal((2, 4, heads[1], 3)), rng.standard_normal((2, 4, heads[1], 6))
    # Every query may attend to the first key: scores that are all -1e9 hide differences.
    mask = [(rng.random((2, 1, 1, 4)) < 0.6) | (np.arange(4) == 0)] if masked else []
    check_gradient(ops.Attention(0.6, causal), query, key, value, *mask, seed=seed)
    check_gradient(ops.Attention(0.6, causal), query, key, value, *mask, seed=seed, results=(0,))
    check_gradient(ops.Attention(0.6, causal), query, key, value, *mask, seed=seed, results=(1,))


ACTIVATIONS = st.sampled_from([ops.Tanh(), ops.Sigmoid(), ops.Softplus(), ops.Gelu(), None])


@st.composite
def recurrences(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "activation": draw(ACTIVATIONS),
        "recurrent_activation": draw(st.sampled_from([ops.Sigmoid(), ops.Tanh(), None])),
        "reverse": draw(st.booleans()),
        "has_initial_state": draw(st.booleans()),
        "has_mask": draw(st.booleans()),
        "zero_masked_output": draw(st.booleans()),
    }


def operands(rng: np.random.Generator, op: Any, length: int = 4) -> list[Any]:
    """Operands of a recurrent op; masks have holes at the beginning, inside and at the end."""
    batch, features, hidden = 3, 2, 3
    wide = op.gates * hidden
    shapes = [(batch, length, features), (features, wide), (hidden, wide), *[(wide,)] * op.biases]
    states = [(batch, hidden)] * op.states if op.has_initial_state else []
    mask = [rng.random((batch, length)) < 0.6] if op.has_mask else []
    # Small, so that gates without an activation do not let the states explode.
    return [*(0.25 * rng.standard_normal(shape) for shape in (*shapes, *states)), *mask]


@pytest.mark.parametrize("recurrent", [ops.SimpleRnn, ops.Lstm, ops.Gru])
@given(recurrences(), SEEDS)
def test_recurrence(recurrent: Any, case: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    op = recurrent(**case)
    check_gradient(op, *operands(rng, op), seed=seed)


@given(recurrences(), SEEDS)
def test_gru_with_reset_before_the_product(case: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    op = ops.Gru(**case, reset_after=False)
    check_gradient(op, *operands(rng, op), seed=seed)


@pytest.mark.parametrize("results", [(0,), (1,), (2,)])
def test_recurrence_where_the_loss_needs_one_result(results: tuple[int, ...], rng: np.random.Generator) -> None:
    op = ops.Lstm(has_mask=True, has_initial_state=True)
    check_gradient(op, *operands(rng, op), results=results)


@pytest.mark.parametrize("length", [0, 1])
def test_recurrence_over_short_sequences(length: int, rng: np.random.Generator) -> None:
    op = ops.Lstm(has_initial_state=True)
    check_gradient(op, *operands(rng, op, length))


@given(
    st.sampled_from(["nearest", "bilinear"]),
    st.sampled_from(["channels_last", "channels_first"]),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    SEEDS,
)
def test_resampling(interpolation: Any, data_format: Any, size: tuple[int, int], seed: int) -> None:
    shape = (2, 3, 4, 2) if data_format == "channels_last" else (2, 2, 3, 4)
    op = ops.Resize(size, interpolation, data_format)
    check_gradient(op, np.random.default_rng(seed).standard_normal(shape), seed=seed)


def test_a_fused_body_has_the_gradient_of_its_nodes(rng: np.random.Generator) -> None:
    body = Builder()
    x, w = body.input("x", TensorType("float64", (4, 3))), body.input("w", TensorType("float64", (3, 2)))
    y = body(ops.Dense(), x, w)
    op = ops.Fused("dense+tanh", body.build([body(ops.Tanh(), y), y]))
    check_gradient(op, rng.standard_normal((4, 3)), rng.standard_normal((3, 2)))
    check_gradient(op, rng.standard_normal((4, 3)), rng.standard_normal((3, 2)), results=(1,))


def test_an_op_without_a_derivative_says_so() -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", (1, 4, 4, 1)))
    pooled = b(ops.MaxPool((2, 2), (2, 2)), x)
    (dx,) = backward(b, b(ops.ReduceSum((0, 1, 2, 3)), b(ops.Mul(), pooled, pooled)), [x])
    loss = b(ops.ReduceSum((0, 1, 2, 3)), b(ops.Mul(), dx, dx))
    with pytest.raises(GraphError, match="`max_pool_gradient` has no gradient"):
        backward(b, loss, [x])


@pytest.mark.parametrize("op", [RandomUniform, RandomNormal])
def test_random_numbers_are_a_function_of_seed_and_stream(op: Any) -> None:
    first, second, other_seed = (op((2000,)).kernel((np.asarray(seed),))[0] for seed in (7, 7, 8))
    (other_stream,) = op((2000,), stream=1).kernel((np.asarray(7),))
    assert first.dtype == np.float32
    assert (first == second).all()
    assert np.abs(np.corrcoef([first, other_seed, other_stream]) - np.eye(3)).max() < 0.1


def test_random_numbers_have_their_distribution() -> None:
    (uniform,) = RandomUniform((100, 200)).kernel((np.asarray(-3),))
    (normal,) = RandomNormal((100, 200), dtype="float64").kernel((np.asarray(2**62),))
    assert 0 <= uniform.min() < 0.001
    assert 0.999 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02


def test_random_numbers_pass_no_gradient_and_bind_their_symbols() -> None:
    b = Builder()
    x, seed = b.input("x", TensorType("float64", ("N", 2))), b.input("seed", TensorType("int64", ()))
    noise = b(RandomUniform(("N", 2), dtype="float64"), seed)
    (dx,) = backward(b, b(ops.ReduceSum((0, 1)), b(ops.Mul(), x, noise)), [x])
    found = evaluate(b.build([dx, noise]), {"x": np.ones((3, 2)), "seed": np.asarray(1)})
    np.testing.assert_array_equal(found["output_0"], found["output_1"])
