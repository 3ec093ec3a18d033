"""Convolutions and dense layers on numbers of few bits: the loop nests around `NarrowTile`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kcompile.codegen.tvm.epilogue import Epilogue
from kcompile.codegen.tvm.expr import Index
from kcompile.codegen.tvm.kernels.dense import constant_of, outer_axes_of, tail_of_rows
from kcompile.codegen.tvm.kernels.narrow_depthwise import emit_narrow_depthwise
from kcompile.codegen.tvm.kernels.narrow_tile import Factors, NarrowTile, factors_of, fetched, is_streamed, pack_words
from kcompile.codegen.tvm.kernels.narrow_winograd import NarrowWinograd, bfloat16_pays, transformed_words
from kcompile.codegen.tvm.kernels.nest import product
from kcompile.codegen.tvm.kernels.tile import Block, Panel, Panels, Rows, block, choose, row_pieces
from kcompile.codegen.tvm.kernels.winograd_form import rows_of
from kcompile.codegen.tvm.plan import TVM, Plan, Temporary
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.vector import Chain
from kcompile.codegen.tvm.windows import OpenWindows, Piece, Row, Windows, segments_of
from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node, Value
from kcompile.ir.ops.quantization import bfloat16_value
from kcompile.ir.types import Array

# Weights of at most this many bytes stay in the second-level cache, so that each row tile may run through all of them.
_SMALL_WEIGHTS = 64_000
# Row tiles that are enough to share among threads.
_MANY_TILES = 8
# Results per image below which tiles of neighbouring pixels are too short to be worth their own loop.
_FEW_PIXELS = 4


def _panels(f: Function, columns: int, width: int) -> Panels:
    full, narrow = divmod(columns, width)
    return Panels(full, block(width, f.machine.lanes), block(narrow, f.machine.lanes))


@dataclass(frozen=True)
class NarrowMatrix(Kernel, family="narrow_matrix"):
    """``y[o, r, :] = epilogue(x[o, r, :] @ w + bias)``, the sum in the factors' dtype of sums.

    Arguments: x ``[outer, rows, K]``, w packed, the bias ``[M]`` if `bias`, the epilogue's operands,
    y ``[outer, rows, M]``. The epilogue's result has these three axes.
    """

    factors: Factors
    outer: Dim
    rows: Dim
    length: int
    columns: int
    tile: tuple[int, int]
    grid: bool
    bias: bool
    epilogue: Chain

    def build(self, f: Function) -> None:
        _MatrixFunction(f, self).write()


class _MatrixFunction:
    def __init__(self, f: Function, spec: NarrowMatrix) -> None:
        self._f = f
        self._spec = spec
        self._x = f.pointer("x", spec.factors.x)
        self._w = f.pointer("w", spec.factors.weights)
        self._bias = f.pointer("bias", spec.factors.sum) if spec.bias else None
        self._epilogue = Epilogue(f, spec.epilogue)
        self._y = f.pointer("y", spec.epilogue.result.dtype)
        self._outer, self._rows = f.extent(spec.outer), f.extent(spec.rows)
        self._panels = _panels(f, spec.columns, spec.tile[1])

    def write(self) -> None:
        """Threads share tiles: with `grid`, those of one panel after another, else row tiles with all panels."""
        f, tiles = self._f, self._f.name_index((self._rows + (self._spec.tile[0] - 1)) // self._spec.tile[0])
        if not self._spec.grid:
            with f.parallel(product([self._outer, tiles])) as unit:
                outer, tile = f.unravel(unit, [self._outer, tiles])
                for start, count in row_pieces(f, tile, self._rows, self._spec.tile[0]):
                    for panel, columns in self._panels.all(f):
                        self._tile(outer, start, count, panel, columns)
            return
        with f.parallel(product([self._panels.count, self._outer, tiles])) as unit:
            panel, outer, tile = f.unravel(unit, [self._panels.count, self._outer, tiles])
            for columns in self._panels.one(f, panel):
                for start, count in row_pieces(f, tile, self._rows, self._spec.tile[0]):
                    self._tile(outer, start, count, panel, columns, tile)

    def _tile(
        self, outer: Index, start: Index, count: int, panel: Index, columns: Block, number: Index | None = None
    ) -> None:
        """A tile, the one numbered `number` that uses this panel."""
        f, spec, factors = self._f, self._spec, self._spec.factors
        row = f.name_index(outer * self._rows + start)
        first = panel * spec.tile[1]
        tile = NarrowTile(f, count, columns, factors)
        tile.start(self._bias, first)
        padded = factors.padded(spec.length)
        size = padded * factors.line(self._panels.wide)
        at = f.name_index(panel * size)
        words = padded // factors.word
        ahead = None if number is None else fetched(number, words, size, self._panels.count, at, factors)
        x = Rows(self._x, f.name_index(row * spec.length), spec.length)
        streamed = is_streamed(size, self._panels.count, factors)
        tile.multiply(x, Panel(self._w, at, factors.line(columns), ahead, streamed), spec.length)

        def position(i: Index, column: Index) -> list[Index]:
            return [outer, start + i, first + column]

        tile.store(self._y, f.name_index(row * spec.columns + first), spec.columns, self._epilogue, position)


@dataclass(frozen=True)
class NarrowConv(Kernel, family="narrow_conv"):
    """``y[n, o, f] = epilogue(bias[f] + sum over t, c of x[n, o * stride - low + t * rate, c] * w[t, c, f])``.

    Taps are t and channels c; taps outside the input are skipped, which needs whole words of channels. Arguments:
    x ``[N, *spatial, C]``, w packed by group, the bias ``[F]`` if `bias`, the epilogue's operands, y ``[N, *out, F]``.
    """

    factors: Factors
    windows: Windows
    groups: int
    filters: int
    tile: tuple[int, int]
    grid: bool
    bias: bool
    epilogue: Chain

    def build(self, f: Function) -> None:
        _ConvFunction(f, self).write()

    @property
    def channels(self) -> int:
        """Channels of a group."""
        return self.windows.channels // self.groups

    @property
    def run(self) -> int:
        """Numbers that follow each other in x and are summed: all taps of the last axis, or the channels of one."""
        joined = self.groups == 1 and self.windows.dilation[-1] == 1
        return self.channels * (self.windows.size[-1] if joined else 1)


class _ConvFunction:
    def __init__(self, f: Function, spec: NarrowConv) -> None:
        self._f = f
        self._spec = spec
        self._x = f.pointer("x", spec.factors.x)
        self._w = f.pointer("w", spec.factors.weights)
        self._bias = f.pointer("bias", spec.factors.sum) if spec.bias else None
        self._epilogue = Epilogue(f, spec.epilogue)
        self._y = f.pointer("y", spec.epilogue.result.dtype)
        self._windows = OpenWindows(f, spec.windows)
        self._row = Row(f, self._windows, spec.windows, spec.tile[0])
        self._filters = spec.filters // spec.groups
        self._panels = _panels(f, self._filters, spec.tile[1])
        # Lines of weights for one position on the leading axes.
        runs = spec.windows.size[-1] * spec.channels // spec.run
        self._lines = runs * spec.factors.padded(spec.run)

    def write(self) -> None:
        """Threads share rows of results: with `grid`, those of one panel after another, else with all panels."""
        f, spec = self._f, self._spec
        segments = segments_of(spec.windows, spec.tile[0])
        lead = [self._windows.batch, *self._windows.out[:-1], segments]
        if not spec.grid:
            with f.parallel(product(lead)) as unit:
                n, *position, segment = f.unravel(unit, lead)
                with f.loop(spec.groups) as group:
                    for panel, columns in self._panels.all(f):
                        self._write_row(n, position, (segment, segments), (group, panel), columns)
            return
        extents = [spec.groups, self._panels.count, *lead]
        with f.parallel(product(extents)) as unit:
            group, panel, n, *position, segment = f.unravel(unit, extents)
            for columns in self._panels.one(f, panel):
                self._write_row(n, position, (segment, segments), (group, panel), columns)

    def _write_row(
        self, n: Index, lead: list[Index], part: tuple[Index, int], at: tuple[Index, Index], columns: Block
    ) -> None:
        """One part of the row at the positions `lead` of image n, for the group and panel `at`."""
        f, windows, spec = self._f, self._windows, self._spec
        group, panel = at
        bounds = [windows.bounds(axis, position) for axis, position in enumerate(lead)]
        origin = f.name_index(windows.origin(n, lead) + group * spec.channels)
        first = f.name_index(group * self._filters + panel * spec.tile[1])
        weights = f.name_index(self._panel_offset(group, panel))
        line = spec.factors.line(columns)
        for piece in self._row.pieces(*part):
            tile = NarrowTile(f, piece.count, columns, spec.factors)
            tile.start(self._bias, first)
            start = (piece.start * spec.windows.strides[-1] - windows.low[-1]) * spec.windows.channels
            with windows.taps(bounds) as (taps, offset):
                x_at = f.name_index(origin + offset + start)
                self._multiply(tile, piece, x_at, f.name_index(weights + self._tap(taps) * line), line)
            self._store(tile, piece, n, lead, first)

    def _panel_offset(self, group: Index, panel: Index) -> Index:
        """Where the weights of a panel begin: full panels before it in its group, and all of the groups before."""
        lines = int(np.prod(self._spec.windows.size[:-1])) * self._lines
        wide = self._spec.factors.line(self._panels.wide)
        whole = self._panels.full * wide + self._spec.factors.line(self._panels.narrow)
        return group * (lines * whole) + panel * (lines * wide)

    def _tap(self, taps: list[Index]) -> Index:
        """The line of the panel at which the taps of the leading axes begin."""
        number: Index = 0
        for tap, size in zip(taps, self._spec.windows.size, strict=False):
            number = number * size + tap
        return number * self._lines

    def _multiply(self, tile: NarrowTile, piece: Piece, at: Index, weights: Index, line: int) -> None:
        """Add the products of the last axis's taps; `at` is the first result's tap 0."""
        f, spec, windows = self._f, self._spec, self._spec.windows
        step = windows.dilation[-1] * windows.channels
        between = windows.strides[-1] * windows.channels
        joined = spec.run != spec.channels or windows.size[-1] == 1
        for first, count, rows in self._runs(piece):
            start = f.name_index(at + first * step)
            panel = f.name_index(weights + first * (spec.factors.padded(spec.channels) * line))
            if joined and step == spec.channels:
                tile.multiply(Rows(self._x, start, between), Panel(self._w, panel, line), count * spec.channels, rows)
                continue
            with f.loop(count) as tap:
                there = Rows(self._x, f.name_index(start + tap * step), between)
                lines = f.name_index(panel + tap * (spec.factors.padded(spec.channels) * line))
                tile.multiply(there, Panel(self._w, lines, line), spec.channels, rows)

    def _runs(self, piece: Piece) -> Iterator[tuple[Index, Index, tuple[int, ...]]]:
        """``(first tap, number of taps, results that have them)``; all at once where none is outside."""
        size = self._spec.windows.size[-1]
        if self._spec.windows.inside(len(self._spec.windows.size) - 1):
            yield 0, size, tuple(range(piece.count))
            return
        yield from piece.runs(size)

    def _store(self, tile: NarrowTile, piece: Piece, n: Index, lead: list[Index], first: Index) -> None:
        """Into y."""
        f, filters = self._f, self._spec.filters
        row: Index = n
        for at, extent in zip(lead, self._windows.out, strict=False):
            row = row * extent + at
        at = f.name_index((row * self._windows.out[-1] + piece.start) * filters + first)

        def position(i: Index, column: Index) -> list[Index]:
            return [n, *lead, piece.start + i, first + column]

        tile.store(self._y, at, filters, self._epilogue, position)


@TVM.register(ops.DenseNarrow)
def dense(plan: Plan, node: Node) -> None:
    """Rows times a matrix."""
    x, kernel, *bias = node.inputs
    outer_axes = outer_axes_of(x.type.shape[:-1])
    _emit_matrix(plan, node, outer_axes, constant_of(kernel, node), bias[0] if bias else None)


@TVM.register(ops.ConvNarrow)
def conv(plan: Plan, node: Node) -> None:
    """A matrix product where every pixel stands alone."""
    op, (x, kernel, *rest) = node.op, node.inputs
    assert isinstance(op, ops.ConvNarrow)
    weights, bias = constant_of(kernel, node), rest[0] if rest else None
    filters = weights.shape[-1]
    windows = Windows.of(x.type, node.outputs[0].type, weights.shape[:-2], op.strides, op.wide.rates, op.padding)
    if windows.pointwise and op.groups == 1:
        pixels = node.outputs[0].type.with_shape(windows.out).size
        outer = 1 if isinstance(pixels, int) and pixels >= _FEW_PIXELS else 0
        _emit_matrix(plan, node, outer, weights.reshape(-1, filters), bias)
        return
    if op.groups == windows.channels == filters:
        emit_narrow_depthwise(plan, node, windows, weights, bias)
        return
    if x.type.dtype == "uint16" and bfloat16_pays(plan.machine, windows, op.groups, filters):
        _emit_winograd(plan, node, windows, weights, bias)
        return
    out, per_group = windows.out[-1], filters // op.groups
    row_bytes = windows.strides[-1] * windows.channels * x.type.itemsize
    tile = choose(plan.machine, out if isinstance(out, int) else None, per_group, row_bytes, rank=plan.variant.tile)
    tail, factors = plan.tail(node), factors_of(plan.machine, x.type.dtype)
    if windows.channels // op.groups % factors.word and not windows.inside(len(windows.size) - 1):
        factors = replace(factors, word=1)  # a run that begins within a word
    grid = (weights.nbytes > _SMALL_WEIGHTS) != plan.variant.turned
    spec = NarrowConv(factors, windows, op.groups, filters, tile, grid, bias is not None, tail.chain)
    packed = _packed(plan, weights, spec)
    plan.emit(spec, x, packed, *([bias] if bias else []), *tail.operands, tail.result)


def _emit_winograd(plan: Plan, node: Node, windows: Windows, weights: Array, bias: Value | None) -> None:
    tail, filters = plan.tail(node), weights.shape[-1]
    draft = NarrowWinograd(windows, filters, 2, (1, 1), 1, bias is not None, tail.chain)
    rows = rows_of(draft.tiles, windows.channels * filters)
    tile = choose(plan.machine, rows * draft.tiles[1], filters, rank=plan.variant.tile)
    spec = replace(draft, tile=tile, rows=rows)
    packed = transformed_words(bfloat16_value(weights), _blocks(plan, filters, tile[1]))
    scratch = (Temporary(type, per_thread=True) for type in (spec.scratch, spec.transformed))
    plan.emit(spec, node.inputs[0], packed, *([bias] if bias else []), *tail.operands, *scratch, tail.result)


def _packed(plan: Plan, weights: Array, spec: NarrowConv) -> Array:
    """Each group's ``[runs, numbers of a run, filters]`` in panels."""
    parts = np.split(weights, spec.groups, axis=-1)
    blocks = _blocks(plan, parts[0].shape[-1], spec.tile[1])
    return np.concatenate(
        [pack_words(part.reshape(-1, spec.run, part.shape[-1]), blocks, spec.factors) for part in parts]
    )


def _blocks(plan: Plan, columns: int, width: int) -> list[Block]:
    """The panels of `columns`, one after another."""
    full, narrow = divmod(columns, width)
    return [block(width, plan.machine.lanes)] * full + ([block(narrow, plan.machine.lanes)] if narrow else [])


def _emit_matrix(plan: Plan, node: Node, outer_axes: int, matrix: Array, bias: Value | None) -> None:
    """Rows of x times `matrix`; the result has `outer_axes` axes of images, then rows, then columns."""
    x, (length, columns) = node.inputs[0], matrix.shape
    tail, chain = tail_of_rows(plan, node, outer_axes)
    factors = factors_of(plan.machine, x.type.dtype)
    outer, rows, _ = chain.result.shape
    known = rows if isinstance(rows, int) else None
    tile = choose(plan.machine, known, columns, length * x.type.itemsize, rank=plan.variant.tile)
    small = matrix.nbytes <= _SMALL_WEIGHTS
    grid = (not (small and known and known >= _MANY_TILES * tile[0])) != plan.variant.turned
    spec = NarrowMatrix(factors, outer, rows, length, columns, tile, grid, bias is not None, chain)
    packed = pack_words(matrix[None], _blocks(plan, columns, tile[1]), factors)
    plan.emit(spec, x, packed, *([bias] if bias else []), *tail.operands, tail.result)
