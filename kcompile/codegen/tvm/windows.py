"""Windows that slide over channels-last activations: which input elements an output position reads."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

from kcompile.codegen.tvm.expr import Index, index, index_max, index_min
from kcompile.codegen.tvm.tir import Function
from kcompile.errors import UnsupportedOp
from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.ops.conv import Padding, explicit_padding, same_padding
from kcompile.ir.types import TensorType

# With more taps than this along the last axis, code for each tap would be too long.
MOST_UNROLLED_TAPS = 8
# Parts of a sequence that threads share.
_SEGMENTS = 8


@dataclass(frozen=True)
class Windows:
    """Windows over ``x: [N, *spatial, C]`` with results ``[N, *out]``; all per-axis tuples have one entry per axis."""

    batch: Dim
    spatial: Shape
    out: Shape
    channels: int
    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Padding

    @classmethod
    def of(
        cls,
        x: TensorType,
        y: TensorType,
        size: tuple[int, ...],
        strides: tuple[int, ...],
        dilation: tuple[int, ...],
        padding: Padding,
    ) -> Self:
        """The windows that make ``y: [N, *out, …]`` of ``x: [N, *spatial, C]``."""
        channels = x.shape[-1]
        if not isinstance(channels, int):
            raise UnsupportedOp(f"target 'tvm' needs a known number of channels. Received: {x}.")
        spatial = x.shape[1:-1]
        axes = list(zip(spatial, size, strides, dilation, strict=True))
        if padding == "same" and all(isinstance(extent, int) or stride == 1 for extent, _, stride, _ in axes):
            # With stride 1 the padding does not depend on the extent, so an open one may be taken for 1.
            padding = tuple(same_padding(e if isinstance(e, int) else 1, w, s, d) for e, w, s, d in axes)
        return cls(x.shape[0], spatial, y.shape[1:-1], channels, size, strides, dilation, padding)

    @property
    def pixels(self) -> Dim:
        """The number of results per channel."""
        return dims.mul(self.batch, *self.out)

    @property
    def low(self) -> tuple[int, ...] | None:
        """The padding before each axis, where it is known."""
        if self.padding == "same":
            return None
        return tuple(low for low, _ in explicit_padding(self.padding, (), self.size, self.strides, self.dilation))

    @property
    def pointwise(self) -> bool:
        """Whether every result sees exactly the one pixel, or the one whole image, that stands where it stands."""
        moves = any(size != 1 or stride != 1 for size, stride in zip(self.size, self.strides, strict=True))
        alone = not moves and self.out == self.spatial
        whole = self.size == self.spatial and set(self.out) <= {1} and set(self.dilation) <= {1}
        return self.low is not None and not any(self.low) and (alone or whole)

    def inside(self, axis: int) -> bool:
        """Whether every window lies inside the input along `axis`, as far as that is known."""
        if self.padding == "same" or self.padding == "valid":
            return self.padding == "valid"
        return self.padding[axis] == (0, 0)


def segments_of(windows: Windows, tile: int) -> int:
    """Into how many parts to cut a row of results, so that threads have enough to share where there is one row only."""
    if len(windows.size) > 1:
        return 1
    out = windows.out[-1]
    return max(1, min(_SEGMENTS, out // (2 * tile))) if isinstance(out, int) else _SEGMENTS


class OpenWindows:
    """`Windows` in a function: extents and paddings as indices."""

    def __init__(self, f: Function, windows: Windows) -> None:
        self._f = f
        self._windows = windows
        self.spatial = [f.extent(dim) for dim in windows.spatial]
        self.out = [f.extent(dim) for dim in windows.out]
        self.batch = f.extent(windows.batch)
        self.strides = [f.extent(dims.mul(*windows.spatial[axis + 1 :], windows.channels)) for axis in self._axes]
        self.image = f.extent(dims.mul(*windows.spatial, windows.channels))
        known = windows.low
        self.low = [known[axis] if known else self._same(axis) for axis in self._axes]

    @property
    def _axes(self) -> range:
        return range(len(self._windows.size))

    def _same(self, axis: int) -> Index:
        w = self._windows
        reach = (w.size[axis] - 1) * w.dilation[axis] + 1
        total = (self.out[axis] - 1) * w.strides[axis] + reach - self.spatial[axis]
        low = index_max(total, 0) // 2
        return self._f.name_index(low)

    def bounds(self, axis: int, position: Index) -> tuple[Index, Index]:
        """The taps ``first … last-1`` along `axis` of the window at `position` that lie inside the input."""
        w = self._windows
        if w.inside(axis):
            return 0, w.size[axis]
        start = position * w.strides[axis] - self.low[axis]
        rate = w.dilation[axis]
        first = index_max(0, (rate - 1 - start) // rate)
        last = index_min(w.size[axis], (self.spatial[axis] - start + rate - 1) // rate)
        return self._f.name_index(first), self._f.name_index(last)

    def origin(self, n: Index, position: Sequence[Index]) -> Index:
        """The offset in x of tap 0 of the window at `position` of image `n`, which may lie outside."""
        offset = n * self.image
        for axis, at in enumerate(position):
            offset = offset + (at * self._windows.strides[axis] - self.low[axis]) * self.strides[axis]
        return self._f.name_index(offset)

    @contextmanager
    def taps(self, bounds: Sequence[tuple[Index, Index]]) -> Generator[tuple[list[Index], Index]]:
        """A loop nest over taps: ``(tap indices, offset of the tap from the window's origin)``."""
        with ExitStack() as stack:
            taps: list[Index] = []
            offset: Index = 0
            for axis, (first, last) in enumerate(bounds):
                tap = stack.enter_context(self._f.loop(last - first)) + first
                taps.append(tap)
                offset = tap * (self._windows.dilation[axis] * self.strides[axis]) + offset
            yield taps, offset


@dataclass(frozen=True)
class Piece:
    """`count` neighbouring results along the last axis, from `start` on.

    Attributes:
        inside: for each tap of the last axis, which of the results have it inside the input; None if all have all.
        bounds: the taps of the one result, where only the run time knows them.
    """

    start: Index
    count: int
    inside: tuple[tuple[int, ...], ...] | None = None
    bounds: tuple[Index, Index] | None = None

    def runs(self, size: int) -> Iterator[tuple[Index, Index, tuple[int, ...]]]:
        """``(first tap, number of taps, results that have them)``, for `size` taps on the last axis."""
        everything = tuple(range(self.count))
        if self.bounds:
            yield self.bounds[0], self.bounds[1] - self.bounds[0], everything
            return
        inside = self.inside or (everything,) * size
        first = 0
        while first < size:
            last = first + 1
            while last < size and inside[last] == inside[first]:
                last += 1
            if inside[first]:
                yield first, last - first, inside[first]
            first = last


class Row:
    """The results along the last axis, cut into pieces of at most `size` for register tiles."""

    def __init__(self, f: Function, windows: OpenWindows, spec: Windows, size: int) -> None:
        self._f = f
        self._windows = windows
        self._spec = spec
        self._size = size
        self._axis = len(spec.size) - 1
        self._out = windows.out[-1]

    def pieces(self, segment: Index = 0, segments: int = 1) -> Iterator[Piece]:
        """The pieces of one of `segments` parts of the row; the body is written once per kind of piece."""
        out, low, extent = self._out, self._windows.low[-1], self._windows.spatial[-1]
        if self._f.machine.compact and not self._spec.inside(self._axis):
            # One loop over all results, whose code is short because each finds its taps when it runs.
            with self._f.loop(out) as start:
                yield Piece(start, 1, bounds=self._windows.bounds(self._axis, start))
            return
        short = self._spec.size[-1] <= MOST_UNROLLED_TAPS
        if short and isinstance(out, int) and isinstance(low, int) and isinstance(extent, int):
            yield from self._known(out, low, extent, segment, segments)
        else:
            yield from self._open(segment, segments)

    def _known(self, out: int, low: int, extent: int, segment: Index, segments: int) -> Iterator[Piece]:
        cuts = [(start, min(self._size, out - start)) for start in range(0, out, self._size)]
        edges = [self._inside(start, count, low, extent) for start, count in cuts]
        plain = [i for i, (edge, cut) in enumerate(zip(edges, cuts, strict=True)) if not edge and cut[1] == self._size]
        first, last = (plain[0], plain[-1] + 1) if plain else (0, 0)
        with self._only(segment, 0, segments):
            for (start, count), edge in zip(cuts[:first], edges[:first], strict=True):
                yield Piece(start, count, edge)
        if plain:
            yield from self._tiles(first * self._size, last - first, segment, segments)
        with self._only(segment, segments - 1, segments):
            for (start, count), edge in zip(cuts[last:], edges[last:], strict=True):
                yield Piece(start, count, edge)

    def _inside(self, start: int, count: int, low: int, extent: int) -> tuple[tuple[int, ...], ...] | None:
        stride, rate = self._spec.strides[-1], self._spec.dilation[-1]
        inside = tuple(
            tuple(i for i in range(count) if 0 <= (start + i) * stride - low + tap * rate < extent)
            for tap in range(self._spec.size[-1])
        )
        return None if all(len(rows) == count for rows in inside) else inside

    def _open(self, segment: Index, segments: int) -> Iterator[Piece]:
        """Results at the borders one by one, those between them in tiles and then one by one."""
        f, stride = self._f, self._spec.strides[-1]
        reach = (self._spec.size[-1] - 1) * self._spec.dilation[-1] + 1
        low, extent = self._windows.low[-1], self._windows.spatial[-1]
        if self._spec.inside(self._axis):
            left, right = 0, self._out
        else:
            # A phase of a transposed convolution may begin inside the input, as if it had negative padding.
            left = f.name_index(index_max(index_min((low + (stride - 1)) // stride, self._out), 0))
            right = f.name_index(index_max(index_min((extent + low - reach) // stride + 1, self._out), left))
        tiles = f.name_index((right - left) // self._size)
        yield from self._tiles(left, tiles, segment, segments)
        rest = f.name_index(left + tiles * self._size)
        with self._only(segment, segments - 1, segments):
            for begin, end in ((0, left), (rest, self._out)):
                with f.loop(end - begin) as i:
                    start = f.name_index(begin + i)
                    yield Piece(start, 1, bounds=self._windows.bounds(self._axis, start))

    def _tiles(self, start: Index, count: Index, segment: Index, segments: int) -> Iterator[Piece]:
        """`count` whole tiles, of which each segment takes its share."""
        share = -(-count // segments)
        first = self._f.name_index(index_min(segment * share, count)) if segments > 1 else 0
        mine = self._f.name_index(index_min(share, count - first)) if segments > 1 else count
        with self._f.loop(mine) as i:
            yield Piece(start + (first + i) * self._size, self._size)

    @contextmanager
    def _only(self, segment: Index, chosen: int, segments: int) -> Generator[None]:
        if segments == 1:
            yield
        else:
            with self._f.when(index(segment).equals(chosen)):
                yield
