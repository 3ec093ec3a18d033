"""The arithmetic of layouts against numpy's transpose and reshape."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.ir.graph import Builder
from kcompile.ir.op import OPS, Elementwise, Op
from kcompile.ir.ops import Concat
from kcompile.ir.ops.conv import DataFormat
from kcompile.ir.passes.permute import (
    between,
    channels_first,
    composed,
    data_operands,
    flat_order,
    identity,
    is_free,
    permuted,
    reshaped,
    result_form,
    swapped,
)
from kcompile.ir.types import type_of
from tests.strategies import OpCase, op_cases
from tests.tolerances import KERNEL, assert_close


@st.composite
def forms_and_reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A shape, another of as many elements, and an order of the first one's axes."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=5))

    def grouped() -> tuple[int, ...]:
        cuts = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=4)))
        bounds = zip([0, *cuts], [*cuts, len(factors)], strict=True)
        return tuple(math.prod(factors[start:stop]) for start, stop in bounds)

    source, target = grouped(), grouped()
    return source, target, tuple(draw(st.permutations(range(len(source)))))


@given(forms_and_reshapes())
def test_a_reshape_of_a_form_is_a_form_of_the_reshape(drawn: tuple[tuple[int, ...], ...]) -> None:
    source, target, perm = drawn
    x = np.arange(math.prod(source)).reshape(source)
    result = reshaped(source, target, perm)
    if result is not None:
        expected = x.reshape(target).transpose(result)
        np.testing.assert_array_equal(x.transpose(perm).reshape(expected.shape), expected)
    if perm == identity(len(source)):
        assert result == identity(len(target))


@given(forms_and_reshapes())
def test_flattening_a_form_gives_the_stated_order(drawn: tuple[tuple[int, ...], ...]) -> None:
    source, target, perm = drawn
    x = np.arange(math.prod(source)).reshape(source)
    order = flat_order(source, target, perm)
    if order is not None:
        np.testing.assert_array_equal(x.transpose(perm).reshape(target), x.reshape(target)[..., order])


def test_flattening_channels_first_images_is_known() -> None:
    order = flat_order(("N", 2, 2, 3), ("N", 12), channels_first(4))
    assert order is not None
    assert order.tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_forms_are_converted_and_composed_like_transposes(first: list[int], second: list[int]) -> None:
    old, new = tuple(first), tuple(second)
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(x.transpose(old).transpose(between(old, new)), x.transpose(new))
    np.testing.assert_array_equal(x.transpose(old).transpose(new), x.transpose(composed(new, old)))


@given(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=4), st.data())
def test_free_conversions_keep_the_order_of_elements(shape: list[int], data: st.DataObject) -> None:
    old, new = (tuple(data.draw(st.permutations(range(len(shape))))) for _ in range(2))
    x = np.arange(math.prod(shape)).reshape(shape)
    same = x.transpose(old).ravel().tolist() == x.transpose(new).ravel().tolist()
    assert is_free(type_of(x), old, new) == same


@pytest.mark.parametrize("cls", OPS.values(), ids=OPS)
def test_an_op_in_another_form_computes_the_same(cls: type[Op]) -> None:
    @given(op_cases(cls), st.data())
    def check(case: OpCase, data: st.DataObject) -> None:
        if not case.arrays:
            return
        b = Builder()
        (node,) = {v.producer for v in b.multi(case.op, *(b.constant(array) for array in case.arrays))}
        assert node is not None
        rank = max(case.arrays[i].ndim for i in data_operands(node))
        target: DataFormat = data.draw(st.sampled_from(["channels_first", "channels_last"]))
        perm = data.draw(
            st.sampled_from([*[swapped(rank, target)] * (rank > 2), tuple(data.draw(st.permutations(range(rank))))])
        )
        op = permuted(node, perm, target)
        if op is None:
            return
        arrays = list(case.arrays)
        for i in data_operands(node):
            wide = arrays[i].reshape((1,) * (rank - arrays[i].ndim) + arrays[i].shape)
            arrays[i] = wide.transpose(perm)
        if cls.op_name == "dense" and op.op_name == "conv":
            arrays[1] = arrays[1].reshape((1,) * (rank - 2) + arrays[1].shape)
        assert isinstance(op, Elementwise | Concat) or len(data_operands(node)) == 1
        assert getattr(op, "data_format", target) == target or cls.op_name.endswith("gradient")
        with np.errstate(all="ignore"):
            found, expected = (np.asarray(o.kernel(a)[0]) for o, a in ((op, tuple(arrays)), (case.op, case.arrays)))
        assert_close(found, expected.transpose(result_form(node, perm)), KERNEL["float64"], terms=64)

    check()


def test_axes_that_a_reshape_merges_must_stand_in_order() -> None:
    assert reshaped((2, 3, 5), (30,), (0, 2, 1)) is None
    assert reshaped((7, 2, 3, 5), (7, 30), (1, 2, 3, 0)) == (1, 0)
