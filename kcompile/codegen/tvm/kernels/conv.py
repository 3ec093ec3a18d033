"""Convolutions over channels-last activations, of any rank: one row of results at a time, on register tiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from kcompile.codegen.tvm.epilogue import Epilogue, overwritable
from kcompile.codegen.tvm.expr import Index
from kcompile.codegen.tvm.kernels.nest import product
from kcompile.codegen.tvm.kernels.shares import parallel
from kcompile.codegen.tvm.kernels.tile import Block, Panel, Panels, Rows, Tile, block
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.vector import Chain
from kcompile.codegen.tvm.windows import OpenWindows, Piece, Row, Windows, segments_of
from kcompile.ir.dims import Dim


@dataclass(frozen=True)
class Placement:
    """Result i of an axis stands at ``first + i * step`` of the `extent` that the whole result has."""

    step: int
    first: int
    extent: Dim


@dataclass(frozen=True)
class Conv(Kernel, family="conv"):
    """``y[n, o, f] = epilogue(bias[f] + sum over t, c of x[n, o * stride - low + t * rate, c] * w[t, c, f])``.

    Taps are t and channels c; taps outside the input are skipped. Arguments: x ``[N, *spatial, C]``, w packed by group,
    the bias ``[F]`` if `bias`, the epilogue's operands, y ``[N, *out, F]``.
    """

    dtype: str
    windows: Windows
    groups: int
    filters: int
    tile: tuple[int, int]
    grid: bool
    bias: bool
    epilogue: Chain
    places: tuple[Placement, ...] = ()

    @property
    def overwritable(self) -> tuple[int, ...]:
        return () if self.places else overwritable(self.epilogue, 2 + self.bias)

    def build(self, f: Function) -> None:
        ConvFunction(f, self).write()


# Stores the sums of a piece of a row; also told the row's n and leading positions, and the first filter.
Store: TypeAlias = Callable[[Tile, Piece, Index, list[Index], Index], None]


class ConvFunction:
    """A convolution being written: `write` makes the whole loop nest, `write_row` one row of it."""

    def __init__(self, f: Function, spec: Conv) -> None:
        self._f = f
        self._spec = spec
        self._x = f.pointer("x", spec.dtype)
        self._w = f.pointer("w", spec.dtype)
        self._bias = f.pointer("bias", spec.dtype) if spec.bias else None
        self._epilogue = Epilogue(f, spec.epilogue)
        self._declare_results(f)
        self._windows = OpenWindows(f, spec.windows)
        self._extents = [f.extent(p.extent) for p in spec.places] if spec.places else self._windows.out
        self._row = Row(f, self._windows, spec.windows, spec.tile[0])
        self._channels = spec.windows.channels // spec.groups
        # Where code has to be small, only what is added at once is split.
        taps = spec.windows.size if f.machine.threaded else spec.windows.size[-1:]
        self._terms = self._channels * int(np.prod(taps))
        self._filters = spec.filters // spec.groups
        full, narrow = divmod(self._filters, spec.tile[1])
        self._panels = Panels(full, block(spec.tile[1], f.machine.lanes), block(narrow, f.machine.lanes))

    def _declare_results(self, f: Function) -> None:
        self._y = f.pointer("y", self._spec.epilogue.result.dtype)

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
                        self.write_row(n, position, (segment, segments), (group, panel), columns, self._store)
            return
        extents = [spec.groups, self._panels.count, *lead]
        with parallel(f, self._panels.costs(spec.groups, product(lead))) as unit:
            group, panel, n, *position, segment = f.unravel(unit, extents)
            for columns in self._panels.one(f, panel):
                self.write_row(n, position, (segment, segments), (group, panel), columns, self._store)

    def write_row(
        self,
        n: Index,
        lead: list[Index],
        part: tuple[Index, int],
        at: tuple[Index, Index],
        columns: Block,
        store: Store,
    ) -> None:
        """One part of the row at the positions `lead` of image n, for the group and panel `at`."""
        f, windows, spec = self._f, self._windows, self._spec
        group, panel = at
        bounds = [windows.bounds(axis, position) for axis, position in enumerate(lead)]
        origin = f.name_index(windows.origin(n, lead) + group * self._channels)
        first = f.name_index(group * self._filters + panel * spec.tile[1])
        weights = self._panel_offset(group, panel)
        for piece in self._row.pieces(*part):
            tile = Tile(f, piece.count, columns, spec.dtype, self._terms, once=False)
            tile.start(self._bias, first)
            start = (piece.start * spec.windows.strides[-1] - windows.low[-1]) * spec.windows.channels
            with windows.taps(bounds) as (taps, offset):
                x_at = f.name_index(origin + offset + start)
                self._multiply(tile, piece, x_at, f.name_index(weights + self._tap(taps) * columns.columns), columns)
            store(tile, piece, n, lead, first)

    def _store(self, tile: Tile, piece: Piece, n: Index, lead: list[Index], first: Index) -> None:
        """Into y."""
        f, filters = self._f, self._spec.filters
        lead = [f.name_index(self._place(axis, at)) for axis, at in enumerate(lead)]
        row: Index = n
        for at, extent in zip(lead, self._extents, strict=False):
            row = row * extent + at
        at = f.name_index((row * self._extents[-1] + self._place(-1, piece.start)) * filters + first)
        step = self._spec.places[-1].step if self._spec.places else 1

        def position(i: Index, column: Index) -> list[Index]:
            return [n, *lead, self._place(-1, piece.start + i), first + column]

        tile.store(self._y, at, step * filters, self._epilogue, position)

    def _place(self, axis: int, at: Index) -> Index:
        """Where result `at` of `axis` stands in y."""
        if not self._spec.places:
            return at
        place = self._spec.places[axis]
        return at * place.step + place.first

    def _panel_offset(self, group: Index, panel: Index) -> Index:
        length = self._channels * int(np.prod(self._spec.windows.size))
        return self._f.name_index((group * self._filters + panel * self._spec.tile[1]) * length)

    def _tap(self, taps: list[Index]) -> Index:
        """The line of the panel at which the taps of the leading axes begin."""
        number: Index = 0
        for tap, size in zip(taps, self._spec.windows.size, strict=False):
            number = number * size + tap
        return number * (self._spec.windows.size[-1] * self._channels)

    def _multiply(self, tile: Tile, piece: Piece, at: Index, weights: Index, columns: Block) -> None:
        """Add the products of the last axis's taps; `at` is the first result's tap 0."""
        f, windows = self._f, self._spec.windows
        step = windows.dilation[-1] * windows.channels
        for first, count, rows in piece.runs(windows.size[-1]):
            x = Rows(self._x, f.name_index(at + first * step), windows.strides[-1] * windows.channels)
            panel = Panel(self._w, f.name_index(weights + first * (self._channels * columns.columns)), columns.columns)
            if step == self._channels:  # taps follow each other in memory as channels do
                tile.multiply(x, panel, count * self._channels, rows)
                continue
            with f.loop(count) as tap:
                line = f.name_index(panel.at + tap * (self._channels * columns.columns))
                there = Rows(self._x, f.name_index(x.at + tap * step), x.between)
                tile.multiply(there, Panel(self._w, line, columns.columns), self._channels, rows)
