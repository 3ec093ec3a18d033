"""The memory plan: what lives at one time does not overlap, and nothing lies beyond the end."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.codegen.tvm.arena import ALIGNMENT, THREADS, Arena, Interval, plan
from kcompile.ir import dims
from kcompile.ir.types import TensorType


@st.composite
def intervals(draw: st.DrawFn, extents: tuple[int | str, ...]) -> list[Interval]:
    """Arrays whose leading extents are among `extents`."""
    made: list[Interval] = []
    for _ in range(draw(st.integers(1, 14))):
        first = draw(st.integers(0, 9))
        shape = (draw(st.sampled_from(extents)), draw(st.integers(1, 40)))
        t = TensorType(draw(st.sampled_from(["float32", "int64", "bool"])), shape)
        made.append(Interval(t, first, draw(st.integers(first, 9)), draw(st.booleans()) and THREADS not in extents))
    return made


def ranges(arena: Arena, made: list[Interval], symbols: dict[str, int]) -> list[tuple[int, int]]:
    """First and last byte of each array, as the symbols' values make them."""
    starts = [0]
    for slot in arena.slots:
        starts.append(starts[-1] + max(int(dims.substitute(size, symbols)) for size in slot))
    result = []
    for interval, place in zip(made, arena.places, strict=True):
        begin = starts[place.slot] + int(dims.substitute(place.offset, symbols))
        size = int(dims.substitute(place.size, symbols)) * (symbols[THREADS] if interval.per_thread else 1)
        assert int(dims.substitute(interval.type.size, symbols)) * interval.type.itemsize <= size
        result.append((begin, begin + size))
    return result


def check(made: list[Interval], symbols: dict[str, int]) -> None:
    for shared in (False, True):
        check_places(made, symbols, plan(made, shared=shared))


def check_places(made: list[Interval], symbols: dict[str, int], arena: Arena) -> None:
    places = ranges(arena, made, symbols)
    assert all(begin % ALIGNMENT == 0 and end <= arena.bytes(symbols) for begin, end in places)
    for (a, (a_begin, a_end)), (b, (b_begin, b_end)) in combinations(zip(made, places, strict=True), 2):
        if a.first <= b.last and b.first <= a.last:
            assert a_end <= b_begin or b_end <= a_begin


@given(intervals((1, 3, 64)))
def test_arrays_of_known_sizes_do_not_overlap_while_both_live(made: list[Interval]):
    check(made, {THREADS: 3})


@given(intervals(("N", "4*N")), st.integers(0, 5))
def test_arrays_that_grow_with_the_batch_do_not_overlap(made: list[Interval], batch: int):
    check(made, {"N": batch, THREADS: 2})


@given(intervals((1, "N", "T", "T-2", "(T+1)//2")), st.integers(0, 5), st.integers(2, 40))
def test_arrays_of_several_open_extents_do_not_overlap(made: list[Interval], batch: int, length: int):
    check(made, {"N": batch, "T": length, THREADS: 2})


def test_arrays_that_do_not_meet_share_memory():
    made = [Interval(TensorType("float32", ("N", 100)), i, i + 1) for i in range(8)]
    assert plan(made).slots == (("896*N",),)


def test_arrays_that_threads_share_have_one_middle_where_they_have_one_memory():
    """Half of each is then written where half of the others was."""
    columns = [640, 64, 256, 1024, 128, 32]
    made = [Interval(TensorType("float32", ("N", n)), i, i + 1) for i, n in enumerate(columns)]
    arena = plan(made, shared=True)
    places = ranges(arena, made, {"N": 8, THREADS: 2})
    for (begin, end), (other_begin, other_end) in combinations(places, 2):
        if begin < other_end and other_begin < end:
            assert abs((begin + end) - (other_begin + other_end)) <= 8 * 2 * ALIGNMENT
    assert arena.bytes({"N": 8, THREADS: 2}) <= 1.2 * plan(made).bytes({"N": 8, THREADS: 2})


@pytest.mark.parametrize("extent", ["T", "T-2"])
def test_arrays_of_different_open_extents_share_slots(extent: str):
    shapes = [("N", "T", 16), ("N", extent, 16), ("N", 7), ("N", "T", 16), ("N", extent, 16)]
    made = [Interval(TensorType("float32", shape), i, i + 1) for i, shape in enumerate(shapes)]
    assert plan(made).bytes({"N": 2, "T": 10}) <= 2 * (2 * 10 * 16 * 4) + 2 * 64
