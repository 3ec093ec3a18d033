"""Windows over every channel by itself, so that channels are the lanes: depthwise convolutions and pooling.

Results that are neighbours along the last axis are made together: an element of x is loaded once for all windows of
theirs that hold it, and their sums do not wait for each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

from kcompile.codegen.tvm.arrays import Accumulators, Pointer
from kcompile.codegen.tvm.expr import Expr, Index
from kcompile.codegen.tvm.kernels.nest import product
from kcompile.codegen.tvm.tir import Function
from kcompile.codegen.tvm.windows import MOST_UNROLLED_TAPS, OpenWindows, Piece, Row, Windows, segments_of

# Results per piece: a loaded element serves as many of them as its window reaches.
_RESULTS = 6

Bounds: TypeAlias = list[tuple[Index, Index]]


class ChannelwiseFunction(ABC):
    """A kernel being written: `write` makes the whole loop nest."""

    def __init__(
        self,
        f: Function,
        windows: Windows,
        dtype: str,
        x: Pointer,
        y: Pointer,
        epilogue: Callable[[Expr, Sequence[Index]], Expr],
    ) -> None:
        """The sums of elements of x are of `dtype`; y holds what the epilogue makes of them."""
        self._f = f
        self._windows = windows
        self._dtype = dtype
        self._x = x
        self._y = y
        self._epilogue = epilogue
        self._open = OpenWindows(f, windows)
        self._row = Row(f, self._open, windows, 1 if f.machine.compact else _RESULTS)

    @abstractmethod
    def start(self, c: Index, lanes: int) -> Expr:
        """What the sums for the channels from `c` on begin with."""

    @abstractmethod
    def add(self, sums: Accumulators, i: int, x: Expr, weight: Expr | None) -> None:
        """Add an element to the sum of result `i`."""

    def line_of(self, taps: Sequence[Index], c: Index) -> Index:
        """The offset of the weights of the taps along the last axis, at these taps along the others."""
        del taps, c
        return 0

    def weight(self, offset: Index, lanes: int) -> Expr | None:
        """The weights of a tap, if there are any."""
        del offset, lanes

    def finish(self, value: Expr, count: Index) -> Expr:
        """The result of a window of `count` elements, for the epilogue."""
        del count
        return value

    def write(self) -> None:
        """Threads share rows of results."""
        f, windows, channels = self._f, self._open, self._windows.channels
        segments = segments_of(self._windows, _RESULTS)
        lead = [windows.batch, *windows.out[:-1], segments]
        with f.parallel(product(lead)) as unit:
            n, *position, segment = f.unravel(unit, lead)
            bounds = [windows.bounds(axis, at) for axis, at in enumerate(position)]
            origin = windows.origin(n, position)
            row: Index = n
            for at, extent in zip(position, windows.out, strict=False):
                row = row * extent + at
            row = f.name_index(row * windows.out[-1])
            for piece in self._row.pieces(segment, segments):
                for c, lanes in f.vectors(channels):
                    sums = self._sums(piece, bounds, f.name_index(origin + c), c, lanes)
                    for i in range(piece.count):
                        finished = self.finish(sums[i], self._elements(piece, bounds, i))
                        value = self._epilogue(finished, [n, *position, piece.start + i, c])
                        self._y.store((row + (piece.start + i)) * channels + c, value)

    def _elements(self, piece: Piece, bounds: Bounds, result: int) -> Index:
        """How many elements the window of a result has."""
        along: Index = self._windows.size[-1]
        if piece.bounds:
            along = piece.bounds[1] - piece.bounds[0]
        elif piece.inside:
            along = sum(result in results for results in piece.inside)
        return product([along, *(last - first for first, last in bounds)])

    def _sums(self, piece: Piece, bounds: Bounds, origin: Index, c: Index, lanes: int) -> Accumulators:
        f, spec = self._f, self._windows
        sums, start = f.accumulators(piece.count, lanes, self._dtype), self.start(c, lanes)
        for i in range(piece.count):
            sums[i] = start
        left = (piece.start * spec.strides[-1] - self._open.low[-1]) * spec.channels
        with self._open.taps(bounds) as (taps, offset):
            at, weights = f.name_index(origin + offset + left), self.line_of(taps, c)
            if piece.bounds:
                self._one(sums, piece.bounds, at, weights, lanes)
            elif spec.size[-1] > MOST_UNROLLED_TAPS:
                self._in_loop(sums, piece, at, weights, lanes)
            else:
                self._several(sums, piece, at, weights, lanes)
        return sums

    def _in_loop(self, sums: Accumulators, piece: Piece, at: Index, weights: Index, lanes: int) -> None:
        """Neighbouring results under a long window, all of whose taps are inside."""
        spec = self._windows
        with self._f.loop(spec.size[-1]) as tap:
            weight = self.weight(weights + tap * spec.channels, lanes)
            first = self._f.name_index(at + tap * (spec.dilation[-1] * spec.channels))
            for i in range(piece.count):
                self.add(sums, i, self._load(first + i * (spec.strides[-1] * spec.channels), lanes), weight)

    def _one(self, sums: Accumulators, bounds: tuple[Index, Index], at: Index, weights: Index, lanes: int) -> None:
        """One result, whose taps are known at run time."""
        spec = self._windows
        with self._f.loop(bounds[1] - bounds[0]) as i:
            tap = self._f.name_index(bounds[0] + i)
            x = self._load(at + tap * (spec.dilation[-1] * spec.channels), lanes)
            self.add(sums, 0, x, self.weight(weights + tap * spec.channels, lanes))

    def _several(self, sums: Accumulators, piece: Piece, at: Index, weights: Index, lanes: int) -> None:
        """Neighbouring results: each element is loaded once and used by all windows that hold it."""
        spec = self._windows
        taps = [self.weight(weights + tap * spec.channels, lanes) for tap in range(spec.size[-1])]
        everything = (tuple(range(piece.count)),) * spec.size[-1]
        uses: dict[int, list[tuple[int, int]]] = {}
        for tap, results in enumerate(piece.inside or everything):
            for i in results:
                uses.setdefault(i * spec.strides[-1] + tap * spec.dilation[-1], []).append((i, tap))
        for distance in sorted(uses):
            x = self._load(at + distance * spec.channels, lanes)
            for i, tap in uses[distance]:
                self.add(sums, i, x, taps[tap])

    def _load(self, offset: Index, lanes: int) -> Expr:
        return self._f.let(self._x.load(offset, lanes).cast(self._dtype))
