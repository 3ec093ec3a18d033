"""Where intermediate results lie in the one arena of a model.

Sizes may hold symbols, whose values are known only at run time. Arrays whose sizes are multiples of one expression (the
batch, as a rule) are packed by lifetime as if the expression were 1, and every offset is a multiple of it. Where a
model mixes more than two such expressions, arrays share slots, each as large as its largest member turns out to be.

A model that maps the rows of its batch one by one runs on slices of so many rows that their arrays stay in the caches,
and the arena holds one slice, or one per thread.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.types import TensorType

ALIGNMENT = 64

# The symbol that stands for the number of threads in the size of an array that each thread has for itself.
THREADS = "threads"

# Bytes of intermediate results that stay in the caches: what a core has of the last level, as a rule.
CACHED = 4 << 20
# The most rows of a slice, as a power of two.
MOST_ROWS = 20

# Bytes of them, for one row, up to which a little more costs nothing: they stay in the second-level cache, or nearly.
_NEAR = 2 << 20

# What symbols are taken for where slots are shared: only a guess at which arrays are of like size.
_NOMINAL = 64


@dataclass(frozen=True)
class Interval:
    """An array that is in use from stage `first` to stage `last`."""

    type: TensorType
    first: int
    last: int
    per_thread: bool = False


@dataclass(frozen=True)
class Place:
    """An array's place: `offset` bytes into a slot, and its size in bytes (of one thread's part)."""

    slot: int
    offset: Dim
    size: Dim


@dataclass(frozen=True)
class Arena:
    """Slots one after another, each as many bytes as the largest of its members.

    `batch` is the symbol whose rows may be computed in slices.
    """

    slots: tuple[tuple[Dim, ...], ...]
    places: tuple[Place, ...]
    batch: str | None = None

    def bytes(self, symbols: Mapping[str, int]) -> int:
        """What a run takes for the symbols' values (with `THREADS`).

        From a slice per thread on, each thread has an arena of its own, else all share one.
        """
        if self.batch is None:
            return self._sum(symbols)
        rows, most, threads = symbols[self.batch], self.rows(symbols), symbols[THREADS]
        held = {**symbols, self.batch: min(rows, most)}
        return threads * self._sum({**held, THREADS: 1}) if rows > most * (threads - 1) else self._sum(held)

    def rows(self, symbols: Mapping[str, int]) -> int:
        """The most rows of a slice: the largest power of two that `CACHED` bytes are enough for."""
        assert self.batch is not None
        one, none = (self._sum({**symbols, self.batch: rows, THREADS: 1}) for rows in (1, 0))
        return 1 << max(power for power in range(MOST_ROWS + 1) if power == 0 or (one - none) << power <= CACHED)

    def text(self) -> Dim:
        """`bytes` as an expression of Python; where open lengths decide on the rows of a slice, of `rows`, too."""
        if all(len(slot) == 1 for slot in self.slots):
            shared: Dim = dims.add(*(slot[0] for slot in self.slots))
        else:
            shared = " + ".join(f"max({', '.join(map(str, slot))})" for slot in self.slots)
        if self.batch is None or isinstance(shared, int):
            return shared
        known = dims.symbols(*(size for slot in self.slots for size in slot)) <= {self.batch, THREADS}
        rows = self.rows({self.batch: 0}) if known else "rows"
        shared = re.sub(rf"\b{self.batch}\b", f"min({self.batch}, {rows})", str(shared))
        own = re.sub(rf"\b{THREADS}\b", "1", shared)
        return f"{THREADS}*({own}) if {self.batch} > {rows}*({THREADS}-1) else {shared}"

    def _sum(self, symbols: Mapping[str, int]) -> int:
        return sum(max(int(dims.substitute(size, symbols)) for size in slot) for slot in self.slots)


def plan(intervals: Sequence[Interval], alignment: int = ALIGNMENT, shared: bool = False) -> Arena:
    """A place for every interval; those that overlap in time do not overlap in space.

    Where threads share the work (`shared`), arrays that stay in the caches have the same middle where they have the
    same memory, of which they need a little more: a thread that computes one half of every array then writes where it
    wrote before, not where another core has written.
    """
    sizes = [_size(interval, alignment) for interval in intervals]
    units = sorted({unit for _, unit in sizes}, key=str)
    if len(units) > 2:
        return _slots(intervals, sizes)
    places: dict[int, Place] = {}
    slots: list[tuple[Dim, ...]] = []
    for slot, unit in enumerate(units):
        members = [i for i, (_, u) in enumerate(sizes) if u == unit]
        items = [(intervals[i], sizes[i][0]) for i in members]
        offsets, peak = _pack(items)
        if shared and THREADS not in dims.symbols(unit) and peak <= _NEAR:
            offsets, peak = _centred(items, alignment)
        slots.append((dims.mul(peak, unit),))
        for i, offset in zip(members, offsets, strict=True):
            places[i] = Place(slot, dims.mul(offset, unit), _own_size(intervals[i], *sizes[i]))
    return Arena(tuple(slots), tuple(places[i] for i in range(len(intervals))))


def _size(interval: Interval, alignment: int) -> tuple[int, Dim]:
    """The size in bytes as a multiple, rounded up to the alignment, of an expression."""
    factor: int = interval.type.itemsize
    unit: Dim = THREADS if interval.per_thread else 1
    for dim in interval.type.shape:
        if isinstance(dim, int):
            factor *= dim
        else:
            unit = dims.mul(unit, dim)
    for prime in (2, 3, 5, 7):
        while isinstance(unit, str) and (smaller := dims.exact_div(unit, prime)) is not None:
            factor, unit = factor * prime, smaller
    return -(-factor // alignment) * alignment, unit


def _own_size(interval: Interval, factor: int, unit: Dim) -> Dim:
    """The bytes between two threads' parts."""
    own = dims.exact_div(unit, THREADS) if interval.per_thread else unit
    return dims.mul(factor, 1 if own is None else own)


def _pack(items: Sequence[tuple[Interval, int]]) -> tuple[list[int], int]:
    """Offsets and the peak: the largest first, each at the lowest gap that is free during its life."""
    placed: list[tuple[int, int, Interval]] = []
    offsets = [0] * len(items)
    for i in sorted(range(len(items)), key=lambda i: (-items[i][1], items[i][0].first, i)):
        interval, size = items[i]
        offset = 0
        for begin, end, other in sorted(placed, key=lambda p: p[:2]):
            if _meet(other, interval):
                if begin - offset >= size:
                    break
                offset = max(offset, end)
        offsets[i] = offset
        placed.append((offset, offset + size, interval))
    return offsets, max((end for _, end, _ in placed), default=0)


def _centred(items: Sequence[tuple[Interval, int]], alignment: int) -> tuple[list[int], int]:
    """Offsets and the peak: tracks one after another, each as large as its largest array and with all in its middle.

    The largest array comes first, each into the smallest track that is free during its life.
    """
    tracks: list[list[int]] = []
    for i in sorted(range(len(items)), key=lambda i: (-items[i][1], items[i][0].first, i)):
        own = items[i][0]
        alive = (any(_meet(items[j][0], own) for j in track) for track in tracks)
        free = [track for track, taken in zip(tracks, alive, strict=True) if not taken]
        if free:
            free[-1].append(i)
        else:
            tracks.append([i])
    offsets, start = [0] * len(items), 0
    for track in tracks:
        size = items[track[0]][1]
        for i in track:
            offsets[i] = start + (size - items[i][1]) // (2 * alignment) * alignment
        start += size
    return offsets, start


def _meet(one: Interval, other: Interval) -> bool:
    """Whether both are in use at once."""
    return one.first <= other.last and other.first <= one.last


def _slots(intervals: Sequence[Interval], sizes: Sequence[tuple[int, Dim]]) -> Arena:
    """Each array, in order of its first use, in the free slot of the nearest size."""
    nominal = [factor * _guess(unit) for factor, unit in sizes]
    members: list[list[int]] = []
    slot_of: dict[int, int] = {}
    for i in sorted(range(len(intervals)), key=lambda i: (intervals[i].first, i)):
        free = [s for s, slot in enumerate(members) if all(intervals[j].last < intervals[i].first for j in slot)]
        near = [(abs(max(nominal[j] for j in members[s]) - nominal[i]), s) for s in free]
        slot = min(near)[1] if near else len(members)
        if slot == len(members):
            members.append([])
        members[slot].append(i)
        slot_of[i] = slot
    slots = tuple(tuple(dict.fromkeys(dims.mul(*sizes[i]) for i in slot)) for slot in members)
    places = tuple(Place(slot_of[i], 0, _own_size(intervals[i], *sizes[i])) for i in range(len(intervals)))
    return Arena(slots, places)


def _guess(unit: Dim) -> int:
    return int(dims.substitute(unit, dict.fromkeys(dims.symbols(unit), _NOMINAL)))
