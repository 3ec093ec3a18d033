"""Gradients of reductions and of ops that move elements, over drawn attributes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.op import Op
from kcompile.ir.ops.gradients import ScatterAdd
from kcompile.ir.passes.grad import backward
from kcompile.ir.types import TensorType
from tests.ir.gradient_check import check_gradient, distinct

SEEDS = st.integers(0, 2**32 - 1)
REDUCTIONS = [ops.ReduceSum, ops.ReduceMean, ops.ReduceMax, ops.ReduceMin, ops.ReduceProd]
SHAPE = (3, 1, 4, 2)


@pytest.mark.parametrize("op", REDUCTIONS)
@given(st.sets(st.integers(-4, 3), min_size=0, max_size=4), st.booleans(), SEEDS)
def test_reductions(op: Callable[..., Op], axes: set[int], keepdims: bool, seed: int) -> None:
    chosen = tuple({axis % 4: axis for axis in axes}.values())
    check_gradient(op(chosen, keepdims), distinct(np.random.default_rng(seed), *SHAPE), seed=seed)


def test_the_gradient_of_a_product_survives_zeros() -> None:
    x = np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 5.0], [1.0, 2.0, 4.0]])
    check_gradient(ops.ReduceProd((1,)), x)
    check_gradient(ops.ReduceProd((0, 1)), x)


@pytest.mark.parametrize("op", [ops.ReduceMax, ops.ReduceMin])
def test_equal_extrema_share_the_gradient(op: Callable[..., Op]) -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", (4,)))
    (dx,) = backward(b, b(op((0,)), x), [x])
    found = evaluate(b.build([dx]), {"x": np.array([2.0, 2.0, 2.0, 2.0])})
    assert found["output_0"].tolist() == [0.25] * 4


def test_the_place_of_an_extremum_has_no_gradient() -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", (4,)))
    place = b(ops.Cast("float64"), b(ops.ArgReduce(0), x))
    found = evaluate(b.build(backward(b, place, [x])), {"x": np.arange(4.0)})
    assert found["output_0"].tolist() == [0.0] * 4


@given(st.integers(-3, 2), SEEDS)
def test_running_sums(axis: int, seed: int) -> None:
    check_gradient(ops.CumSum(axis), np.random.default_rng(seed).standard_normal((2, 4, 3)), seed=seed)


@given(st.integers(-3, 2), st.booleans(), SEEDS)
def test_sorting(axis: int, descending: bool, seed: int) -> None:
    check_gradient(ops.Sort(axis, descending), distinct(np.random.default_rng(seed), 2, 4, 3), seed=seed)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("op", [ops.Softmax, ops.LogSoftmax])
def test_softmax(op: Callable[..., Op], axis: int, rng: np.random.Generator) -> None:
    check_gradient(op(axis), rng.standard_normal((3, 4, 2)))


def test_reshape_and_transpose(rng: np.random.Generator) -> None:
    check_gradient(ops.Reshape((4, 6)), rng.standard_normal((2, 3, 4)))
    check_gradient(ops.Transpose((2, 0, 1)), rng.standard_normal((2, 3, 4)))
    check_gradient(ops.Transpose((1, 2, 0)), rng.standard_normal((2, 3, 4)))


@given(st.integers(-3, 2), st.lists(st.integers(0, 3), min_size=1, max_size=4), SEEDS)
def test_concatenation(axis: int, extents: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = [[2, 3, 2] for _ in extents]
    for shape, extent in zip(shapes, extents, strict=True):
        shape[axis] = extent
    check_gradient(ops.Concat(axis), *(rng.standard_normal(shape) for shape in shapes), seed=seed)


@given(st.integers(-3, 2), st.integers(0, 6), st.integers(0, 6), st.integers(1, 4), SEEDS)
def test_slices(axis: int, first: int, second: int, step: int, seed: int) -> None:
    op = ops.Slice(axis, min(first, second), max(first, second), step)
    check_gradient(op, np.random.default_rng(seed).standard_normal((6, 6, 6)), seed=seed)


WIDTHS = st.tuples(*[st.integers(0, 3)] * 3)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@given(WIDTHS, WIDTHS, SEEDS)
def test_padding(mode: str, low: tuple[int, int, int], high: tuple[int, int, int], seed: int) -> None:
    op = ops.Pad(low, high, mode, 2.0)  # type: ignore[arg-type]
    check_gradient(op, np.random.default_rng(seed).standard_normal((4, 5, 4)), seed=seed)


@given(st.sets(st.integers(-3, 2), min_size=1), SEEDS)
def test_reversal(axes: set[int], seed: int) -> None:
    chosen = tuple({axis % 3: axis for axis in axes}.values())
    check_gradient(ops.Reverse(chosen), np.random.default_rng(seed).standard_normal((2, 3, 4)), seed=seed)


@given(st.tuples(*[st.integers(1, 3)] * 3), SEEDS)
def test_tiling(repeats: tuple[int, int, int], seed: int) -> None:
    check_gradient(ops.Tile(repeats), np.random.default_rng(seed).standard_normal((2, 3, 1)), seed=seed)


@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3), (1, 2, 3)])
def test_broadcasting(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    check_gradient(ops.BroadcastTo(shape), rng.standard_normal((1, 3)))
    check_gradient(ops.BroadcastTo(shape), rng.standard_normal(()))


@given(
    st.integers(-3, 2), st.sampled_from([(), (5,), (2, 3), (0,)]), st.sampled_from(["int32", "int64", "uint8"]), SEEDS
)
def test_gathering(axis: int, shape: tuple[int, ...], dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_gradient(ops.Gather(axis), rng.standard_normal((3, 4, 3)), rng.integers(0, 6, shape).astype(dtype), seed=seed)


def test_scattering_adds_what_shares_an_index_and_clamps() -> None:
    op = ScatterAdd(3, 0)
    dy = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0], [1000.0, 2000.0]])
    (found,) = op.kernel((np.array([2, -5, 2, 7]), dy))
    assert found.tolist() == [[10.0, 20.0], [0.0, 0.0], [1101.0, 2202.0]]


def test_slices_and_scatters_bind_their_symbols() -> None:
    b = Builder()
    x = b.input("x", TensorType("float64", ("N", 3)))
    last = b(ops.Slice(0, "N-1", "N"), x)
    (dx,) = backward(b, b(ops.ReduceSum((0, 1)), last), [x])
    assert dx.type == x.type
    found = evaluate(b.build([dx]), {"x": np.ones((3, 3))})
    assert found["output_0"].tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3]
