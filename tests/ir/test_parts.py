"""Nodes computed in parts, on any number of cores, give what they give whole."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kcompile.ir import ops, parts
from kcompile.ir.graph import Builder
from kcompile.ir.op import OPS, Elementwise, Op
from kcompile.ir.plan import Plan
from kcompile.ir.types import type_of
from tests.ir.test_plan import check
from tests.strategies import OpCase, op_cases

_KINDS = (Elementwise, *parts.REDUCTIONS, ops.Dense, ops.MatMul)
CUT = {name: cls for name, cls in OPS.items() if cls in parts.BY_SAMPLE or issubclass(cls, _KINDS)}


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(parts, "cores", lambda: 3)
    monkeypatch.setattr("kcompile.ir.plan.is_large", lambda node: all(0 not in v.type.shape for v in node.outputs))
    parts._threads.cache_clear()  # pyright: ignore[reportPrivateUsage]
    yield
    parts._threads.cache_clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.usefixtures("three_cores")
@pytest.mark.parametrize("cls", CUT.values(), ids=CUT)
def test_parts_of_nodes_together_are_the_whole(cls: type[Op]) -> None:
    @given(op_cases(cls, "float64"))
    def each(case: OpCase) -> None:
        b = Builder("case")
        xs = [b.input(f"x{i}", type_of(array)) for i, array in enumerate(case.arrays)]
        results = b.multi(case.op, *xs)
        assume(all(y.type.rank and 0 not in y.type.shape for y in results))
        # Read again, so that the first results are kept in arrays of the plan.
        check(b.build([b(ops.Reshape((y.type.size,)), y) for y in results]), list(case.arrays))

    each()


@pytest.mark.usefixtures("three_cores")
@pytest.mark.parametrize("of", [ops.Lstm(reverse=True), ops.Gru(has_initial_state=True), ops.SimpleRnn(has_mask=True)])
def test_parts_of_recurrent_gradients_together_are_the_whole(
    of: ops.Lstm | ops.Gru | ops.SimpleRnn, rng: np.random.Generator
) -> None:
    wide = 4 * of.gates
    shapes = [(5, 3, 2), (2, wide), (4, wide), *[(wide,)] * of.biases, *[(5, 4)] * of.has_initial_state]
    operands = [rng.normal(size=shape) for shape in shapes]
    operands += [rng.random((5, 3)) < 0.7] if of.has_mask else []
    results = of.kernel(tuple(operands))
    args = (*operands, results[0], *(rng.normal(size=y.shape) for y in results))
    op = ops.RecurrentGradient(of)
    for part, whole in zip(parts.recurrent_gradient_in_parts(op)(args), op.kernel(args), strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 40), st.integers(1, 9))
def test_each_sample_is_in_one_part(samples: int, cores: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "cores", lambda: cores)
        chosen = parts.slices(samples)
    assert np.concatenate([np.arange(samples)[part] for part in chosen]).tolist() == list(range(samples))
    assert all(part.stop > part.start for part in chosen)


@pytest.mark.usefixtures("three_cores")
def test_an_error_in_any_part_reaches_the_caller() -> None:
    def fails(rows: slice) -> None:
        if rows.start:
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        parts.in_parallel(fails, parts.slices(6))


def test_large_nodes_are_computed_in_parts_and_small_ones_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "cores", lambda: 2)
    used: list[int] = []
    monkeypatch.setattr(
        "kcompile.ir.plan.into_in_parts", lambda into, node: used.append(int(node.outputs[0].type.size)) or into
    )
    for size in (16, 1 << 19):
        b = Builder("relu")
        Plan(b.build([b(ops.Reshape((size,)), b(ops.Exp(), b.input("x", type_of(np.zeros((size, 1), "f")))))]))
    assert used == [1 << 19]
