"""Convolutions of 3 x 3 windows by Winograd's F(2 x 2, 3 x 3): 16 products for four results instead of 36.

A tile of 4 x 4 inputs and the window are transformed, their products, element by element, are summed over the channels,
which makes 16 products of matrices, and the sums are transformed to 2 x 2 results. All elements of the inputs' matrix
are 0 or ±1, so that the sum of fewer products is at least as exact as the direct one. F(4 x 4, 3 x 3) makes 16 results
of 36 products instead of 144, but loses a digit: its largest errors are ten times those of the direct sum.

Transforms mix the inputs of a tile, so that one that is not finite would spoil results that do not see it. Where inputs
of a block of tiles are not, F(2 x 2, 3 x 3) sums window by window instead; with F(4 x 4, 3 x 3) they spoil their tiles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kcompile.codegen.tvm.arrays import Accumulators, Pointer
from kcompile.codegen.tvm.epilogue import Epilogue
from kcompile.codegen.tvm.expr import Expr, Index, constant, index, index_max, index_min, select
from kcompile.codegen.tvm.kernels.nest import nest, whole_or_rest
from kcompile.codegen.tvm.kernels.pooling import Kind, finished, neutral
from kcompile.codegen.tvm.kernels.pooling import combined as pooled
from kcompile.codegen.tvm.kernels.shares import Costs, parallel_runs
from kcompile.codegen.tvm.kernels.tile import LINE, Block, Panel, Panels, Rows, Tile, ahead, block, row_pieces
from kcompile.codegen.tvm.kernels.winograd_form import FORMS, Form, combined, recovered
from kcompile.codegen.tvm.tir import Function, Kernel, split
from kcompile.codegen.tvm.vector import Chain
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir.types import TensorType

# Elements between the places of a transformed tile, so that their distance is no power of two, which would put all of
# them in one set of the first-level cache.
_GAP = 16


@dataclass(frozen=True)
class Winograd(Kernel, family="winograd"):
    """``y[n, i, j, f] = epilogue(bias[f] + sum over t, u, c of x[n, i + t - low, j + u - low, c] * w[t, u, c, f])``.

    With `pooled`, y holds the maximum or mean of each 2 x 2 results. Arguments: x ``[N, H, W, C]``, the transformed and
    packed w, the bias ``[F]`` if `bias`, the epilogue's operands, the thread's `scratch`, y ``[N, H', W', F]``, and the
    weights to fetch if it `fetches`.

    Attributes:
        step: results per side of a tile, 2 or 4.
        tile: rows and columns of the products' register tiles.
        rows: rows of tiles in a block.
        fetches: whether steps of the products each fetch a cache line of later stages' weights.
    """

    windows: Windows
    filters: int
    step: int
    tile: tuple[int, int]
    rows: int
    bias: bool
    epilogue: Chain
    pooled: Kind | None = None
    fetches: bool = False

    def build(self, f: Function) -> None:
        WinogradFunction(f, self).write()

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the results that are needed."""
        height, width = (int(extent) for extent in self.windows.out)
        return (height // 2 * 2, width // 2 * 2) if self.pooled else (height, width)

    @property
    def form(self) -> Form:
        """The matrices."""
        return FORMS[self.step]

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along both axes."""
        return -(-self.out[0] // self.step), -(-self.out[1] // self.step)

    @property
    def scratch(self) -> TensorType:
        """The transformed inputs of a unit, and its sums for one panel of filters."""
        tiles = self.rows * self.tiles[1]
        size = place_of(tiles, self.windows.channels) + place_of(tiles, self.tile[1])
        return TensorType("float32", (self.form.places * size,))

    @property
    def blocks(self) -> int:
        """Blocks of rows of tiles of an image."""
        return -(-self.tiles[0] // self.rows)

    @property
    def products(self) -> int:
        """Register tiles of the products of a block with all its filters."""
        return -(-self.filters // self.tile[1]) * self.form.places * -(-self.rows * self.tiles[1] // self.tile[0])


def place_of(tiles: int, width: int) -> int:
    """The distance between the places of the tiles."""
    return tiles * width + _GAP


class WinogradFunction:
    """A convolution being written."""

    def __init__(self, f: Function, spec: Winograd) -> None:
        self._f = f
        self._spec = spec
        self._form = spec.form
        self._step, self._side, self._places = spec.step, spec.form.side, spec.form.places
        self._declare_factors(f)
        self._bias = f.pointer("bias") if spec.bias else None
        self._epilogue = Epilogue(f, spec.epilogue)
        self._plain = Epilogue(f, Chain((spec.epilogue.result,), spec.epilogue.result))
        self._declare_scratch(f)
        self._y = f.pointer("y", spec.epilogue.result.dtype)
        self._upcoming = f.pointer("upcoming") if spec.fetches else None
        self._block: Index = 0
        self._batch = f.extent(spec.windows.batch)
        self._height, self._width = (int(extent) for extent in spec.windows.spatial)
        self._channels = spec.windows.channels
        assert spec.windows.low
        self._low = spec.windows.low
        self._across = spec.tiles[1]
        full, narrow = divmod(spec.filters, spec.tile[1])
        # By lanes: 0 as long as all inputs are finite, else NaN.
        self._blemish: dict[int, Accumulators] = {}
        self._panels = Panels(full, block(spec.tile[1], f.machine.lanes), block(narrow, f.machine.lanes))

    def _declare_factors(self, f: Function) -> None:
        self._x = f.pointer("x")
        self._w = f.pointer("w")

    def _declare_scratch(self, f: Function) -> None:
        self._scratch = f.pointer("scratch")
        self._inputs = self._scratch

    @property
    def _guards(self) -> bool:
        """Whether inputs that are not finite have to stay where they are seen."""
        return self._step == 2

    def write(self) -> None:
        """Threads share blocks of rows of tiles, and the panels of filters of a block; each transforms its inputs."""
        f, spec, panels = self._f, self._spec, self._panels
        costs = Costs.of_pieces(self._batch, spec.tiles[0], spec.rows, panels.count)
        with parallel_runs(f, self._batch * spec.blocks, panels.count, costs) as (block, *share):
            n, number = f.unravel(block, [self._batch, spec.blocks])
            self._block = block
            first = f.name_index(number * spec.rows)
            for rows in whole_or_rest(f, number, spec.tiles[0], spec.rows):
                self._write_block(n, first, rows, share)

    def _write_block(self, n: Index, first: Index, rows: int, share: Sequence[Index]) -> None:
        """`rows` rows of tiles from the one numbered `first` on, for a share of the panels."""
        f = self._f
        tiles = rows * self._across
        finite = self._transform_inputs(n, first, rows)
        for panel, columns in self._panels.between(f, *share):
            if finite is None:
                self._multiply(tiles, panel, columns)
            else:
                with f.when(finite):
                    self._multiply(tiles, panel, columns)
                with f.when(~finite):
                    self._sum_windows(n, first, rows, panel, columns)
            self._transform_sums(n, first, rows, panel, columns)

    # ---- inputs

    def _transform_inputs(self, n: Index, first: Index, rows: int) -> Expr | None:
        """Whether all inputs are finite, where that matters."""
        f = self._f
        self._blemish = {lanes: f.accumulators(1, lanes) for lanes in split(self._channels, f.machine.lanes)}
        for total in self._blemish.values():
            total[0] = constant(0, "float32")
        with f.loop(rows) as row:
            top = f.name_index((first + row) * self._step - self._low[0])
            whole = f.let((index(top) >= 0) & (index(top) <= self._height - self._side))
            lines: list[tuple[Index, Expr | None]] = [(top + i, None) for i in range(self._side)]
            with f.when(whole):
                self._transform_row(n, row, rows, lines)
            lines = [(i, self._exists(i)) for i, _ in lines]
            with f.when(~whole):
                self._transform_row(n, row, rows, lines)
        if not self._guards:
            return None
        total = constant(0, "float32")
        for lanes, part in self._blemish.items():
            for lane in range(lanes):
                total = f.let(total + part[0].lane(lane))
        return f.let(total.equals(0.0))

    def _exists(self, line: Index) -> Expr:
        return (index(line) >= 0) & (index(line) < self._height)

    def _transform_row(self, n: Index, row: Index, rows: int, lines: Sequence[tuple[Index, Expr | None]]) -> None:
        """A row of tiles, whose four lines of x are all inside, or inside where the conditions hold."""
        f, across = self._f, self._across
        starts: list[tuple[Index, Expr | None]] = []
        for line, exists in lines:
            inside = line if exists is None else index_max(index_min(line, self._height - 1), 0)
            starts.append((f.name_index((n * self._height + inside) * (self._width * self._channels)), exists))
        for start, count, columns in self._pieces():
            with f.loop(count) as i:
                tile = f.name_index(row * across + start + i)
                left = f.name_index(((start + i) * self._step - self._low[1]) * self._channels)
                for c, lanes in f.vectors(self._channels):
                    at = [(f.name_index(begin + left + c), exists) for begin, exists in starts]
                    self._transform_tile(at, columns, (tile, rows * across), c, lanes)

    def _pieces(self) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """``(first, count, columns inside x)`` of neighbouring tiles."""
        inside = [
            tuple(j for j in range(self._side) if 0 <= tile * self._step - self._low[1] + j < self._width)
            for tile in range(self._across)
        ]
        first = 0
        while first < self._across:
            last = first
            while last < self._across and inside[last] == inside[first]:
                last += 1
            yield first, last - first, inside[first]
            first = last

    def _transform_tile(
        self,
        at: Sequence[tuple[Index, Expr | None]],
        columns: tuple[int, ...],
        tile: tuple[Index, int],
        c: Index,
        lanes: int,
    ) -> None:
        f, channels = self._f, self._channels
        zero = constant(0, "float32", lanes)
        rows: list[list[Expr]] = []
        for begin, exists in at:
            elements: list[Expr] = []
            for j in range(self._side):
                x = self._x.load(begin + j * channels, lanes) if j in columns else zero
                elements.append(x if exists is None else f.let(select(exists, x, zero)))
            rows.append(combined(f, self._form.inputs, elements))
        number, tiles = tile
        corners: list[Expr] = []
        for j in range(self._side):
            values = combined(f, self._form.inputs, [row[j] for row in rows])
            corners += [values[0], values[-1]] if j in (0, self._side - 1) else []
            for i, value in enumerate(values):
                place = (i * self._side + j) * place_of(tiles, channels)
                self._inputs.store(place + number * channels + c, value)
        if self._guards:
            # Every input is part of a corner, and a sum with one that is not finite is not either.
            a, b, c, d = corners
            self._blemish[lanes].add(0, f.let(f.let(a + b) + f.let(c + d)) * 0.0)

    # ---- products

    def _multiply(self, tiles: int, panel: Index, columns: Block) -> None:
        """For each place of a tile, the tiles' channels times a panel of the weights."""
        f, channels, width = self._f, self._channels, self._spec.tile[1]
        sums = self._sums(tiles)
        size = self._spec.tile[0]
        with f.loop(self._places) as place, f.loop(-(-tiles // size)) as number:
            weights = f.name_index(panel * (self._places * channels * width) + place * (channels * columns.columns))
            for start, count in row_pieces(f, number, tiles, size):
                tile = Tile(f, count, columns, "float32", channels)
                tile.start(None, 0)
                begin = f.name_index(place * place_of(tiles, channels) + start * channels)
                rows = Rows(self._inputs, begin, channels)
                panels = self._panels.count * self._places
                following = ahead(number, channels, channels * columns.columns, panels, weights)
                upcoming = self._fetched(panel, place, number)
                tile.multiply(rows, Panel(self._w, weights, columns.columns, following, upcoming=upcoming), channels)
                at = f.name_index(place * place_of(tiles, columns.columns) + start * columns.columns + sums)
                tile.store(self._scratch, at, columns.columns, self._plain, lambda row, column: [row, column])

    def _fetched(self, panel: Index, place: Index, number: Index) -> tuple[Pointer, Index] | None:
        """The array, and the offset in it, from which a register tile's steps fetch what comes after this stage."""
        if self._upcoming is None:
            return None
        spec, each = self._spec, -(-self._spec.rows * self._across // self._spec.tile[0])
        tile = (self._block * self._panels.count + panel) * (self._places * each) + (place * each + number)
        # Images after the first come to nothing new.
        last = spec.blocks * spec.products - 1
        return self._upcoming, self._f.name_index(index_min(tile, last) * (self._channels * LINE))

    def _sums(self, tiles: int) -> int:
        return self._places * place_of(tiles, self._channels)

    def _sum_windows(self, n: Index, first: Index, rows: int, panel: Index, columns: Block) -> None:
        """Sums that the output transform turns into the results of each window: each result is in a corner, alone."""
        f, channels = self._f, self._channels
        base = f.name_index(panel * (self._places * channels * self._spec.tile[1]))
        with nest(f, [rows, self._across]) as (row, tile):
            for column, lanes in f.vectors(columns.columns):
                at = f.name_index(
                    (row * self._across + tile) * columns.columns + column + self._sums(rows * self._across)
                )
                distance = place_of(rows * self._across, columns.columns)
                with f.loop(self._places) as place:
                    self._scratch.store(at + place * distance, constant(0, "float32", lanes))
                with nest(f, [2, 2]) as (i, j):
                    top = f.name_index((first + row) * 2 + i - self._low[0])
                    left = f.name_index(tile * 2 + j - self._low[1])
                    weights = (f.name_index(base + column), columns.columns)
                    total = self._window(n, (top, left), weights, lanes)
                    sign = (1 - i * 2) * (1 - j * 2)
                    corner = f.name_index((i * (self._side - 1) * self._side + j * (self._side - 1)) * distance)
                    self._scratch.store(at + corner, total * index(sign).cast("float32"))

    def _window(self, n: Index, corner: tuple[Index, Index], weights: tuple[Index, int], lanes: int) -> Expr:
        """The sum over the window that begins at `corner`, for the filters whose weights begin at an offset."""
        f, channels = self._f, self._channels
        total = f.accumulators(1, lanes)
        total[0] = constant(0, "float32")
        with f.loop(channels) as c:
            line = f.name_index(weights[0] + c * weights[1])
            elements = [self._w.load(line + place * (channels * weights[1]), lanes) for place in range(self._places)]
            taps = recovered(f, [elements[i * self._side : (i + 1) * self._side] for i in range(self._side)])
            for i, row in enumerate(taps):
                for j, tap in enumerate(row):
                    total.add(0, self._element(n, corner[0] + i, corner[1] + j, c) * tap)
        return total[0]

    def _element(self, n: Index, line: Index, column: Index, c: Index) -> Expr:
        """An element of x, or 0 outside."""
        f, inside = self._f, constant(True, "bool")
        places: list[Index] = []
        for at, extent in ((line, self._height), (column, self._width)):
            inside = inside & (index(at) >= 0) & (index(at) < extent)
            places.append(index_max(index_min(at, extent - 1), 0))
        x = self._x.load(((n * self._height + places[0]) * self._width + places[1]) * self._channels + c)
        return f.let(select(inside, x, 0.0))

    # ---- results

    def _transform_sums(self, n: Index, first: Index, rows: int, panel: Index, columns: Block) -> None:
        f, (height, width), step = self._f, self._spec.out, self._step
        with f.loop(rows) as row:
            top = f.name_index((first + row) * step)
            for start, count, across in ((0, width // step, step), (width // step, 1, width % step)):
                if not count or not across:
                    continue
                with f.loop(count) as i:
                    at = (row * self._across + start + i, rows * self._across)
                    place = [n, top, f.name_index((start + i) * step)]
                    if height % step == 0:
                        self._transform_vectors(at, place, (step, across), panel, columns)
                        continue
                    for down in (step, height % step):
                        whole = index(top) + step <= height
                        with f.when(whole if down == step else ~whole):
                            self._transform_vectors(at, place, (down, across), panel, columns)

    def _transform_vectors(
        self, tile: tuple[Index, int], place: list[Index], size: tuple[int, int], panel: Index, columns: Block
    ) -> None:
        """The results of a tile, of which `size` are inside y."""
        f = self._f
        first = f.name_index(panel * self._spec.tile[1])
        for column, lanes in f.vectors(columns.columns):
            at = f.name_index(tile[0] * columns.columns + column + self._sums(tile[1]))
            results = self._results(at, place_of(tile[1], columns.columns), size, lanes)
            channel = f.name_index(first + column)
            if self._bias:
                bias = self._bias.load(channel, lanes)
                results = [[f.let(value + bias) for value in row] for row in results]
            self._store(results, place, channel)

    def _results(self, at: Index, distance: int, size: tuple[int, int], lanes: int) -> list[list[Expr]]:
        f, matrix = self._f, self._form.results
        rows: list[list[Expr]] = []
        for i in range(self._side):
            sums = [self._scratch.load(at + (i * self._side + j) * distance, lanes) for j in range(self._side)]
            rows.append(combined(f, matrix[: size[1]], sums))
        columns = [combined(f, matrix[: size[0]], [row[j] for row in rows]) for j in range(size[1])]
        return [[column[i] for column in columns] for i in range(size[0])]

    def _store(self, results: list[list[Expr]], place: list[Index], channel: Index) -> None:
        f, spec, (n, top, left) = self._f, self._spec, place
        values = [
            [self._epilogue(value, [n, top + i, left + j, channel]) for j, value in enumerate(row)]
            for i, row in enumerate(results)
        ]
        height, width = spec.out
        if not spec.pooled:
            for i, row in enumerate(values):
                for j, value in enumerate(row):
                    self._y.store(((n * height + top + i) * width + left + j) * spec.filters + channel, value)
            return
        for i in range(0, len(values), 2):
            for j in range(0, len(values[0]), 2):
                total = neutral(spec.pooled, self._y.dtype).broadcast(values[0][0].lanes)
                for value in (*values[i][j : j + 2], *values[i + 1][j : j + 2]):
                    total = f.let(pooled(spec.pooled, total, value))
                # The place among the pooled results: place // 2 in each axis.
                row = n * (height // 2) + index(top) // 2 + i // 2
                at = (row * (width // 2) + index(left) // 2 + j // 2) * spec.filters + channel
                self._y.store(at, finished(spec.pooled, total, 4))
