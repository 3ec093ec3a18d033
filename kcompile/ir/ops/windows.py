"""How windows move over the spatial axes of arrays, and products of their patches a block at a time."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kcompile.ir.op import Arrays, Op
from kcompile.ir.ops.linear import product
from kcompile.ir.types import Array, type_of

DataFormat: TypeAlias = Literal["channels_last", "channels_first"]
Pairs: TypeAlias = tuple[tuple[int, int], ...]

# Patches that are multiplied at a time. The threads of a product wait for each other at its end, so few large products
# are better than many: on ResNet50, 0.5 to 32 MB take about the same time on one thread, and on two busy cores the
# largest is 8 times as fast as the smallest.
BLOCK_BYTES = 1 << 25

# The same where a product has one thread. Threads that compute parts take Python's lock in turn, for each call of
# NumPy, and wait 20 µs where it is taken, so that calls must be long: the CIFAR CNN's step of 128 samples takes 24 ms
# with this on two cores, 37 with patches of 512 kB, which would stay in the second-level cache; one core takes 36.
PART_BYTES = 1 << 22


def to_channels_last(x: Array, data_format: DataFormat) -> Array:
    return x if data_format == "channels_last" else np.moveaxis(x, 1, -1)


def from_channels_last(x: Array, data_format: DataFormat) -> Array:
    return x if data_format == "channels_last" else np.moveaxis(x, -1, 1)


def padded(x: Array, pairs: Pairs, fill: float = 0.0) -> Array:
    """``x: [N, *spatial, C]`` with `fill` around its spatial axes."""
    widths = ((0, 0), *pairs, (0, 0))
    return np.pad(x, widths, constant_values=x.dtype.type(fill)) if any(map(any, pairs)) else x


def windows_of(x: Array, window: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
    """``x: [N, *spatial, C] -> [N, *out, *window, C]``, a view."""
    axes = tuple(range(1, x.ndim - 1))
    reach = tuple((size - 1) * rate + 1 for size, rate in zip(window, dilation, strict=True))
    if any(extent < size for extent, size in zip(x.shape[1:-1], reach, strict=True)):
        return np.empty((x.shape[0], *(0,) * len(axes), *window, x.shape[-1]), x.dtype)
    view = sliding_window_view(x, reach, axis=axes)
    steps = tuple(slice(None, None, step) for step in strides)
    rates = tuple(slice(None, None, rate) for rate in dilation)
    return np.moveaxis(view[(slice(None), *steps, slice(None), *rates)], x.ndim - 1, -1)


def by_window(view: Array, size: tuple[int, ...]) -> Array:
    """``[N, *out, ...] -> [N, *size, *(out // size), ...]``, a view: results by their place in windows of `size`."""
    rank = len(size)
    extents = [(extent // step, step) for extent, step in zip(view.shape[1 : rank + 1], size, strict=True)]
    whole = view[(slice(None), *(slice(count * step) for count, step in extents))]
    split = whole.reshape(view.shape[0], *(n for pair in extents for n in pair), *view.shape[rank + 1 :])
    places, windows = range(2, 2 * rank + 1, 2), range(1, 2 * rank, 2)
    return split.transpose(0, *places, *windows, *range(2 * rank + 1, split.ndim))


def from_windows(y: Array, size: tuple[int, ...]) -> Array:
    """Back to ``[N, *(out // size * size), ...]`` from what `by_window` gives."""
    rank = len(size)
    axes = (axis for pair in zip(range(rank + 1, 2 * rank + 1), range(1, rank + 1), strict=True) for axis in pair)
    extents = (count * step for count, step in zip(y.shape[rank + 1 : 2 * rank + 1], size, strict=True))
    turned = y.transpose(0, *axes, *range(2 * rank + 1, y.ndim))
    return turned.reshape(y.shape[0], *extents, *y.shape[2 * rank + 1 :])


def image_blocks(images: int, bytes_per_image: int, block_bytes: int) -> Iterator[slice]:
    """So many images at a time that they fill a block, at least one."""
    size = max(block_bytes // max(bytes_per_image, 1), 1)
    return (slice(first, first + size) for first in range(0, images, size))


def line_blocks(y: Array, bytes_per_patch: int, block_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Images and lines of ``y: [N, H, *spatial, F]`` at a time, whose patches fill a block."""
    lines = max(block_bytes // max(math.prod(y.shape[2:-1]) * bytes_per_patch, 1), 1)
    images = max(lines // max(y.shape[1], 1), 1)
    for n in range(0, y.shape[0], images):
        for first in range(0, y.shape[1], lines):
            yield slice(n, n + images), slice(first, first + lines)


def product_into(x: Array, y: Array, out: Array) -> None:
    """Write ``x @ y`` to `out`, whose axes but the last are the rows."""
    if out.flags.c_contiguous and x.dtype == out.dtype != np.float16:
        np.matmul(x, y, out=out.reshape(x.shape[0], y.shape[1]))
    else:
        out[...] = product(x, y).reshape(out.shape)


def add_along_rows(y: Array, bias: Array) -> None:
    """Add ``bias: [F]`` to each row of ``y: [..., W, F]``; few long rows take NumPy less time than many short ones."""
    wide = y.reshape(-1, y.shape[-2] * y.shape[-1]) if y.flags.c_contiguous and y.size else y
    wide += np.tile(bias, wide.shape[-1] // bias.size)


class BlockwiseOp(Op):
    """An op that computes its only result block by block, and so can leave it in an array that it is given."""

    @abstractmethod
    def write(self, args: Arrays, out: Array, block_bytes: int = BLOCK_BYTES) -> None:
        """Write the result to `out`, from as much at a time as fills `block_bytes`."""

    def kernel(self, args: Arrays) -> Arrays:
        (type,) = self.infer(tuple(map(type_of, args)))
        out = np.empty(type.static_shape(), args[0].dtype)
        self.write(args, out)
        return (out,)
