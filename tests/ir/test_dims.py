"""Extents are polynomials: equal ones are equal texts, and texts compute what they say."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.errors import GraphError
from kcompile.ir import dims
from kcompile.ir.dims import Dim

# An extent together with the function of N and T that it stands for.
Pair = tuple[Dim, Callable[[int, int], int]]

_LEAVES: list[Pair] = [("N", lambda n, t: n), ("T", lambda n, t: t)]


def _combined(pairs: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def add(a: Pair, b: Pair) -> Pair:
        return dims.add(a[0], b[0]), lambda n, t: a[1](n, t) + b[1](n, t)

    def sub(a: Pair, b: Pair) -> Pair:
        return dims.sub(a[0], b[0]), lambda n, t: a[1](n, t) - b[1](n, t)

    def mul(a: Pair, b: Pair) -> Pair:
        return dims.mul(a[0], b[0]), lambda n, t: a[1](n, t) * b[1](n, t)

    def floor_div(a: Pair, divisor: int) -> Pair:
        return dims.floor_div(a[0], divisor), lambda n, t: a[1](n, t) // divisor

    def ceil_div(a: Pair, divisor: int) -> Pair:
        return dims.ceil_div(a[0], divisor), lambda n, t: -(-a[1](n, t) // divisor)

    divisors = st.integers(1, 4)
    return st.one_of(
        *(st.builds(op, pairs, pairs) for op in (add, sub, mul)),
        *(st.builds(op, pairs, divisors) for op in (floor_div, ceil_div)),
    )


numbers = st.integers(-5, 9).map(lambda value: (value, lambda n, t: value))
expressions = st.recursive(st.sampled_from(_LEAVES) | numbers, _combined, max_leaves=8)


@given(expressions, st.integers(0, 7), st.integers(0, 7))
def test_an_extent_has_the_value_of_its_arithmetic(pair: Pair, n: int, t: int) -> None:
    dim, function = pair
    assert dims.substitute(dim, {"N": n, "T": t}) == function(n, t)


@given(expressions, st.integers(0, 7), st.integers(0, 7))
def test_symbols_may_be_bound_one_after_the_other(pair: Pair, n: int, t: int) -> None:
    halfway = dims.substitute(pair[0], {"N": n})
    assert dims.symbols(halfway) <= {"T"}
    assert dims.substitute(halfway, {"T": t}) == pair[1](n, t)


@given(expressions)
def test_the_text_of_an_extent_is_canonical(pair: Pair) -> None:
    assert dims.canonical(str(pair[0])) == pair[0]


@given(expressions, expressions, expressions)
def test_equal_sums_and_products_are_equal_texts(a: Pair, b: Pair, c: Pair) -> None:
    x, y, z = a[0], b[0], c[0]
    for order in itertools.permutations((x, y, z)):
        assert dims.add(*order) == dims.add(x, y, z)
        assert dims.mul(*order) == dims.mul(x, y, z)
    assert dims.mul(x, dims.add(y, z)) == dims.add(dims.mul(x, y), dims.mul(x, z))
    assert dims.sub(dims.add(x, y), y) == x


@given(expressions, st.sampled_from([1, 3, "N", "T", "2*N", "N*T"]))
def test_exact_division_undoes_a_product(pair: Pair, divisor: Dim) -> None:
    product = dims.mul(pair[0], divisor)
    assert dims.exact_div(product, divisor) == pair[0]


@given(expressions, st.sampled_from([2, 3, "N", "N*T", "N+1"]), st.integers(1, 7), st.integers(1, 7))
def test_exact_division_has_no_remainder(pair: Pair, divisor: Dim, n: int, t: int) -> None:
    quotient = dims.exact_div(pair[0], divisor)
    if quotient is not None:
        values = [dims.substitute(dim, {"N": n, "T": t}) for dim in (quotient, divisor)]
        assert dims.mul(*values) == pair[1](n, t)


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (dims.add("T", -2), "T-2"),
        (dims.ceil_div("T", 2), "(T+1)//2"),
        (dims.floor_div("T", 2), "T//2"),
        (dims.mul("N", 64), "64*N"),
        (dims.floor_div(dims.mul("N", 4), 2), "2*N"),
        (dims.floor_div(dims.add(dims.mul("T", 2), 1), 2), "T"),
        (dims.floor_div(dims.add(dims.floor_div(dims.add("T", -2), 2), -2), 2), "(T+2)//4-2"),
        (dims.sub("N", "N"), 0),
        (dims.mul(), 1),
        (dims.sub(0, dims.floor_div("T", 2)), "-(T//2)"),
    ],
)
def test_extents_print_as_one_would_write_them(dim: Dim, text: Dim) -> None:
    assert dim == text


@pytest.mark.parametrize(
    "text", ["", "N+", "f(N)", "N**2", "N//0", "N//T", "True", "N.x", "1.5", "(" * 300, "N" * 3000]
)
def test_text_that_is_no_extent_is_refused(text: str) -> None:
    with pytest.raises(GraphError, match="an extent must be an integer or an expression of symbols"):
        dims.canonical(text)
