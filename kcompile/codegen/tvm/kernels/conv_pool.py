"""A convolution, its elementwise ops and the pooling after them as one kernel: the unpooled result is never stored."""

from dataclasses import dataclass

from kcompile.codegen.tvm.expr import Index
from kcompile.codegen.tvm.kernels.conv import Conv, ConvFunction
from kcompile.codegen.tvm.kernels.nest import nest, product
from kcompile.codegen.tvm.kernels.pooling import Kind, combined, finished, neutral
from kcompile.codegen.tvm.kernels.tile import Block, Tile
from kcompile.codegen.tvm.tir import Function
from kcompile.codegen.tvm.windows import Piece
from kcompile.ir import dims
from kcompile.ir.dims import Shape
from kcompile.ir.types import TensorType


@dataclass(frozen=True)
class Pooling:
    """Windows that neither overlap nor leave what they are laid over; `out` is how many there are per axis."""

    kind: Kind
    size: tuple[int, ...]
    strides: tuple[int, ...]
    out: Shape


@dataclass(frozen=True)
class ConvPool(Conv, family="conv_pool"):
    """`Conv`, of whose results each thread keeps the rows that one row of windows needs.

    Arguments: those of `Conv` up to the epilogue's operands, the thread's `scratch`, y ``[N, *pooled, F]``.
    """

    pooling: Pooling = Pooling("max", (), (), ())

    @property
    def overwritable(self) -> tuple[int, ...]:
        return ()

    def build(self, f: Function) -> None:
        _ConvPoolFunction(f, self).write()

    @property
    def scratch(self) -> TensorType:
        """The rows under one row of windows, of one panel's filters."""
        rows = dims.mul(*self.pooling.size[:-1])
        return TensorType(self.epilogue.result.dtype, (rows, self.windows.out[-1], self.tile[1]))


class _ConvPoolFunction(ConvFunction):
    def __init__(self, f: Function, spec: ConvPool) -> None:
        self._pooling = spec.pooling
        super().__init__(f, spec)
        self._pooled = [f.extent(dim) for dim in spec.pooling.out]

    def _declare_results(self, f: Function) -> None:
        self._scratch = f.pointer("scratch", self._spec.epilogue.result.dtype)
        super()._declare_results(f)

    def write(self) -> None:
        """Threads share rows of windows: with `grid`, those of one panel after another, else with all panels."""
        f, spec = self._f, self._spec
        lead = [self._windows.batch, *self._pooled[:-1]]
        if not spec.grid:
            with f.parallel(product(lead)) as unit:
                n, *position = f.unravel(unit, lead)
                with f.loop(spec.groups) as group:
                    for panel, columns in self._panels.all(f):
                        self._write_windows(n, position, (group, panel), columns)
            return
        extents = [spec.groups, self._panels.count, *lead]
        with f.parallel(product(extents)) as unit:
            group, panel, n, *position = f.unravel(unit, extents)
            for columns in self._panels.one(f, panel):
                self._write_windows(n, position, (group, panel), columns)

    def _write_windows(self, n: Index, lead: list[Index], at: tuple[Index, Index], columns: Block) -> None:
        f, size, strides = self._f, self._pooling.size, self._pooling.strides
        with nest(f, size[:-1]) as taps:
            rows = [f.name_index(i * stride + tap) for i, stride, tap in zip(lead, strides, taps, strict=False)]
            number = self._number(taps)

            def keep(tile: Tile, piece: Piece, n: Index, lead: list[Index], first: Index) -> None:
                def position(i: Index, column: Index) -> list[Index]:
                    return [n, *lead, piece.start + i, first + column]

                offset = f.name_index((number * self._windows.out[-1] + piece.start) * columns.columns)
                tile.store(self._scratch, offset, columns.columns, self._epilogue, position)

            self.write_row(n, rows, (0, 1), at, columns, keep)
        self._pool(n, lead, at, columns)

    def _pool(self, n: Index, lead: list[Index], at: tuple[Index, Index], columns: Block) -> None:
        """One row of windows, from the kept rows."""
        f, spec, pooling = self._f, self._spec, self._pooling
        dtype = spec.epilogue.result.dtype
        row = n
        for i, extent in zip(lead, self._pooled, strict=False):
            row = row * extent + i
        row = f.name_index(row * self._pooled[-1])
        first = f.name_index(at[0] * self._filters + at[1] * spec.tile[1])
        with f.loop(self._pooled[-1]) as window:
            for start, width in zip(columns.starts, columns.widths, strict=True):
                total = f.accumulators(1, width, dtype)
                total[0] = neutral(pooling.kind, dtype)
                with nest(f, pooling.size) as taps:
                    column = window * pooling.strides[-1] + taps[-1]
                    offset = (self._number(taps[:-1]) * self._windows.out[-1] + column) * columns.columns + start
                    total[0] = combined(pooling.kind, total[0], self._scratch.load(offset, width))
                value = finished(pooling.kind, total[0], product(pooling.size))
                self._y.store((row + window) * spec.filters + first + start, value)

    def _number(self, taps: list[Index]) -> Index:
        """The number of a kept row."""
        number: Index = 0
        for tap, size in zip(taps, self._pooling.size, strict=False):
            number = number * size + tap
        return number
