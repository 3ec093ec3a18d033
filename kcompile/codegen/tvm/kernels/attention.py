"""Scaled dot-product attention.

A unit is a tile of queries of one head. Queries are the lanes: the scores of one key are a vector, so that softmax
needs no sum across lanes. Keys are taken in blocks whose scores stay in the first-level cache; maximum and sum are
corrected from block to block (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kcompile.codegen.tvm import math as polynomials
from kcompile.codegen.tvm.arrays import Accumulators, Pointer
from kcompile.codegen.tvm.compiler import tirx
from kcompile.codegen.tvm.epilogue import strides
from kcompile.codegen.tvm.expr import Expr, Index, constant, index, index_min, maximum, select
from kcompile.codegen.tvm.kernels.nest import dot, units
from kcompile.codegen.tvm.kernels.squares import transpose_block
from kcompile.codegen.tvm.kernels.unseen import times_zero
from kcompile.codegen.tvm.plan import TVM, Plan, Temporary
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.errors import UnsupportedOp
from kcompile.ir import ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Node
from kcompile.ir.ops.attention import MASKED_SCORE
from kcompile.ir.types import TensorType

# Scores of one block of keys, as a number of elements.
_BLOCK_SCORES = 4096
# Vectors of sums that are in registers at once.
_MOST_SUMS = 24


@dataclass(frozen=True)
class QueryTile:
    """`lanes` queries per vector, `vectors` of them; `rows` keys, or elements of a value, are summed at once.

    A block has at most `keys` keys.
    """

    lanes: int
    vectors: int
    rows: int
    keys: int

    @property
    def width(self) -> int:
        """Queries of the tile."""
        return self.lanes * self.vectors


def query_tile(machine: Machine, queries: Dim, keys: Dim) -> QueryTile:
    """A tile whose sums fit the registers, no wider than there are queries."""
    known = queries if isinstance(queries, int) else machine.lanes
    lanes = min(machine.lanes, 1 << (max(known, 1) - 1).bit_length())
    vectors = 2 if known >= 2 * lanes else 1
    rows = min(machine.registers - 4, _MOST_SUMS) // vectors
    block = _BLOCK_SCORES // (lanes * vectors) // rows * rows
    return QueryTile(lanes, vectors, rows, min(block, max(keys, 1)) if isinstance(keys, int) else block)


@dataclass(frozen=True)
class Attention(Kernel, family="attention"):
    """``softmax(scale * query @ key^T + masked) @ value`` for each head.

    Arguments: query ``[batch, queries, heads, depth]``, key ``[batch, keys, groups, depth]``, value
    ``[batch, keys, groups, value_depth]``, the mask ``bool[mask]`` if there is one, the result
    ``[batch, queries, heads, value_depth]``, the weights ``[batch, heads, queries, keys]`` if `weights`, and the
    scratch array of `scratch_size` elements per thread.
    """

    batch: Dim
    queries: Dim
    keys: Dim
    heads: int
    groups: int
    depth: int
    value_depth: int
    scale: float
    causal: bool
    mask: Shape | None
    weights: bool
    tile: QueryTile

    @property
    def parts(self) -> tuple[int, ...]:
        """Rows of a tile's width in the scratch array: queries, scores, masks, results, maxima, factors."""
        return (self.depth, self.tile.keys, self.tile.keys if self.mask is not None else 0, self.value_depth, 1, 1)

    @property
    def scratch_size(self) -> int:
        """Elements of the scratch array."""
        return sum(self.parts) * self.tile.width

    def build(self, f: Function) -> None:
        _Tile(f, self).write()


class _Tile:
    """The function under construction."""

    def __init__(self, f: Function, kernel: Attention) -> None:
        self.f = f
        self.k = kernel
        self.lanes, self.vectors, self.width = kernel.tile.lanes, kernel.tile.vectors, kernel.tile.width
        self.query, self.key, self.value = f.pointer("query"), f.pointer("key"), f.pointer("value")
        self.mask = f.pointer("mask", "bool") if kernel.mask else None
        self.y = f.pointer("y")
        self.weights = f.pointer("weights") if kernel.weights else None
        self.scratch = f.pointer("scratch")
        starts = [sum(kernel.parts[:i]) * self.width for i in range(len(kernel.parts))]
        self.at_query, self.at_scores, self.at_masks, self.at_result, self.at_maxima, self.at_factors = starts
        self.queries, self.keys = f.extent(kernel.queries), f.extent(kernel.keys)

    def write(self) -> None:
        """All tiles, shared by the threads."""
        f, k = self.f, self.k
        tiles = (self.queries + (self.width - 1)) // self.width
        with units(f, [f.extent(k.batch), k.heads, tiles]) as (n, head, tile):
            self.n, self.head = n, head
            self.first = f.name_index(tile * self.width)
            self.count = f.name_index(index_min(self.queries - self.first, self.width))
            group = f.name_index(head // (k.heads // k.groups))
            self.key_base = f.name_index((n * self.keys * k.groups + group) * k.depth)
            self.value_base = f.name_index((n * self.keys * k.groups + group) * k.value_depth)
            self._load_queries()
            seen = self._last_key()
            sums = self._each_block(seen)
            factors = [self._inverse(total) for total in sums]
            for v, factor in enumerate(factors):
                self.scratch.store(self.at_factors + v * self.lanes, factor)
            self._store_result(None if seen is self.keys else self._unseen(seen))
            if self.weights:
                self._normalize_weights()

    def _last_key(self) -> Index:
        """The number of keys that matter to the tile."""
        if self.k.causal and not self.mask and not self.weights:
            return self.f.name_index(index_min(self.keys, self.first + self.width))
        return self.keys

    def _unseen(self, seen: Index) -> Pointer:
        """What the values after the first `seen` add to each element of the results."""
        line = self.k.groups * self.k.value_depth
        first, count = self.f.name_index(self.value_base + seen * line), self.f.name_index(self.keys - seen)
        return times_zero(self.f, self.value, first, line, count, self.k.value_depth)

    def _inverse(self, total: Expr) -> Expr:
        # Without keys the sum is 0, and so is the result.
        return self.f.let(select(total.equals(0.0), 0.0, 1.0 / total))

    def _query_row(self, row: Index, depth: int) -> Index:
        place = (self.n * self.queries + self.first + row) * self.k.heads + self.head
        return self.f.name_index(place * depth)

    def _load_queries(self) -> None:
        """Scaled queries, one element of all queries after another; lanes without a query stay as they are."""
        # Powers of 2 are cheaper than those of e.
        scale = constant(self.k.scale * math.log2(math.e), "float32")
        transpose_block(
            self.f,
            self.count,
            self.k.depth,
            lambda row, d, lanes: self.query.load(self._query_row(row, self.k.depth) + d, lanes) * scale,
            lambda row, d, value: self.scratch.store(self.at_query + d * self.width + row, self.f.let(value)),
        )

    # ---- blocks of keys

    def _each_block(self, keys: Index) -> list[Expr]:
        """Results before division and, returned, the sums to divide by."""
        f = self.f
        maxima = f.accumulators(self.vectors, self.lanes)
        sums = f.accumulators(self.vectors, self.lanes)
        for v in range(self.vectors):
            maxima[v] = constant(-float("inf"), "float32", self.lanes)
            sums[v] = constant(0, "float32", self.lanes)
        # Where all keys are one block, there is nothing to correct.
        alone = isinstance(keys, int) and 0 < keys <= self.k.tile.keys
        with f.loop(0 if alone else self.k.value_depth * self.vectors) as i:
            self.scratch.store(self.at_result + i * self.lanes, constant(0, "float32", self.lanes))
        for first, count in self._blocks(keys):
            before = [maxima[v] for v in range(self.vectors)]
            if self.mask:
                self._load_masks(first, count)
            self._scores(first, count)
            self._find_maxima(first, count, maxima)
            if self.weights:
                self._store_scores(first, count)
            corrected = range(0 if alone else self.vectors)
            corrections = [f.let(polynomials.brief_exp2(f, before[v] - maxima[v])) for v in corrected]
            self._powers(count, maxima, sums, corrections)
            self._results(first, count, corrections)
        for v in range(self.vectors):
            self.scratch.store(self.at_maxima + v * self.lanes, maxima[v])
        return [sums[v] for v in range(self.vectors)]

    def _blocks(self, keys: Index) -> Iterator[tuple[Index, Index]]:
        size = self.k.tile.keys
        if isinstance(keys, int):
            yield from self.f.tiles(keys, size)
            return
        with self.f.loop(self.f.name_index((keys + (size - 1)) // size)) as block:
            first = self.f.name_index(block * size)
            yield first, self.f.name_index(index_min(keys - first, size))

    def _load_masks(self, first: Index, count: Index) -> None:
        """What masked scores are raised by: 0 or a large negative number."""
        mask, own = self.mask, self.k.mask
        assert mask
        assert own is not None
        shape = (1,) * (4 - len(own)) + own
        n, head, query, key = (
            self.f.extent(s) if extent != 1 else 0 for extent, s in zip(shape, strides(shape), strict=True)
        )
        base = self.f.name_index(dot([self.n, self.head, self.first, first], [n, head, query, key]))

        def load(row: Index, column: Index, lanes: int) -> Expr:
            seen = mask.load(dot([row, column], [query, key], base), lanes if key == 1 else 1)
            return select(seen, constant(0, "float32"), MASKED_SCORE).broadcast(lanes)

        if query == 0:
            with self.f.loop(count) as row:
                value = self.f.let(load(0, row, 1)).broadcast(self.lanes)
                for v in range(self.vectors):
                    self.scratch.store(self.at_masks + row * self.width + v * self.lanes, value)
            return

        def store(row: Index, column: Index, value: Expr) -> None:
            self.scratch.store(self.at_masks + column * self.width + row, self.f.let(value))

        transpose_block(self.f, self.count, count, load, store)

    def _scores(self, first: Index, count: Index) -> None:
        """Scores of a block."""
        f, k = self.f, self.k
        line = k.groups * k.depth
        for start, rows, offsets in self._rows_of(count):
            base = f.name_index(self.key_base + (first + start) * line)
            sums = self._product(
                rows,
                k.depth,
                lambda d: self.at_query + d * self.width,
                lambda d, base=base, offsets=offsets: [self.key.load(base + o * line + d) for o in offsets],
            )
            for row, offset in enumerate(offsets):
                place = f.name_index(self.at_scores + (start + offset) * self.width)
                for v in range(self.vectors):
                    self.scratch.store(place + v * self.lanes, sums[row * self.vectors + v])

    def _find_maxima(self, first: Index, count: Index, maxima: Accumulators) -> None:
        """Masks are added to the scores on the way; a few keys at a time, so that comparisons need not wait."""
        f = self.f
        for start, rows in f.tiles(count, 4):
            for v in range(self.vectors):
                highest: Expr | None = None
                for row in range(rows):
                    place = f.name_index((start + row) * self.width + v * self.lanes)
                    score = self.scratch.load(self.at_scores + place, self.lanes)
                    if self.mask or self.k.causal:
                        score = self._masked(score, place, f.name_index(first + start + row), v)
                        self.scratch.store(self.at_scores + place, score)
                    highest = f.let(maximum(score, highest)) if highest else score
                if highest:
                    maxima[v] = maximum(highest, maxima[v])

    def _rows_of(self, count: Index) -> Iterator[tuple[Index, int, Sequence[Index]]]:
        """``(start, rows, offset of each row)``; the rest of an open count is a full tile that repeats its last row."""
        f, size = self.f, self.k.tile.rows
        if isinstance(count, int):
            for start, rows in f.tiles(count, size):
                yield start, rows, range(rows)
            return
        full = f.name_index(count // size)
        with f.loop(full) as tile:
            yield tile * size, size, range(size)
        rest = f.let(index(count - full * size))
        with f.when(rest > 0):
            yield f.name_index(full * size), size, [f.name_index(index_min(row, rest - 1)) for row in range(size)]

    def _product(
        self, rows: int, length: Index, at: Callable[[Index], Index], factors: Callable[[Index], list[Expr]],
        start: Callable[[int, int], Expr] | None = None,
    ) -> Accumulators:  # fmt: skip
        """For each row, the sum over `length` of a factor of the row times a vector of the scratch array."""
        sums = self.f.accumulators(rows * self.vectors, self.lanes)
        for row in range(rows):
            for v in range(self.vectors):
                sums[row * self.vectors + v] = start(row, v) if start else constant(0, "float32")
        with self.f.loop(length) as i:
            place = self.f.name_index(at(i))
            loaded = [self.scratch.load(place + v * self.lanes, self.lanes) for v in range(self.vectors)]
            for row, factor in enumerate(factors(i)):
                for v, vector in enumerate(loaded):
                    sums.add(row * self.vectors + v, vector * factor)
        return sums

    def _masked(self, score: Expr, place: Index, key: Index, v: int) -> Expr:
        if self.mask:
            hidden = self.scratch.load(self.at_masks + place, self.lanes)
            score = self.f.let(select(hidden < 0, hidden, score))
        if self.k.causal:
            score = self.f.let(select(self._queries(v) >= key, score, MASKED_SCORE))
        return score

    def _queries(self, v: int) -> Expr:
        """The numbers of the queries of a vector."""
        first = index(self.first + v * self.lanes)
        if self.lanes == 1:
            return first
        return Expr(tirx.Ramp(first.node, tirx.const(1, "int32"), self.lanes), "int32", self.lanes)

    def _powers(self, count: Index, maxima: Accumulators, sums: Accumulators, corrections: list[Expr]) -> None:
        """Scores become powers, which the sums count."""
        f = self.f
        highest = [maxima[v] for v in range(self.vectors)]
        for v, correction in enumerate(corrections):
            sums[v] = sums[v] * correction
        with f.loop(count) as row:
            for v in range(self.vectors):
                place = f.name_index(self.at_scores + row * self.width + v * self.lanes)
                power = f.let(polynomials.brief_exp2(f, self.scratch.load(place, self.lanes) - highest[v]))
                self.scratch.store(place, power)
                sums.add(v, power)

    def _results(self, first: Index, count: Index, corrections: list[Expr]) -> None:
        """The block's share of the results, which are as yet not divided."""
        f, k = self.f, self.k
        line = k.groups * k.value_depth
        base = f.name_index(self.value_base + first * line)
        for element, rows in f.tiles(k.value_depth, k.tile.rows):
            at = f.name_index(self.at_result + element * self.width)

            def before(row: int, v: int, at: Index = at) -> Expr:
                return self.scratch.load(at + (row * self.width + v * self.lanes), self.lanes) * corrections[v]

            sums = self._product(
                rows,
                count,
                lambda key: self.at_scores + key * self.width,
                lambda key, rows=rows, element=element: [
                    self.value.load(base + key * line + element + row) for row in range(rows)
                ],
                before if corrections else None,
            )
            for i in range(rows * self.vectors):
                self.scratch.store(at + i * self.lanes, sums[i])

    # ---- results

    def _store_result(self, unseen: Pointer | None) -> None:
        depth = self.k.value_depth

        def load(row: Index, q: Index, lanes: int) -> Expr:
            value = self.scratch.load(self.at_result + row * self.width + q, lanes)
            if unseen:
                value = self.f.let(value + unseen.load(row))
            return self.f.let(value * self.scratch.load(self.at_factors + q, lanes))

        transpose_block(
            self.f,
            depth,
            self.count,
            load,
            lambda row, q, value: self.y.store(self._query_row(q, depth) + row, value),
        )

    def _weight_row(self, query: Index) -> Index:
        place = (self.n * self.k.heads + self.head) * self.queries + self.first + query
        return self.f.name_index(place * self.keys)

    def _store_scores(self, first: Index, count: Index) -> None:
        weights = self.weights
        assert weights
        transpose_block(
            self.f,
            count,
            self.count,
            lambda row, q, lanes: self.scratch.load(self.at_scores + row * self.width + q, lanes),
            lambda row, q, value: weights.store(self._weight_row(q) + first + row, value),
        )

    def _normalize_weights(self) -> None:
        """Scores, stored block by block, become weights now that maximum and sum are known."""
        f, weights = self.f, self.weights
        assert weights
        with f.loop(self.count) as query:
            row = self._weight_row(query)
            highest = self.scratch.load(self.at_maxima + query)
            factor = self.scratch.load(self.at_factors + query)
            for i, lanes in f.vectors(self.keys):
                power = polynomials.brief_exp2(f, weights.load(row + i, lanes) - highest)
                weights.store(row + i, f.let(power) * factor)


@TVM.register(ops.Attention)
def attention(plan: Plan, node: Node) -> None:
    """One kernel; the weights are stored where something reads them."""
    op, (query, key, value, *mask) = node.op, node.inputs
    assert isinstance(op, ops.Attention)
    batch, queries, heads, depth = query.type.shape
    keys, groups, value_depth = (*key.type.shape[1:3], value.type.shape[3])
    if (
        not (isinstance(heads, int) and isinstance(groups, int))
        or not (isinstance(depth, int) and isinstance(value_depth, int))
        or query.type.dtype != "float32"
    ):
        raise UnsupportedOp(
            "target 'tvm' needs float32 and known depths for attention. "
            f"Received: {query.type} and {value.type} at {node.source or 'the graph itself'}."
        )
    result, weights = node.outputs
    kernel = Attention(
        batch,
        queries,
        keys,
        heads,
        groups,
        depth,
        value_depth,
        op.scale,
        op.causal,
        mask[0].type.shape if mask else None,
        weights not in plan.unused,
        query_tile(plan.machine, queries, keys),
    )
    scratch = Temporary(TensorType("float32", (kernel.scratch_size,)), per_thread=True)
    plan.emit(kernel, *node.inputs, result, *([weights] if kernel.weights else []), scratch)
