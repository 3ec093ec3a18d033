"""Windows that slide over channels-last activations: which input elements an output position reads."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

from kcompile.codegen.tvm.expr import Index, index_max, index_min
from kcompile.codegen.tvm.tir import Function
from kcompile.errors import UnsupportedOp
from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.ops.conv import Padding, explicit_padding
from kcompile.ir.types import TensorType


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
        return cls(x.shape[0], x.shape[1:-1], y.shape[1:-1], channels, size, strides, dilation, padding)

    @property
    def pixels(self) -> Dim:
        """The number of results per channel."""
        return dims.mul(self.batch, *self.out)

    @property
    def low(self) -> tuple[int, ...] | None:
        """The padding before each axis, where it is known."""
        if self.padding == "same" and not all(isinstance(dim, int) for dim in self.spatial):
            return None
        spatial = tuple(dim if isinstance(dim, int) else 0 for dim in self.spatial)
        return tuple(low for low, _ in explicit_padding(self.padding, spatial, self.size, self.strides, self.dilation))

    def inside(self, axis: int) -> bool:
        """Whether every window lies inside the input along `axis`, as far as that is known."""
        extent, out = self.spatial[axis], self.out[axis]
        low = self.low[axis] if self.low else 1
        if low == 0 and not isinstance(extent, int):
            return self.padding == "valid" or (self.padding != "same" and self.padding[axis] == (0, 0))
        if low or not isinstance(extent, int) or not isinstance(out, int):
            return False
        return (out - 1) * self.strides[axis] + (self.size[axis] - 1) * self.dilation[axis] < extent


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
