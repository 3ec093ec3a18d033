"""The gradient of every op, of operands and attributes as drawn for the other tests of ops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, assume, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from kcompile.ir.graph import Builder
from kcompile.ir.op import OPS, Op
from kcompile.ir.ops import Mul, StopGradient
from kcompile.ir.types import type_of
from tests.ir.gradient_check import check_gradient
from tests.strategies import CASES, OpCase, op_cases

# A stopped gradient is no derivative by intent; layers that stop it are tested in training.
RULES = (cls for cls in OPS.values() if cls.vjp is not Op.vjp and cls is not StopGradient)
WITH_RULE = sorted(RULES, key=lambda cls: cls.op_name)

# Operands by which no gradient flows, of ops whose other operands have one.
WITHOUT_GRADIENT = {"mask", "mask?", "condition", "indices", "labels", "seed"}
FLAT = {"and", "arg_reduce", "ceil", "compare", "floor", "floor_div", "not", "or", "round", "sign"}


def check(case: OpCase, seed: int) -> None:
    """Check the gradient beside the case's operands: no two floats alike, none where a derivative jumps."""
    rng = np.random.default_rng(seed)
    operands = [
        array + rng.uniform(0.01, 0.04, array.shape) if array.dtype.kind == "f" else array for array in case.arrays
    ]
    results = case.op.infer(tuple(map(type_of, operands)))
    assume(not any(type.is_float and type.dtype != "float64" for type in results))
    check_gradient(case.op, *operands, seed=seed)


@pytest.mark.parametrize("cls", WITH_RULE, ids=lambda cls: cls.op_name)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_every_rule_matches_differences(cls: type[Op], data: st.DataObject, seed: int) -> None:
    case = data.draw(op_cases(cls))
    try:
        check(case, seed)
    except AssertionError:  # a difference may reach over a jump, but not over another one at other numbers
        check(case, seed + 1)


def with_mistake(cls: type[Op], operand: int) -> Callable[..., Any]:
    """The rule of `cls` with a thousandth too much in the gradient by one operand."""
    rule = cls.vjp

    def vjp(self: Op, b: Builder, xs: Any, ys: Any, dys: Any) -> Any:
        found = list(rule(self, b, xs, ys, dys))
        dx = found[operand] if operand < len(found) else None
        if dx is not None:
            found[operand] = b(Mul(), dx, b.constant(np.asarray(1.001, dx.type.dtype)))
        return tuple(found)

    return vjp


def is_refused(case: OpCase) -> bool:
    """Whether the check finds a mistake."""
    try:
        check(case, 0)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize(
    ("cls", "operand"),
    [
        pytest.param(cls, operand, id=f"{cls.op_name}-{name}")
        for cls in WITH_RULE
        for operand, name in enumerate(cls.operands)
        if name not in WITHOUT_GRADIENT and cls.op_name not in FLAT
    ],
)
def test_a_small_mistake_in_a_rule_is_found(cls: type[Op], operand: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cls, "vjp", with_mistake(cls, operand))
    quick = settings(phases=[Phase.generate], max_examples=300, derandomize=True, database=None)
    try:
        find(op_cases(cls), is_refused, settings=quick)
    except NoSuchExample:
        pytest.fail("no drawn case shows the mistake")


def test_every_op_with_a_rule_is_drawn() -> None:
    assert set(WITH_RULE) <= set(CASES)
