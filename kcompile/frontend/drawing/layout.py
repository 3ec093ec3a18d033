"""Where the boxes and arrows of a directed graph without cycles go: in layers (Sugiyama, Tagawa and Toda, 1981).

Boxes stand in ranks, each below those it reads. An arrow that passes ranks gets a lane in each of them, so that arrows
bend only in the gaps between ranks and never run through a box. Coordinates: x to the right, y down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Point = tuple[float, float]

_LANE = 10.0
_SWEEPS = 24
# How hard an arrow pulls its ends above one another: straight lanes matter most.
_PULL = {0: 1.0, 1: 1.0, 2: 8.0}


@dataclass(frozen=True)
class Layout:
    """The result.

    Attributes:
        corners: the upper left corner of each box.
        routes: for each arrow the points that it runs through, straight within a rank and bent in the gaps between:
            the first on the box it leaves, the last on the box it enters.
        size: width and height of the whole.
    """

    corners: list[Point]
    routes: list[list[Point]]
    size: Point


@dataclass
class _Slot:
    """A box, or the lane of an arrow through a rank."""

    width: float
    height: float
    box: int | None = None
    rank: int = 0
    x: float = 0.0
    above: list["_Slot"] = field(default_factory=list["_Slot"])
    below: list["_Slot"] = field(default_factory=list["_Slot"])
    place: int = 0


def layered(
    sizes: Sequence[Point], arrows: Sequence[tuple[int, int]], gap: float = 18.0, rank_gap: float = 26.0
) -> Layout:
    """Lay out boxes of `sizes`, each after those it reads.

    Args:
        arrows: pairs of boxes, the earlier one first.
        gap: between neighbours in a rank.
        rank_gap: between ranks.
    """
    boxes = [_Slot(width, height, i) for i, (width, height) in enumerate(sizes)]
    _assign_ranks(boxes, arrows)
    chains = [_chain(boxes[start], boxes[end]) for start, end in arrows]
    ranks: list[list[_Slot]] = [[] for _ in range(max((b.rank for b in boxes), default=-1) + 1)]
    for slot in [*boxes, *(slot for chain in chains for slot in chain[1:-1])]:
        ranks[slot.rank].append(slot)
    _order(ranks)
    _align(ranks, gap)
    tops: list[float] = []
    y = 0.0
    for rank in ranks:
        tops.append(y)
        y += max(slot.height for slot in rank) + rank_gap
    left = min((slot.x - slot.width / 2 for rank in ranks for slot in rank), default=0.0)
    right = max((slot.x + slot.width / 2 for rank in ranks for slot in rank), default=0.0)
    for rank in ranks:
        for slot in rank:
            slot.x -= left
    bottoms = [top + max(slot.height for slot in rank) for top, rank in zip(tops, ranks, strict=True)]
    middles = [(top + bottom) / 2 for top, bottom in zip(tops, bottoms, strict=True)]
    corners = [(box.x - box.width / 2, middles[box.rank] - box.height / 2) for box in boxes]
    routes = [_route(chain, tops, bottoms, middles) for chain in chains]
    return Layout(corners, routes, (right - left, max(y - rank_gap, 0.0)))


def _assign_ranks(boxes: Sequence[_Slot], arrows: Sequence[tuple[int, int]]) -> None:
    """Each box goes one rank below the lowest that it reads; one that reads none, right above its first reader."""
    readers: dict[int, list[int]] = {}
    reads = {end for _, end in arrows}
    for start, end in sorted(arrows, key=lambda arrow: arrow[1]):
        boxes[end].rank = max(boxes[end].rank, boxes[start].rank + 1)
        readers.setdefault(start, []).append(end)
    for i, box in enumerate(boxes):
        if i not in reads and i in readers:
            box.rank = min(boxes[reader].rank for reader in readers[i]) - 1


def _chain(start: _Slot, end: _Slot) -> list[_Slot]:
    """The slots that an arrow runs through, made and linked."""
    lanes = [_Slot(_LANE, 0.0, None, rank) for rank in range(start.rank + 1, end.rank)]
    chain = [start, *lanes, end]
    for upper, lower in pairwise(chain):
        upper.below.append(lower)
        lower.above.append(upper)
    return chain


# -- the order within ranks -------------------------------------------------------------------------------------------


def _order(ranks: list[list[_Slot]]) -> None:
    """Sort ranks by where their neighbours stand, up and down, and keep the order with the fewest crossings."""
    _number(ranks)
    best, fewest = [list(rank) for rank in ranks], _crossings(ranks)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for rank in ranks if down else reversed(ranks):
            rank.sort(key=lambda slot: _centre(slot, slot.above if down else slot.below))
            _number([rank])
        found = _crossings(ranks)
        if found < fewest:
            best, fewest = [list(rank) for rank in ranks], found
    ranks[:] = best
    _number(ranks)


def _number(ranks: Sequence[Sequence[_Slot]]) -> None:
    for rank in ranks:
        for place, slot in enumerate(rank):
            slot.place = place


def _centre(slot: _Slot, neighbours: Sequence[_Slot]) -> float:
    return sum(each.place for each in neighbours) / len(neighbours) if neighbours else float(slot.place)


def _crossings(ranks: Sequence[Sequence[_Slot]]) -> int:
    """The number of pairs of arrows that cross between neighbouring ranks."""
    count = 0
    for rank in ranks:
        ends = [lower.place for slot in rank for lower in sorted(slot.below, key=lambda each: each.place)]
        count += sum(first > second for i, first in enumerate(ends) for second in ends[i + 1 :])
    return count


# -- where in a rank --------------------------------------------------------------------------------------------------


def _align(ranks: Sequence[Sequence[_Slot]], gap: float) -> None:
    """Bring every slot as near to the middle of its neighbours as the others in its rank allow."""
    for rank in ranks:
        x = 0.0
        for slot in rank:
            slot.x = x + slot.width / 2
            x += slot.width + gap
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        for rank in ranks if down else reversed(ranks):
            # First the whole graph finds its width from one side, then all slots come to rest between their neighbours.
            one_sided = [slot.above if down else slot.below for slot in rank]
            both = [[*slot.above, *slot.below] for slot in rank]
            _settle(rank, gap, one_sided if sweep < _SWEEPS // 2 else both)


def _settle(rank: Sequence[_Slot], gap: float, neighbours: Sequence[Sequence[_Slot]]) -> None:
    """The places nearest to the wanted ones, by least squares, in order and without overlap.

    With the least distances taken off, the places must not fall: that is isotonic regression, which pooling neighbours
    that would fall solves (Ayer et al., 1955).
    """
    offsets = [0.0]
    for left, right in pairwise(rank):
        offsets.append(offsets[-1] + (left.width + right.width) / 2 + gap)
    pools: list[list[float]] = []  # mean, weight, members
    for slot, near, offset in zip(rank, neighbours, offsets, strict=True):
        wanted, weight = _wanted(slot, near)
        pools.append([wanted - offset, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, more, members = pools.pop()
            last = pools[-1]
            total = last[1] + more
            pools[-1] = [(last[0] * last[1] + mean * more) / total, total, last[2] + members]
    places = [mean for mean, _, members in pools for _ in range(int(members))]
    for slot, place, offset in zip(rank, places, offsets, strict=True):
        slot.x = place + offset


def _wanted(slot: _Slot, near: Sequence[_Slot]) -> tuple[float, float]:
    """Where a slot would like to stand, and how much."""
    if not near:
        return slot.x, 0.1
    pulls = [_PULL[(slot.box is None) + (each.box is None)] for each in near]
    return sum(p * each.x for p, each in zip(pulls, near, strict=True)) / sum(pulls), sum(pulls)


# -- arrows -----------------------------------------------------------------------------------------------------------


def _route(chain: list[_Slot], tops: list[float], bottoms: list[float], middles: list[float]) -> list[Point]:
    start, *lanes, end = chain
    x = end.x + _entry(end, chain[-2])
    points = [(start.x, middles[start.rank] + start.height / 2), (start.x, bottoms[start.rank])]
    for lane in lanes:
        points += [(lane.x, tops[lane.rank]), (lane.x, bottoms[lane.rank])]
    return [*points, (x, tops[end.rank]), (x, middles[end.rank] - end.height / 2)]


def _entry(box: _Slot, comes_from: _Slot) -> float:
    """How far from the middle of a box an arrow enters it: several stand side by side, in the order they come from."""
    ordered = sorted(box.above, key=lambda slot: slot.x)
    place = next(i for i, slot in enumerate(ordered) if slot is comes_from)
    step = min(12.0, box.width * 0.6 / max(len(ordered) - 1, 1))
    return (place - (len(ordered) - 1) / 2) * step
