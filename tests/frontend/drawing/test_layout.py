"""Layouts of drawn graphs: nothing overlaps, everything leads downwards."""

from itertools import combinations, pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kcompile.frontend.drawing.layout import Layout, layered


@st.composite
def graphs(draw: Any) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    count = draw(st.integers(1, 9))
    sizes = [(draw(st.integers(10, 200)), draw(st.integers(10, 90))) for _ in range(count)]
    pairs = list(combinations(range(count), 2))
    arrows = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    return sizes, arrows


@settings(max_examples=60)
@given(graphs())
def test_boxes_do_not_overlap_and_lie_within_the_picture(graph: Any) -> None:
    sizes, arrows = graph
    found = layered(sizes, arrows)
    for (x, y), (width, height) in zip(found.corners, sizes, strict=True):
        assert x >= -1e-6
        assert y >= -1e-6
        assert x + width <= found.size[0] + 1e-6
        assert y + height <= found.size[1] + 1e-6
    for i, j in combinations(range(len(sizes)), 2):
        (ax, ay), (bx, by) = found.corners[i], found.corners[j]
        apart = [ax + sizes[i][0] < bx, bx + sizes[j][0] < ax, ay + sizes[i][1] < by, by + sizes[j][1] < ay]
        assert any(apart)


@settings(max_examples=60)
@given(graphs())
def test_arrows_run_down_from_box_to_box_and_through_no_other(graph: Any) -> None:
    sizes, arrows = graph
    found = layered(sizes, arrows)
    for (start, end), route in zip(arrows, found.routes, strict=True):
        assert route[0][1] == found.corners[start][1] + sizes[start][1]
        assert route[-1][1] == found.corners[end][1]
        assert found.corners[end][0] < route[-1][0] < found.corners[end][0] + sizes[end][0]
        assert all(upper[1] <= lower[1] for upper, lower in pairwise(route))
        for upper, lower in pairwise(route):
            hit = [i for i in range(len(sizes)) if i not in (start, end) and _crosses(found, sizes, i, upper, lower)]
            assert not hit


def _crosses(found: Layout, sizes: Any, box: int, upper: Any, lower: Any) -> bool:
    (x, y), (width, height) = found.corners[box], sizes[box]
    beside = max(upper[0], lower[0]) < x or min(upper[0], lower[0]) > x + width
    return not (beside or lower[1] <= y + 1e-9 or upper[1] >= y + height - 1e-9)


def test_a_chain_is_a_straight_line() -> None:
    found = layered([(80, 20), (200, 40), (60, 20)], [(0, 1), (1, 2)])
    assert [x + width / 2 for (x, _), width in zip(found.corners, (80, 200, 60), strict=True)] == [100, 100, 100]


def test_arrows_that_need_not_cross_do_not() -> None:
    found = layered([(50, 20)] * 4, [(0, 3), (1, 2)])
    assert (found.corners[0][0] < found.corners[1][0]) == (found.corners[3][0] < found.corners[2][0])


def test_an_input_stands_right_above_what_reads_it() -> None:
    found = layered([(50, 20)] * 4, [(0, 1), (1, 3), (2, 3)])
    assert found.corners[2][1] == found.corners[1][1]
