"""Gradients of elementwise ops, over drawn shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.errors import GraphError
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.op import Op
from kcompile.ir.passes.grad import backward
from kcompile.ir.types import TensorType
from tests.ir.gradient_check import check_gradient

BROADCASTS = [((), ()), ((3,), (3,)), ((2, 3), (3,)), ((2, 1, 3), (4, 1)), ((1,), (2, 3)), ((2, 3), ()), ((0, 3), (3,))]
SEEDS = st.integers(0, 2**32 - 1)

POSITIVE_BINARY = [ops.Div(), ops.Pow(), ops.Mod(), ops.FloorDiv()]
BINARY = [ops.Add(), ops.Sub(), ops.Mul(), ops.Maximum(), ops.Minimum(), ops.PRelu(), ops.Atan2()]
UNARY = [
    ops.Neg(),
    ops.Abs(),
    ops.Exp(),
    ops.Sin(),
    ops.Cos(),
    ops.Sign(),
    ops.Clip(-0.5, 0.7),
    ops.Cast("float64"),
    ops.Relu(),
    ops.LeakyRelu(0.3),
    ops.Elu(),
    ops.Elu(0.6),
    ops.Selu(),
    ops.Celu(),
    ops.Celu(0.7),
    ops.Sigmoid(),
    ops.HardSigmoid(),
    ops.HardSigmoid(0.2),
    ops.Silu(),
    ops.HardSilu(),
    ops.Tanh(),
    ops.Softplus(),
    ops.Softsign(),
    ops.Mish(),
    ops.Erf(),
    ops.Gelu(),
    ops.Gelu(approximate=True),
]


def away_from_kinks(x: np.ndarray) -> np.ndarray:
    """Numbers at least 1e-3 away from where a derivative jumps: 0, the bounds of clips, and integers."""
    kinks = np.array([0.0, -0.5, 0.7, 2.5, -2.5, 3.0, -3.0, 1.0, -1.0, 2.0, -2.0])
    near = np.abs(x[..., None] - kinks).min(-1) < 1e-3
    return np.where(near, x + 3e-3, x)


@given(st.sampled_from(UNARY), st.sampled_from([(), (3,), (2, 3), (0, 2)]), SEEDS)
def test_unary_gradients_match_differences(op: Op, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_gradient(op, away_from_kinks(2 * rng.standard_normal(shape)), seed=seed)


@pytest.mark.parametrize("op", UNARY, ids=str)
def test_every_unary_gradient_matches_differences(op: Op) -> None:
    check_gradient(op, away_from_kinks(3 * np.random.default_rng(1).standard_normal((5, 40))))


@pytest.mark.parametrize("op", [ops.Log(), ops.Sqrt()], ids=str)
def test_gradients_of_positive_numbers_match_differences(op: Op, rng: np.random.Generator) -> None:
    check_gradient(op, rng.uniform(0.5, 3.0, (4, 5)))


@given(st.sampled_from(BINARY), st.sampled_from(BROADCASTS), st.booleans(), SEEDS)
def test_binary_gradients_sum_over_what_was_stretched(
    op: Op, shapes: tuple[tuple[int, ...], tuple[int, ...]], swap: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    first, second = shapes[::-1] if swap else shapes
    check_gradient(op, away_from_kinks(rng.standard_normal(first)), rng.standard_normal(second), seed=seed)


@given(st.sampled_from(POSITIVE_BINARY), st.sampled_from(BROADCASTS), st.booleans(), SEEDS)
def test_gradients_of_quotients_and_powers_match_differences(
    op: Op, shapes: tuple[tuple[int, ...], tuple[int, ...]], swap: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    first, second = shapes[::-1] if swap else shapes
    # The quotients stay away from integers, where floor jumps.
    x, y = rng.uniform(2.1, 2.9, first), rng.uniform(0.96, 1.0, second)
    check_gradient(op, x, y, seed=seed)


@pytest.mark.parametrize("op", [ops.Floor(), ops.Ceil(), ops.Round()], ids=str)
def test_steps_have_the_gradient_zero(op: Op, rng: np.random.Generator) -> None:
    check_gradient(op, rng.integers(-3, 3, (7,)) + rng.uniform(0.1, 0.4, 7))


@given(SEEDS)
def test_where_sends_the_gradient_to_the_operand_chosen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    condition = rng.random((2, 1, 4)) < 0.5
    check_gradient(ops.Where(), condition, rng.standard_normal((3, 4)), rng.standard_normal((2, 3, 1)), seed=seed)


def derivative_at(op: Op, *numbers: float) -> list[float]:
    b = Builder()
    xs = [b.input(f"x{i}", TensorType("float64", ())) for i in range(len(numbers))]
    graph = b.build(backward(b, b(op, *xs), xs))
    found = evaluate(graph, {x.name: np.asarray(n) for x, n in zip(xs, numbers, strict=True)})
    return [float(dx) for dx in found.values()]


@pytest.mark.parametrize(
    ("op", "at", "expected"),
    [
        (ops.Relu(), [0.0], [0.0]),
        (ops.LeakyRelu(0.25), [0.0], [1.0]),
        (ops.PRelu(), [0.0, 0.25], [0.0, 0.0]),
        (ops.Abs(), [0.0], [0.0]),
        (ops.Clip(0.0, 6.0), [0.0], [0.0]),
        (ops.Clip(0.0, 6.0), [6.0], [0.0]),
        (ops.Maximum(), [2.0, 2.0], [0.5, 0.5]),
        (ops.Minimum(), [2.0, 2.0], [0.5, 0.5]),
        (ops.Elu(0.5), [0.0], [0.5]),
        (ops.Pow(), [0.0, 0.0], [0.0, 0.0]),
        (ops.Pow(), [0.0, 2.0], [0.0, 0.0]),
        (ops.Pow(), [-2.0, 3.0], [12.0, 0.0]),
    ],
    ids=str,
)
def test_subgradients_where_a_derivative_jumps(op: Op, at: list[float], expected: list[float]) -> None:
    assert derivative_at(op, *at) == expected


def test_a_cast_to_integers_stops_the_gradient() -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", ()))
    loss = b(ops.Cast("float64"), b(ops.Cast("int32"), x))
    assert evaluate(b.build(backward(b, loss, [x])), {"x": np.asarray(1.5)})["output_0"] == 0.0


def test_a_cast_between_floats_keeps_the_dtype_of_the_operand() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ()))
    (dx,) = backward(b, b(ops.Cast("float64"), x), [x])
    assert dx.type == x.type


def test_a_value_used_twice_gets_the_sum_of_its_gradients() -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", ()))
    loss = b(ops.Mul(), b(ops.Exp(), x), b(ops.Mul(), x, x))
    found = evaluate(b.build(backward(b, loss, [x])), {"x": np.asarray(0.5)})
    assert np.isclose(found["output_0"], np.exp(0.5) * (0.25 + 1.0), rtol=1e-12)


def test_what_the_loss_does_not_depend_on_has_the_gradient_zero() -> None:
    b = Builder()
    x, y = (b.input(name, TensorType("float64", (2,))) for name in "xy")
    graph = b.build(backward(b, b(ops.ReduceSum((0,)), x), [x, y]))
    found = evaluate(graph, {"x": np.ones(2), "y": np.ones(2)})
    assert found["output_0"].tolist() == [1.0, 1.0]
    assert found["output_1"].tolist() == [0.0, 0.0]


def test_gradients_stop_at_inner_values_that_are_asked_for_and_pass_through_them() -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", ()))
    inner = b(ops.Exp(), x)
    found = evaluate(b.build(backward(b, b(ops.Mul(), inner, inner), [inner, x])), {"x": np.asarray(0.0)})
    assert list(found.values()) == [2.0, 2.0]


def test_gradients_keep_symbolic_extents() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 3)))
    w = b.input("w", TensorType("float32", (3,)))
    loss = b(ops.ReduceMean((0, 1)), b(ops.Mul(), x, w))
    dx, dw = backward(b, loss, [x, w])
    assert (dx.type, dw.type) == (x.type, w.type)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((5, 3)).astype(np.float32)
    found = evaluate(b.build([dw]), {"x": data, "w": np.ones(3, np.float32)})
    np.testing.assert_allclose(found["output_0"], data.sum(0) / 15, rtol=1e-5)


def test_a_long_chain_needs_no_recursion() -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", ()))
    y = x
    for _ in range(3000):
        y = b(ops.Neg(), y)
    assert evaluate(b.build(backward(b, y, [x])), {"x": np.asarray(1.0)})["output_0"] == 1.0


def test_a_loss_that_is_no_number_is_refused() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", (2,)))
    with pytest.raises(GraphError, match=r"a loss must be one float\. Received: f32\[2\]\. Sum or average it first\."):
        backward(b, x, [x])


def test_a_gradient_by_integers_is_refused() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ()))
    i = b.input("i", TensorType("int32", ()))
    with pytest.raises(GraphError, match=r"gradients are taken by floats\. Received: i32\[\]\."):
        backward(b, x, [i])
