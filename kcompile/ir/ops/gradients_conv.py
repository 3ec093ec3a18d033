"""Gradients of convolutions and pooling: ops of their own, a cache-sized block of images at a time.

Window position ``w`` of result ``o`` reads the padded input at ``o * stride + w * dilation``; a gradient goes the same
way back.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.op import Arrays, Types, bind_shape
from kcompile.ir.ops.conv import AvgPool, Conv, MaxPool, activation_shape, channels_of, explicit_padding
from kcompile.ir.ops.linear import product
from kcompile.ir.ops.windowed import WindowedConv
from kcompile.ir.ops.windows import (
    BLOCK_BYTES,
    BlockwiseOp,
    Pairs,
    by_window,
    from_windows,
    image_blocks,
    line_blocks,
    padded,
    to_channels_last,
    windows_of,
)
from kcompile.ir.types import Array


def _reads(
    position: tuple[int, ...], out: tuple[int, ...], strides: tuple[int, ...], rates: tuple[int, ...]
) -> tuple[slice, ...]:
    """Where the padded input is read by one position of the window, for all results."""
    return tuple(
        slice(w * rate, w * rate + (extent - 1) * stride + 1 if extent else 0, stride)
        for w, extent, stride, rate in zip(position, out, strides, rates, strict=True)
    )


def _unpadded(x: Array, pairs: Pairs) -> Array:
    crop = (slice(low, extent - high) for extent, (low, high) in zip(x.shape[1:-1], pairs, strict=True))
    return x[(slice(None), *crop)]


def _empty_padded(x: Array, pairs: Pairs) -> Array:
    """Zeros for ``x: [N, *spatial, C]`` with padding around it."""
    extents = [extent + low + high for extent, (low, high) in zip(x.shape[1:-1], pairs, strict=True)]
    return np.zeros((x.shape[0], *extents, x.shape[-1]), x.dtype)


@dataclass(frozen=True)
class ConvInputGradient(BlockwiseOp, name="conv_input_gradient", operands=("dy", "kernel")):
    """The gradient of the convolution `of` by its input, whose spatial extents are `spatial`.

    With `size`, ``dy`` is ordered as the results of a `WindowedConv`.
    """

    of: Conv
    spatial: Shape
    size: tuple[int, ...] = ()

    def infer(self, types: Types) -> Types:
        dy, kernel = types
        channels = dims.mul(kernel.shape[-2], self.of.groups)
        x = dy.with_shape(activation_shape(dy.shape[0], list(self.spatial), channels, self.of.data_format))
        forward = WindowedConv(self.of, self.size) if self.size else self.of
        self.require(forward.infer((x, kernel)) == (dy,), "dy must be what the convolution gives", types)
        return (x,)

    def write(self, args: Arrays, out: Array, block_bytes: int = BLOCK_BYTES) -> None:
        """Write the result to `out`, images of `block_bytes` at a time."""
        of, kernel = self.of, args[1]
        dy, dx = (to_channels_last(a, of.data_format) for a in (args[0], out))
        pairs = explicit_padding(of.padding, dx.shape[1:-1], kernel.shape[:-2], of.strides, of.rates)
        per_image = max(math.prod(dx.shape[1:]), math.prod(dy.shape[1:])) * dy.itemsize
        for block in image_blocks(dy.shape[0], per_image, block_bytes):
            total = _empty_padded(dx[block], pairs)
            rows = from_windows(dy[block], self.size) if self.size else dy[block]
            if of.groups == dx.shape[-1] > 1:
                self._add_depthwise(total, rows, kernel)
            else:
                for group in zip(*(np.split(a, of.groups, -1) for a in (total, rows, kernel)), strict=True):
                    self._add(*group)
            dx[block] = _unpadded(total, pairs)

    def _add(self, dx: Array, dy: Array, kernel: Array) -> None:
        rows = dy.reshape(math.prod(dy.shape[:-1]), dy.shape[-1])
        for position in np.ndindex(*kernel.shape[:-2]):
            reads = _reads(position, dy.shape[1:-1], self.of.strides, self.of.rates)
            dx[(slice(None), *reads)] += product(rows, kernel[position].T).reshape(*dy.shape[:-1], kernel.shape[-2])

    def _add_depthwise(self, dx: Array, dy: Array, kernel: Array) -> None:
        channels = dx.shape[-1]
        multiplier = kernel.shape[-1] // channels
        by_channel = kernel.reshape(*kernel.shape[:-2], channels, multiplier)
        apart = dy.reshape(*dy.shape[:-1], channels, multiplier)
        for position in np.ndindex(*kernel.shape[:-2]):
            reads = _reads(position, dy.shape[1:-1], self.of.strides, self.of.rates)
            for m in range(multiplier):
                dx[(slice(None), *reads)] += apart[..., m] * by_channel[(*position, slice(None), m)]

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, spatial=bind_shape(self.spatial, bindings))

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(types[0].size, *types[1].shape[:-1])


@dataclass(frozen=True)
class ConvFilterGradient(BlockwiseOp, name="conv_filter_gradient", operands=("x", "dy")):
    """The gradient of the convolution `of` by its kernel, whose window is `window`.

    With `size`, ``dy`` is ordered as the results of a `WindowedConv`.
    """

    of: Conv
    window: tuple[int, ...]
    size: tuple[int, ...] = ()

    def infer(self, types: Types) -> Types:
        x, dy = types
        channels, filters = (channels_of(t.shape, self.of.data_format) for t in types)
        per_group = dims.exact_div(channels, self.of.groups)
        self.require(per_group is not None, "the channels must be divisible by `groups`", types)
        kernel = x.with_shape((*self.window, per_group or 0, filters))
        forward = WindowedConv(self.of, self.size) if self.size else self.of
        self.require(forward.infer((x, kernel)) == (dy,), "dy must be what the convolution gives", types)
        return (kernel,)

    def write(self, args: Arrays, out: Array, block_bytes: int = BLOCK_BYTES) -> None:
        """Write the result to `out`, from patches of `block_bytes` at a time."""
        of = self.of
        x, dy = (to_channels_last(a, of.data_format) for a in args)
        x = padded(x, explicit_padding(of.padding, x.shape[1:-1], self.window, of.strides, of.rates))
        if of.groups == x.shape[-1] > 1:
            out[...] = self._depthwise(x, dy, block_bytes)
            return
        for part, rows, dw in zip(*(np.split(a, of.groups, -1) for a in (x, dy, out)), strict=True):
            dw[...] = self._correlated(part, rows, block_bytes).reshape(dw.shape)

    def _correlated(self, x: Array, dy: Array, block_bytes: int) -> Array:
        filters, width = dy.shape[-1], math.prod(self.window) * x.shape[-1]
        view = windows_of(x, self.window, self.of.strides, self.of.rates)
        view = by_window(view, self.size) if self.size else view
        total = np.zeros((width, filters), x.dtype)
        for block in line_blocks(dy, width * x.itemsize, block_bytes):
            rows = dy[block].reshape(-1, filters)
            total += product(view[block].reshape(rows.shape[0], width).T, rows)
        return total

    def _depthwise(self, x: Array, dy: Array, block_bytes: int) -> Array:
        channels = x.shape[-1]
        apart = dy.reshape(*dy.shape[:-1], channels, dy.shape[-1] // channels)
        kernel = np.zeros((*self.window, channels, apart.shape[-1]), x.dtype)
        for block in image_blocks(
            x.shape[0], (math.prod(x.shape[1:]) + math.prod(dy.shape[1:])) * x.itemsize, block_bytes
        ):
            for position in np.ndindex(*self.window):
                reads = x[(block, *_reads(position, dy.shape[1:-1], self.of.strides, self.of.rates))]
                kernel[position] += np.einsum("nc,ncm->cm", reads.reshape(-1, channels), _rows(apart[block]))
        return kernel.reshape(*self.window, 1, dy.shape[-1])

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(types[1].size, *results[0].shape[:-1])


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


@dataclass(frozen=True)
class MaxPoolGradient(BlockwiseOp, name="max_pool_gradient", operands=("x", "y", "dy")):
    """The gradient of the pooling `of`: each window's goes to its largest element, of equal ones to the first."""

    of: MaxPool

    def infer(self, types: Types) -> Types:
        x, y, dy = types
        self.require(self.of.infer((x,)) == (y,) and y == dy, "y and dy must be what the pooling gives", types)
        return (x,)

    def write(self, args: Arrays, out: Array, block_bytes: int = BLOCK_BYTES) -> None:
        """Write the result to `out`, images of `block_bytes` at a time."""
        x, y, dy, dx = (to_channels_last(a, self.of.data_format) for a in (*args, out))
        pairs = explicit_padding(
            self.of.padding, x.shape[1:-1], self.of.pool_size, self.of.strides, (1,) * (x.ndim - 2)
        )
        once = self.of.strides == self.of.pool_size and not any(map(any, pairs))
        for block in image_blocks(x.shape[0], 2 * math.prod(x.shape[1:]) * x.itemsize, block_bytes):
            if once:
                self._assign(dx[block], x[block], y[block], dy[block])
            else:
                total = _empty_padded(x[block], pairs)
                self._add(total, padded(x[block], pairs, -np.inf), y[block], dy[block])
                dx[block] = _unpadded(total, pairs)

    def _positions(self, y: Array) -> Iterator[tuple[slice, ...]]:
        rates = (1,) * len(self.of.strides)
        for position in np.ndindex(*self.of.pool_size):
            yield (slice(None), *_reads(position, y.shape[1:-1], self.of.strides, rates))

    def _assign(self, dx: Array, x: Array, y: Array, dy: Array) -> None:
        """The gradient where each element is in one window at most."""
        if tuple(n * size for n, size in zip(y.shape[1:-1], self.of.pool_size, strict=True)) != x.shape[1:-1]:
            dx[...] = 0.0
        left = dy.copy()
        for reads in self._positions(y):
            chosen = dx[reads]
            np.multiply(left, x[reads] == y, out=chosen)
            left -= chosen

    def _add(self, dx: Array, x: Array, y: Array, dy: Array) -> None:
        left = dy.copy()
        for reads in self._positions(y):
            chosen = left * (x[reads] == y)
            dx[reads] += chosen
            left -= chosen


@dataclass(frozen=True)
class AvgPoolGradient(BlockwiseOp, name="avg_pool_gradient", operands=("dy",)):
    """The gradient of the pooling `of`: spread evenly over each window of an input with extents `spatial`."""

    of: AvgPool
    spatial: Shape

    def infer(self, types: Types) -> Types:
        dy, data_format = types[0], self.of.data_format
        channels = channels_of(dy.shape, data_format)
        x = dy.with_shape(activation_shape(dy.shape[0], list(self.spatial), channels, data_format))
        self.require(self.of.infer((x,)) == types, "dy must be what the pooling gives", types)
        return (x,)

    def write(self, args: Arrays, out: Array, block_bytes: int = BLOCK_BYTES) -> None:
        """Write the result to `out`, images of `block_bytes` at a time."""
        of = self.of
        dy, dx = (to_channels_last(a, of.data_format) for a in (args[0], out))
        rates = (1,) * len(of.strides)
        pairs = explicit_padding(of.padding, dx.shape[1:-1], of.pool_size, of.strides, rates)
        inside = padded(np.ones((1, *dx.shape[1:-1], 1), dy.dtype), pairs)
        positions = [_reads(position, dy.shape[1:-1], of.strides, rates) for position in np.ndindex(*of.pool_size)]
        count = sum((inside[(slice(None), *reads)] for reads in positions), np.zeros((1,) * dy.ndim, dy.dtype))
        for block in image_blocks(dy.shape[0], 2 * math.prod(dx.shape[1:]) * dy.itemsize, block_bytes):
            share, total = dy[block] / count, _empty_padded(dx[block], pairs)
            for reads in positions:
                total[(slice(None), *reads)] += share
            dx[block] = _unpadded(total, pairs)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, spatial=bind_shape(self.spatial, bindings))
