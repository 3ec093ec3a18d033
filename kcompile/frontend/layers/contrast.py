"""Layers that stretch the contrast of images, at inference as while training."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.writing import in_channels_last, positions
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value
from kcompile.ir.types import Array

_BYTES = (0.0, 255.0)
_LEVELS = 256


def _scaled(x: Expression, source: tuple[float, float], target: tuple[float, float]) -> Expression:
    """`x` from one range of values to another; itself where they are one."""
    if source == target:
        return x
    unit = (x - source[0]) / (source[1] - source[0])
    return unit * (target[1] - target[0]) + target[0]


def _range(layer: Layer) -> tuple[float, float]:
    """The argument `value_range` as two numbers."""
    given: Any = getattr(layer, "value_range")  # noqa: B009 - the base has no such field
    fits = isinstance(given, list | tuple) and len(given) == 2  # pyright: ignore[reportUnknownArgumentType]
    fits = fits and all(isinstance(bound, int | float) for bound in given) and given[0] != given[1]
    layer.require(fits, "value_range", "two different numbers")
    return float(given[0]), float(given[1])


@register_layer("keras>AutoContrast")
@dataclass(eq=False)
class AutoContrast(Layer):
    """Each channel stretched over the whole range; one that is constant stays: ``x: T[N, H, W, C] -> f[N, H, W, C]``.

    As in Keras, the extremes are taken along axes 1 and 2 in either data format.
    """

    value_range: Any = _BYTES
    data_format: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bounds = tuple(sorted(_range(self)))
        self.value_range = sorted(self.value_range)
        self.data_format = arguments.data_format(self)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], 4)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        (given,) = lift(t.b, args[0])
        given = given.cast(self.compute_dtype)
        bounds = (self.bounds[0], self.bounds[1])
        x = _scaled(given, bounds, _BYTES)
        low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
        scale = 255.0 / (high - low)
        stretched = _scaled((x * scale - low * scale).clip(*_BYTES), _BYTES, bounds)
        return stretched.where(high > low, given).value


@register_layer("keras>ContrastLimitedAdaptiveHistogramEqualization")
@dataclass(eq=False)
class ContrastLimitedAdaptiveHistogramEqualization(Layer):
    """Each value replaced by its rank in the histograms of the tiles around it: ``x: T[N, H, W, C] -> T[N, H, W, C]``.

    What a histogram has above ``clip_limit`` times the mean is spread over all levels; Pizer et al. 1987, "Adaptive
    Histogram Equalization and Its Variations". Between the tiles' centres the ranks are interpolated.
    """

    autocast = False

    value_range: Any = _BYTES
    clip_limit: float = 4.0
    tile_grid_size: Any = (8, 8)
    data_format: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bounds = _range(self)
        self.grid = arguments.integers(self, "tile_grid_size", 2)
        self.data_format = arguments.data_format(self)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], 4)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return in_channels_last(t, args[0], str(self.data_format), lambda x: self._equalized(t, x))

    def _equalized(self, t: Trace, image: Value) -> Value:
        if not all(isinstance(extent, int) for extent in image.type.shape[1:]):
            raise ModelError(f"layer `{self.name}` needs images of known extents. Received: {image.type}.")
        height, width = (int(extent) for extent in image.type.shape[1:3])  # pyright: ignore[reportArgumentType]
        tile = (-(-height // self.grid[0]), -(-width // self.grid[1]))
        x = _scaled(lift(t.b, image)[0].cast("float32"), self.bounds, _BYTES)
        levels = x.cast("int32").maximum(0).minimum(_LEVELS - 1)
        ranks = self._ranks(self._histograms(t, levels, tile), tile[0] * tile[1])
        y = self._interpolated(t, ranks, levels, tile)
        return _scaled(y, _BYTES, self.bounds).cast(image.type.dtype).value

    def _histograms(self, t: Trace, levels: Expression, tile: tuple[int, int]) -> Expression:
        """How many elements of each tile have each level: ``i32[N, H, W, C] -> f32[N, rows, columns, C, 256]``."""
        batch, height, width, channels = levels.shape
        rows, columns = self.grid
        high = (0, rows * tile[0] - int(height), columns * tile[1] - int(width), 0)  # pyright: ignore
        whole = levels.apply(ops.Pad((0, 0, 0, 0), high, "symmetric")) if any(high) else levels
        tiles = whole.reshape((batch, rows, tile[0], columns, tile[1], channels)).transpose((0, 1, 3, 5, 2, 4))
        flat = tiles.reshape((batch, rows, columns, channels, tile[0] * tile[1]))
        # A count for both halves of the 8 bits is a product of two codes of 16, in place of one code of 256.
        upper = flat.apply(ops.FloorDiv(), 16)
        codes = [half.one_hot(16, "float32") for half in (upper, flat - upper * 16)]
        counts = codes[0].swap_last().apply(ops.MatMul(), codes[1])
        return counts.reshape((batch, rows, columns, channels, _LEVELS))

    def _ranks(self, counts: Expression, size: int) -> Expression:
        """Where each level stands among those of its tile, from 0 to 255."""
        if self.clip_limit > 0:
            clipped = counts.minimum(float(np.float32(self.clip_limit * size / 256)))
            counts = clipped + (counts - clipped).sum((4,), keepdims=True) / 256.0
        running = counts.apply(ops.CumSum(4))
        least = running.min((4,), keepdims=True)
        rest = size - least
        return ((running - least) * 255.0 / rest.where(rest.differs(0.0), 1.0)).clip(*_BYTES)

    def _interpolated(self, t: Trace, ranks: Expression, levels: Expression, tile: tuple[int, int]) -> Expression:
        """The ranks of the levels, each between the four tiles whose centres are around it."""
        batch, height, width, channels = levels.shape
        rows, columns = self.grid
        flat = ranks.reshape((ranks.type.size,))
        first = lift(t.b, positions(t, batch))[0].reshape((batch, 1, 1, 1)) * (rows * columns)
        channel = _constant(levels, np.arange(int(channels)).reshape(1, 1, 1, -1))  # pyright: ignore
        result: Expression | None = None
        for row, row_weight in _neighbours(int(height), tile[0], rows):  # pyright: ignore[reportArgumentType]
            for column, column_weight in _neighbours(int(width), tile[1], columns):  # pyright: ignore
                place = _constant(levels, row[None, :, None, None] * columns + column[None, None, :, None])
                index = ((first + place) * channels + channel) * _LEVELS + levels  # pyright: ignore
                found = flat.apply(ops.Gather(), index)
                weight = row_weight[None, :, None, None] * column_weight[None, None, :, None]
                part = found * _constant(found, weight)
                result = part if result is None else result + part
        assert result is not None
        return result


def _constant(beside: Expression, array: Array) -> Expression:
    return lift(beside.b, beside.b.constant(array.astype(beside.type.dtype)))[0]


def _neighbours(extent: int, tile: int, count: int) -> list[tuple[Array, Array]]:
    """For each position the tiles whose centres are before and behind it, and their weights; at borders one twice."""
    place = (np.arange(extent, dtype=np.float32) - np.float32(tile / 2)) / np.float32(tile) + np.float32(1)
    behind = np.floor(place)
    weight = place - behind
    return [
        (np.clip(behind - 1, 0, count - 1).astype(np.int32), 1 - weight),
        (np.clip(behind, 0, count - 1).astype(np.int32), weight),
    ]
