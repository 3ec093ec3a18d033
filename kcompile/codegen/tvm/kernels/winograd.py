"""Convolutions of 3 x 3 windows by Winograd's F(2 x 2, 3 x 3): 16 products for four results instead of 36.

A tile of 4 x 4 inputs and the window are transformed, their products, element by element, are summed over the channels,
which makes 16 products of matrices, and the sums are transformed to 2 x 2 results. The matrices are those of Lavin and
Gray 2015 (arXiv:1509.09308); all of their inputs' elements are 0 or ±1, so that the sum of fewer products is at least
as exact as the direct one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kcompile.codegen.tvm.epilogue import Epilogue
from kcompile.codegen.tvm.expr import Expr, Index, constant, index, index_max, index_min, select
from kcompile.codegen.tvm.kernels.pooling import Kind, combined, finished, neutral
from kcompile.codegen.tvm.kernels.tile import Block, Panel, Panels, Rows, Tile, ahead, block, pack, row_pieces
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.vector import Chain
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir.types import Array, TensorType

# Inputs per side of a tile; results per side; elements of a transformed tile.
_SIDE, _STEP, PLACES = 4, 2, 16
# Tiles whose transformed inputs stay in the second-level cache while all filters use them.
_TILES = 56
# Channels below which the transforms cost more than they save.
_FEWEST_CHANNELS = 16
# Cycles for transforming a vector of a tile's inputs, or sums.
_TRANSFORM = 32
# Bytes of weights that arrive per cycle from beyond the second-level cache.
_STREAM = 16
# Elements between the places of a transformed tile, so that their distance is no power of two, which would put all of
# them in one set of the first-level cache.
_GAP = 16
_WEIGHTS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


@dataclass(frozen=True)
class Winograd(Kernel, family="winograd"):
    """``y[n, i, j, f] = epilogue(bias[f] + sum over t, u, c of x[n, i + t - low, j + u - low, c] * w[t, u, c, f])``.

    With `pooled`, y holds the maximum or mean of each 2 x 2 results. Arguments: x ``[N, H, W, C]``, the transformed and
    packed w, the bias ``[F]`` if `bias`, the epilogue's operands, the thread's `scratch`, y ``[N, H', W', F]``.

    Attributes:
        tile: rows and columns of the products' register tiles.
        rows: rows of tiles in a unit of work.
        parts: units among which the filters are shared; each transforms the inputs for itself.
    """

    windows: Windows
    filters: int
    tile: tuple[int, int]
    rows: int
    parts: int
    bias: bool
    epilogue: Chain
    pooled: Kind | None = None

    def build(self, f: Function) -> None:
        WinogradFunction(f, self).write()

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the results that are needed."""
        height, width = (int(extent) for extent in self.windows.out)
        return (height // 2 * 2, width // 2 * 2) if self.pooled else (height, width)

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along both axes."""
        return -(-self.out[0] // _STEP), -(-self.out[1] // _STEP)

    @property
    def scratch(self) -> TensorType:
        """The transformed inputs of a unit, and its sums for one panel of filters."""
        tiles = self.rows * self.tiles[1]
        size = place_of(tiles, self.windows.channels) + place_of(tiles, self.tile[1])
        return TensorType("float32", (PLACES * size,))


def place_of(tiles: int, width: int) -> int:
    """The distance between the places of the tiles."""
    return tiles * width + _GAP


class WinogradFunction:
    """A convolution being written."""

    def __init__(self, f: Function, spec: Winograd) -> None:
        self._f = f
        self._spec = spec
        self._declare_factors(f)
        self._bias = f.pointer("bias") if spec.bias else None
        self._epilogue = Epilogue(f, spec.epilogue)
        self._plain = Epilogue(f, Chain((spec.epilogue.result,), spec.epilogue.result))
        self._declare_scratch(f)
        self._y = f.pointer("y", spec.epilogue.result.dtype)
        self._batch = f.extent(spec.windows.batch)
        self._height, self._width = (int(extent) for extent in spec.windows.spatial)
        self._channels = spec.windows.channels
        assert spec.windows.low
        self._low = spec.windows.low
        self._across = spec.tiles[1]
        full, narrow = divmod(spec.filters, spec.tile[1])
        self._panels = Panels(full, block(spec.tile[1], f.machine.lanes), block(narrow, f.machine.lanes))

    def _declare_factors(self, f: Function) -> None:
        self._x = f.pointer("x")
        self._w = f.pointer("w")

    def _declare_scratch(self, f: Function) -> None:
        self._scratch = f.pointer("scratch")
        self._inputs = self._scratch

    def write(self) -> None:
        """Threads share blocks of rows of tiles, and the parts of the filters."""
        f, spec = self._f, self._spec
        full, rest = divmod(spec.tiles[0], spec.rows)
        blocks = full + (rest > 0)
        with f.parallel(self._batch * (blocks * spec.parts)) as unit:
            n, number, part = f.unravel(unit, [self._batch, blocks, spec.parts])
            first = f.name_index(number * spec.rows)
            if full:
                with f.when(index(number) < full):
                    self._write_block(n, first, spec.rows, part)
            if rest:
                with f.when(index(number).equals(full)):
                    self._write_block(n, first, rest, part)

    def _write_block(self, n: Index, first: Index, rows: int, part: Index) -> None:
        """`rows` rows of tiles from the one numbered `first` on."""
        f = self._f
        tiles = rows * self._across
        self._transform_inputs(n, first, rows)
        share = -(-self._panels.count // self._spec.parts)
        with f.loop(share) as i:
            panel = f.name_index(part * share + i)
            for columns in self._panels.one(f, panel):
                self._multiply(tiles, panel, columns)
                self._transform_sums(n, first, rows, panel, columns)

    # ---- inputs

    def _transform_inputs(self, n: Index, first: Index, rows: int) -> None:
        f = self._f
        with f.loop(rows) as row:
            top = f.name_index((first + row) * _STEP - self._low[0])
            whole = f.let((index(top) >= 0) & (index(top) <= self._height - _SIDE))
            lines: list[tuple[Index, Expr | None]] = [(top + i, None) for i in range(_SIDE)]
            with f.when(whole):
                self._transform_row(n, row, rows, lines)
            lines = [(i, self._exists(i)) for i, _ in lines]
            with f.when(~whole):
                self._transform_row(n, row, rows, lines)

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
                left = f.name_index(((start + i) * _STEP - self._low[1]) * self._channels)
                for c, lanes in f.vectors(self._channels):
                    at = [(f.name_index(begin + left + c), exists) for begin, exists in starts]
                    self._transform_tile(at, columns, (tile, rows * across), c, lanes)

    def _pieces(self) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """``(first, count, columns inside x)`` of neighbouring tiles."""
        inside = [
            tuple(j for j in range(_SIDE) if 0 <= tile * _STEP - self._low[1] + j < self._width)
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
            for j in range(_SIDE):
                x = self._x.load(begin + j * channels, lanes) if j in columns else zero
                elements.append(x if exists is None else f.let(select(exists, x, zero)))
            rows.append(self._input_matrix(elements))
        number, tiles = tile
        for j in range(_SIDE):
            for i, value in enumerate(self._input_matrix([row[j] for row in rows])):
                place = (i * _SIDE + j) * place_of(tiles, channels)
                self._inputs.store(place + number * channels + c, value)

    def _input_matrix(self, d: Sequence[Expr]) -> list[Expr]:
        return [self._f.let(value) for value in (d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3])]

    # ---- products

    def _multiply(self, tiles: int, panel: Index, columns: Block) -> None:
        """For each place of a tile, the tiles' channels times a panel of the weights."""
        f, channels, width = self._f, self._channels, self._spec.tile[1]
        sums = self._sums(tiles)
        size = self._spec.tile[0]
        with f.loop(PLACES) as place, f.loop(-(-tiles // size)) as number:
            weights = f.name_index(panel * (PLACES * channels * width) + place * (channels * columns.columns))
            for start, count in row_pieces(f, number, tiles, size):
                tile = Tile(f, count, columns, "float32")
                tile.start(None, 0)
                begin = f.name_index(place * place_of(tiles, channels) + start * channels)
                rows = Rows(self._inputs, begin, channels)
                panels = self._panels.count * PLACES
                following = ahead(number, channels, channels * columns.columns, panels, weights)
                tile.multiply(rows, Panel(self._w, weights, columns.columns, following), channels)
                at = f.name_index(place * place_of(tiles, columns.columns) + start * columns.columns + sums)
                tile.store(self._scratch, at, columns.columns, self._plain, lambda row, column: [row, column])

    def _sums(self, tiles: int) -> int:
        return PLACES * place_of(tiles, self._channels)

    # ---- results

    def _transform_sums(self, n: Index, first: Index, rows: int, panel: Index, columns: Block) -> None:
        f, (height, width) = self._f, self._spec.out
        with f.loop(rows) as row:
            top = f.name_index((first + row) * _STEP)
            for start, count, across in ((0, width // _STEP, _STEP), (width // _STEP, width % _STEP, 1)):
                if not count:
                    continue
                with f.loop(count) as i:
                    at = (row * self._across + start + i, rows * self._across)
                    place = [n, top, f.name_index((start + i) * _STEP)]
                    if height % _STEP == 0:
                        self._transform_vectors(at, place, (_STEP, across), panel, columns)
                        continue
                    for down in (_STEP, 1):
                        with f.when((index(top) + 1 < height) if down == _STEP else index(top).equals(height - 1)):
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
        rows: list[list[Expr]] = []
        for i in range(_SIDE):
            sums = [self._scratch.load(at + (i * _SIDE + j) * distance, lanes) for j in range(_SIDE)]
            rows.append(self._output_matrix(sums)[: size[1]])
        columns = [self._output_matrix([row[j] for row in rows])[: size[0]] for j in range(size[1])]
        return [[column[i] for column in columns] for i in range(size[0])]

    def _output_matrix(self, m: Sequence[Expr]) -> list[Expr]:
        return [self._f.let(m[0] + m[1] + m[2]), self._f.let(m[1] - m[2] - m[3])]

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
        total = neutral(spec.pooled, self._y.dtype).broadcast(values[0][0].lanes)
        for value in (value for row in values for value in row):
            total = f.let(combined(spec.pooled, total, value))
        # The tile's place among the pooled results: place // 2 in each axis.
        row = n * (height // _STEP) + index(top) // _STEP
        at = (row * (width // _STEP) + index(left) // _STEP) * spec.filters + channel
        self._y.store(at, finished(spec.pooled, total, _STEP * _STEP))


def pays(machine: Machine, windows: Windows, groups: int, filters: int, dtype: str, speed: int = 1) -> bool:
    """Whether the transforms save more than they cost, by modelled cycles, if products are `speed` times as fast."""
    sizes = (windows.size, windows.strides, windows.dilation)
    known = all(isinstance(extent, int) for extent in (*windows.spatial, *windows.out))
    if machine.lanes == 1 or machine.compact or machine.half_weights:
        return False  # where memory is scarce there is none for 16 weights instead of 9
    if sizes != ((3, 3), (1, 1), (1, 1)) or groups != 1 or dtype != "float32" or not known or not windows.low:
        return False
    height, width = (int(extent) for extent in windows.out)
    if min(windows.channels, filters) < _FEWEST_CHANNELS or max(windows.low) > 2 or not height or not width:
        return False
    vectors, products = 2 * machine.lanes * speed, windows.channels * filters
    tiles = -(-height // _STEP) * -(-width // _STEP)
    transforms = tiles * (windows.channels + filters) / machine.lanes * _TRANSFORM
    streamed = 4 // speed * products * (PLACES - 9) / _STREAM
    taps = (3 * height - 2 * windows.low[0]) * (3 * width - 2 * windows.low[1])
    return tiles * PLACES * products / vectors + transforms + streamed < 0.95 * taps * products / vectors


def unit_of(tiles: tuple[int, int]) -> tuple[int, int]:
    """Rows of tiles in a unit of work, and the units among which its filters are shared: at least two to share."""
    count = tiles[0] * tiles[1]
    blocks = max(round(count / _TILES), 2 if count > _TILES // 2 else 1)
    return -(-tiles[0] // min(blocks, tiles[0])), 1 if blocks > 1 else 2


def transformed(weights: Array, columns: int) -> Array:
    """``[3, 3, C, F]`` as panels of `columns` filters, each ``[16, C, columns]``."""
    channels, filters = weights.shape[2:]
    return pack(transforms(weights).astype(np.float32).reshape(PLACES * channels, filters), columns)


def transforms(weights: Array) -> Array:
    """``[3, 3, C, F]`` transformed: ``f64[4, 4, C, F]``."""
    return np.einsum("ai,bj,ijcf->abcf", _WEIGHTS, _WEIGHTS, weights.astype(np.float64))
