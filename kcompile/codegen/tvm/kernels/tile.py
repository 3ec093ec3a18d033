"""Register tiles: products of a few rows of x with a panel of packed weights, summed in registers.

A tile has R rows (pixels, samples) and C columns (filters); every step along the sum takes one element of each row and
one row of the panel, so R + C loads serve R · C multiplications.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kcompile.codegen.tvm.arrays import Accumulators, Pointer
from kcompile.codegen.tvm.epilogue import Epilogue
from kcompile.codegen.tvm.expr import Expr, Index, constant, index, index_max, index_min
from kcompile.codegen.tvm.kernels.shares import Costs
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function, split
from kcompile.ir.types import Array

# Multiply-adds that must be under way at once to hide their latency.
_IN_FLIGHT = 8
# Rows whose distance is a multiple of this share the few lines of a set of the first-level cache.
_CACHE_STRIDE = 4096
_CACHE_WAYS = 12
_MOST_ROWS = 28
# Without vectors: the most columns of a tile, and the instructions that a step of the loop takes beside its work.
_MOST_SCALARS = 12
_LOOP = 0.75
# Vectors per row of compact code, the best first, for as many weights as make the longer code count for little.
_COMPACT_VECTORS = (4, 5, 3, 2)
_COMPACT_WEIGHTS = 1024
# Elements of float32 in a cache line.
LINE = 16
# Lines of a panel between the one that a single row uses and the one that is fetched.
_LINES_AHEAD = 64
# Bytes of weights from which they are fetched ahead: by tiles of several rows, which have time for it, and by single
# rows, which only gain by it if the weights do not stay in the second-level cache.
_FETCHED = 32_768
_STREAMED = 400_000
# Terms of a sum that are added one after another, and from how many on sums are split; the former in compact code.
_CHUNK = 96
_LONG = 128
_COMPACT_CHUNK = 384
# Rows of a tile in the rest of an open extent.
_REST_ROWS = 4


@dataclass(frozen=True)
class Block:
    """The columns of a panel: its width and the widths of its vectors."""

    columns: int
    widths: tuple[int, ...]

    @property
    def starts(self) -> list[int]:
        """The first column of each vector."""
        return [sum(self.widths[:i]) for i in range(len(self.widths))]


def block(columns: int, lanes: int) -> Block:
    """The columns as vectors of at most `lanes` elements."""
    return Block(columns, tuple(split(columns, lanes)))


@dataclass(frozen=True)
class Panels:
    """`full` panels of columns as wide as `wide`, and one as wide as `narrow` if that has columns."""

    full: int
    wide: Block
    narrow: Block

    @property
    def count(self) -> int:
        """The number of panels."""
        return self.full + (1 if self.narrow.columns else 0)

    def costs(self, periods: Index, units: Index) -> Costs:
        """Of `units` of each panel, one panel after another, `periods` times.

        A step of a tile costs as its vectors of columns, and the loading of its rows as one more.
        """
        wide, narrow = (1 + len(panel.widths) for panel in (self.wide, self.narrow))
        return Costs(periods, self.full * units, wide, units if self.narrow.columns else 0, narrow)

    def all(self, f: Function) -> Iterator[tuple[Index, Block]]:
        """Every panel; the body is written once per width."""
        if self.full:
            with f.loop(self.full) as panel:
                yield panel, self.wide
        if self.narrow.columns:
            yield self.full, self.narrow

    def between(self, f: Function, first: Index, end: Index) -> Iterator[tuple[Index, Block]]:
        """The panels from number `first` on and before `end`; the body is written once per width."""
        if isinstance(first, int) and isinstance(end, int):
            yield from self.all(f)
            return
        if self.full:
            with f.loop(f.variable(index_max(index_min(end, self.full) - first, 0))) as i:
                yield f.variable(first + i), self.wide
        if self.narrow.columns:
            with f.when(index(end) > self.full):
                yield self.full, self.narrow

    def one(self, f: Function, panel: Index) -> Iterator[Block]:
        """The panel numbered `panel`; the body is written once per width."""
        if self.full:
            with f.when(index(panel) < self.full):
                yield self.wide
        if self.narrow.columns:
            with f.when(index(panel).equals(self.full)):
                yield self.narrow


def row_pieces(f: Function, tile: Index, rows: Index, size: int) -> Iterator[tuple[Index, int]]:
    """``(start, length)`` of the pieces of the row tile numbered `tile`: one of `size` rows, or those of the rest."""
    full, rest = rows // size, rows % size
    if full != 0:
        with f.when(index(tile) < full):
            yield tile * size, size
    if rest != 0:
        with f.when(index(tile).equals(full)):
            first = f.name_index(tile * size)
            for start, count in f.tiles(f.name_index(rest), _REST_ROWS if isinstance(rest, Expr) else rest):
                yield first + start, count


def sum_dtype(dtype: str) -> str:
    """The dtype that products of `dtype` are summed in."""
    return "float32" if dtype == "float16" else dtype


def choose(
    machine: Machine,
    rows: int | None,
    columns: int,
    row_bytes: int = 0,
    length: int | None = None,
    chains: int = 1,
    rank: int = 0,
) -> tuple[int, int]:
    """The tile, as (rows, columns), of least modelled time for a product with `rows` (None: many) and `columns`.

    Rows lie `row_bytes` apart; `length` elements of each are multiplied with known weights, if it is given. Each sum
    takes `chains` registers. With `rank`, that many tiles of other widths are better, if there are as many.

    The model counts cycles per step of the sum: two multiply-adds, or two loads, at a time; on a machine without
    vectors one instruction. Compact code has one row, and one vector or, where there are many weights, panels that are
    all of one width, if they can be.
    """
    if machine.compact:
        fitting = (n for n in _COMPACT_VECTORS if columns % (n * machine.lanes) == 0)
        vectors = 1 if length is not None and length * columns < _COMPACT_WEIGHTS else next(fitting, 1)
        return 1, min(vectors * machine.lanes, max(columns, 1))
    most = _CACHE_WAYS if row_bytes and row_bytes % _CACHE_STRIDE == 0 else _MOST_ROWS
    found: list[tuple[float, int, int]] = []
    for vectors in range(1, 5 if machine.lanes > 1 else _MOST_SCALARS + 1):
        width = vectors * machine.lanes
        if vectors > 1 and width > columns + machine.lanes - 1:
            continue
        counts = range(1, min(most, (machine.registers - vectors - 1) // (vectors * chains), rows or most) + 1)
        # Times are rounded, so that the first of equal ones is taken.
        times = [(round(_time(machine, rows or 10**6, columns, n, vectors, chains), 6), n) for n in counts]
        found += [(*min(times), min(width, columns))] if times else []
    ordered = sorted(found, key=lambda tile: tile[0])
    return ordered[min(rank, len(ordered) - 1)][1:]


def _time(machine: Machine, rows: int, columns: int, tile_rows: int, vectors: int, chains: int) -> float:
    blocks, narrow = divmod(columns, vectors * machine.lanes)
    narrow_vectors = len(split(narrow, machine.lanes))

    def step(count: int, wide: int) -> float:
        if machine.lanes == 1:
            return count * wide + count + wide + _LOOP
        return max(count * wide / 2, (count + wide) / 2 * 1.05, 4.0 / chains) + 0.15

    def across(count: int) -> float:
        return blocks * step(count, vectors) + (step(count, narrow_vectors) if narrow else 0.0)

    tiles, rest = divmod(rows, tile_rows)
    return tiles * across(tile_rows) + (across(rest) if rest else 0.0)


def pack(matrix: Array, columns: int) -> Array:
    """``[K, M]`` as panels one after another: ``[M / columns][K][columns]``, the last one as narrow as it is."""
    panels = [matrix[:, start : start + columns].ravel() for start in range(0, matrix.shape[1], columns)]
    return np.concatenate(panels) if panels else np.zeros(0, matrix.dtype)


@dataclass(frozen=True)
class Rows:
    """Rows of x from the offset `at` on: elements to sum over are `along` apart, rows `between`."""

    pointer: Pointer
    at: Index
    between: Index
    along: Index = 1


@dataclass(frozen=True)
class Panel:
    """A block of columns of the weights from the offset `at` on, whose lines are `line` apart.

    Every step of several rows also fetches one cache line of the weights that come next, from the offset `ahead` on;
    a single row fetches its own panel's if the weights are `streamed`. And every step fetches one of `upcoming`, an
    array and an offset in it, if given.
    """

    pointer: Pointer
    at: Index
    line: Index
    ahead: Index | None = None
    streamed: bool = False
    upcoming: tuple[Pointer, Index] | None = None


def ahead(tile: Index, length: int, size: int, count: int, at: Index) -> Index | None:
    """Where the tile numbered `tile` of a panel, which begins at `at`, starts to fetch the next panel.

    A panel has `length` lines; the weights have `count` panels of `size` elements. The last panel fetches what lies
    behind it, which is as a rule what the next kernel reads.
    """
    return at + size + tile * (length * LINE) if 4 * size * count >= _FETCHED else None


def streamed(size: int, count: int) -> bool:
    """Whether the weights, `count` panels of `size` elements, are too many for the second-level cache."""
    return 4 * size * count >= _STREAMED


class Tile:
    """Accumulators for `rows` rows of a block of columns.

    Long sums, of `terms` terms, are made in chunks, whose sums are added up on the stack: rounding errors then grow
    with the terms of a chunk and their number, not with their product. `once` says that one `multiply` adds all. Every
    sum is made of at least `chains` parts, but in compact code.
    """

    def __init__(
        self, f: Function, rows: int, columns: Block, dtype: str, terms: Index, *, once: bool = True, chains: int = 1
    ) -> None:
        self._f = f
        self._rows = rows
        self._block = columns
        self._dtype = sum_dtype(dtype)
        vectors = rows * len(columns.widths)
        # Few accumulators would wait for each other: the sum is then split into several chains.
        self._chains = 1 if f.machine.compact else max(chains, _IN_FLIGHT // vectors)
        self._sums: list[Accumulators] = [
            f.accumulators(rows * self._chains, width, self._dtype) for width in columns.widths
        ]
        self._chunk, least = (_CHUNK, _LONG) if f.machine.threaded else (_COMPACT_CHUNK, _COMPACT_CHUNK + 1)
        self._chunk *= self._chains
        known = isinstance(terms, int)
        long = terms >= least * self._chains if known else f.machine.threaded
        self._totals = f.stack(rows * columns.columns, self._dtype) if long and self._dtype != "int32" else None
        # Of a known number of chunks, the last one's sums stay in registers; of two, no other totals are needed.
        self._chunks = -(-terms // self._chunk) if known and once and f.machine.threaded else 0

    def start(self, bias: Pointer | None, offset: Index) -> None:
        """Set the sums to the bias, or to 0."""
        parked = self._totals is not None and self._chunks != 2
        for sums, first, width in zip(self._sums, self._block.starts, self._block.widths, strict=True):
            zero = constant(0, self._dtype, width)
            value = bias.load(offset + first, width).cast(self._dtype) if bias else zero
            for row in range(self._rows):
                if self._totals and parked:
                    self._totals.store(row * self._block.columns + first, value)
                for chain in range(self._chains):
                    sums[row * self._chains + chain] = zero if chain or parked else value

    def multiply(self, x: Rows, weights: Panel, length: Index, rows: Sequence[int] | None = None) -> None:
        """Add the products of the first `length` elements of `rows` of x with as many lines of the panel."""
        f, rows = self._f, range(self._rows) if rows is None else rows
        if not self._totals:
            self._add(x, weights, 0, length, rows)
        elif self._chunks:
            assert isinstance(length, int)
            size = -(-length // self._chunks)
            with f.loop(self._chunks - 1) as chunk:
                self._add(x, weights, f.name_index(chunk * size), size, rows)
                self._park(rows, first=self._chunks == 2)
            self._add(x, weights, size * (self._chunks - 1), length - size * (self._chunks - 1), rows)
        elif isinstance(length, int) and length:
            fewest = -(-length // self._chunk)
            # Chunks of one length are one loop, where that counts.
            even = (n for n in range(fewest, 4 * fewest) if length % n == 0)
            for begin, count in f.tiles(length, -(-length // (next(even, fewest) if f.machine.compact else fewest))):
                self._add(x, weights, begin, count, rows)
                self._park(rows)
        else:
            with f.loop((length + (self._chunk - 1)) // self._chunk) as chunk:
                begin = f.name_index(chunk * self._chunk)
                self._add(x, weights, begin, f.name_index(index_min(length - begin, self._chunk)), rows)
                self._park(rows)

    def _park(self, rows: Sequence[int], first: bool = False) -> None:
        """Add the sums to the totals, which have nothing yet at `first`, and start anew."""
        assert self._totals
        for row in rows:
            for total, place, width in zip(self._chained(row), self._places(row), self._block.widths, strict=True):
                value = total if first else self._f.let(self._totals.load(place, width) + total)
                self._totals.store(place, value)
        for sums in self._sums:
            for i in (row * self._chains + chain for row in rows for chain in range(self._chains)):
                sums[i] = constant(0, self._dtype)

    def _places(self, row: int) -> list[int]:
        """Where the totals of each vector of a row lie."""
        return [row * self._block.columns + first for first in self._block.starts]

    def _add(self, x: Rows, weights: Panel, begin: Index, count: Index, rows: Sequence[int]) -> None:
        """Add `count` products from number `begin` on to the sums."""
        f, chains = self._f, min(self._chains, count) if isinstance(count, int) else self._chains
        with f.loop(count // max(chains, 1)) as k:
            for chain in range(chains):
                self._step(x, weights, begin + k * chains + chain, rows, chain)
        done = f.name_index(count - count % max(chains, 1))
        with f.loop(count - done) as k:
            self._step(x, weights, begin + done + k, rows, 0)

    def _step(self, x: Rows, weights: Panel, k: Index, rows: Sequence[int], chain: int) -> None:
        f, block = self._f, self._block
        line = f.name_index(weights.at + k * weights.line)
        if weights.streamed and self._rows == 1:
            for first in block.starts:  # a single row waits for nothing but the weights
                weights.pointer.prefetch(line + (first + _LINES_AHEAD * block.columns))
        elif weights.ahead is not None and self._rows > 1:
            weights.pointer.prefetch(weights.ahead + k * LINE)
        if weights.upcoming is not None:
            weights.upcoming[0].prefetch(weights.upcoming[1] + k * LINE)
        loaded = [
            f.let(weights.pointer.load(line + first, width).cast(self._dtype))
            for first, width in zip(block.starts, block.widths, strict=True)
        ]
        at = f.name_index(x.at + k * x.along)
        for row in rows:
            element = f.let(x.pointer.load(at + row * x.between).cast(self._dtype))
            for sums, weight in zip(self._sums, loaded, strict=True):
                sums.add(row * self._chains + chain, weight * element)

    def store(
        self, y: Pointer, at: Index, step: Index, epilogue: Epilogue, position: Callable[[Index, Index], list[Index]]
    ) -> None:
        """Store the sums, after the epilogue, at ``at + row * step``; `position` says where (row, column) stands."""
        if not epilogue.costly or self._rows == 1:
            for row in range(self._rows):
                for total, first in zip(self._results(row), self._block.starts, strict=True):
                    y.store(at + row * step + first, epilogue(total, position(row, first)))
            return
        columns = self._block.columns
        parked = self._f.stack(self._rows * columns, self._dtype)
        for row in range(self._rows):
            for total, first in zip(self._results(row), self._block.starts, strict=True):
                parked.store(row * columns + first, total)
        with self._f.loop(self._rows) as row:
            for first, width in zip(self._block.starts, self._block.widths, strict=True):
                value = parked.load(row * columns + first, width)
                y.store(at + row * step + first, epilogue(value, position(row, first)))

    def _results(self, row: int) -> list[Expr]:
        """The sum of each vector."""
        sums = self._chained(row)
        if not self._totals:
            return sums
        pairs = zip(self._places(row), self._block.widths, strict=True)
        totals = [self._totals.load(place, width) for place, width in pairs]
        return [self._f.let(x + y) for x, y in zip(totals, sums, strict=True)] if self._chunks else totals

    def _chained(self, row: int) -> list[Expr]:
        """What the registers hold of each vector, its chains added in pairs."""
        totals: list[Expr] = []
        for sums in self._sums:
            parts = [sums[row * self._chains + chain] for chain in range(self._chains)]
            while len(parts) > 1:
                pairs = [self._f.let(a + b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
                parts = pairs + parts[len(pairs) * 2 :]
            totals.append(parts[0])
        return totals
