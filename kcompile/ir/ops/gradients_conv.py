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
from kcompile.ir.op import Arrays, Op, Types, bind_shape
from kcompile.ir.ops.conv import (
    BLOCK_BYTES,
    AvgPool,
    Conv,
    MaxPool,
    Pairs,
    activation_shape,
    channels_of,
    explicit_padding,
    from_channels_last,
    padded,
    to_channels_last,
    windows_of,
)
from kcompile.ir.ops.linear import product
from kcompile.ir.types import Array


def _blocks(images: int, bytes_per_image: int) -> Iterator[slice]:
    size = max(BLOCK_BYTES // max(bytes_per_image, 1), 1)
    return (slice(first, first + size) for first in range(0, images, size))


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


def _empty_padded(images: int, spatial: tuple[int, ...], channels: int, pairs: Pairs, dtype: np.dtype) -> Array:
    extents = [extent + low + high for extent, (low, high) in zip(spatial, pairs, strict=True)]
    return np.zeros((images, *extents, channels), dtype)


@dataclass(frozen=True)
class ConvInputGradient(Op, name="conv_input_gradient", operands=("dy", "kernel")):
    """The gradient of the convolution `of` by its input, whose spatial extents are `spatial`."""

    of: Conv
    spatial: Shape

    def infer(self, types: Types) -> Types:
        dy, kernel = types
        channels = dims.mul(kernel.shape[-2], self.of.groups)
        x = dy.with_shape(activation_shape(dy.shape[0], list(self.spatial), channels, self.of.data_format))
        self.require(self.of.infer((x, kernel)) == (dy,), "dy must be what the convolution gives", types)
        return (x,)

    def kernel(self, args: Arrays) -> Arrays:
        of, dy, kernel = self.of, to_channels_last(args[0], self.of.data_format), args[1]
        spatial = tuple(map(int, self.spatial))
        pairs = explicit_padding(of.padding, spatial, kernel.shape[:-2], of.strides, of.rates)
        channels = kernel.shape[-2] * of.groups
        dx = np.empty((dy.shape[0], *spatial, channels), dy.dtype)
        for block in _blocks(dy.shape[0], (math.prod(spatial) * channels + math.prod(dy.shape[1:])) * dy.itemsize):
            total = _empty_padded(dy[block].shape[0], spatial, channels, pairs, dy.dtype)
            if of.groups == channels > 1:
                self._add_depthwise(total, dy[block], kernel)
            else:
                parts = (np.split(a, of.groups, -1) for a in (total, dy[block], kernel))
                for part, rows, weights in zip(*parts, strict=True):
                    self._add(part, rows, weights)
            dx[block] = _unpadded(total, pairs)
        return (from_channels_last(dx, of.data_format),)

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
class ConvFilterGradient(Op, name="conv_filter_gradient", operands=("x", "dy")):
    """The gradient of the convolution `of` by its kernel, whose window is `window`."""

    of: Conv
    window: tuple[int, ...]

    def infer(self, types: Types) -> Types:
        x, dy = types
        channels, filters = (channels_of(t.shape, self.of.data_format) for t in types)
        per_group = dims.exact_div(channels, self.of.groups)
        self.require(per_group is not None, "the channels must be divisible by `groups`", types)
        kernel = x.with_shape((*self.window, per_group or 0, filters))
        self.require(self.of.infer((x, kernel)) == (dy,), "dy must be what the convolution gives", types)
        return (kernel,)

    def kernel(self, args: Arrays) -> Arrays:
        of = self.of
        x, dy = (to_channels_last(a, of.data_format) for a in args)
        pairs = explicit_padding(of.padding, x.shape[1:-1], self.window, of.strides, of.rates)
        x = padded(x, pairs)
        if of.groups == x.shape[-1] > 1:
            return (self._depthwise(x, dy),)
        parts = zip(np.split(x, of.groups, -1), np.split(dy, of.groups, -1), strict=True)
        return (np.concatenate([self._correlated(*part) for part in parts], axis=-1),)

    def _correlated(self, x: Array, dy: Array) -> Array:
        filters = dy.shape[-1]
        view = windows_of(x, self.window, self.of.strides, self.of.rates)
        width = math.prod(self.window) * x.shape[-1]
        total = np.zeros((width, filters), x.dtype)
        lines = max(BLOCK_BYTES // max(math.prod(dy.shape[2:-1]) * (width + filters) * x.itemsize, 1), 1)
        images = max(lines // max(dy.shape[1], 1), 1)
        for n in range(0, dy.shape[0], images):
            for first in range(0, dy.shape[1], lines):
                block = (slice(n, n + images), slice(first, first + lines))
                rows = dy[block].reshape(-1, filters)
                total += product(view[block].reshape(rows.shape[0], width).T, rows)
        return total.reshape(*self.window, x.shape[-1], filters)

    def _depthwise(self, x: Array, dy: Array) -> Array:
        channels = x.shape[-1]
        apart = dy.reshape(*dy.shape[:-1], channels, dy.shape[-1] // channels)
        kernel = np.zeros((*self.window, channels, apart.shape[-1]), x.dtype)
        for block in _blocks(x.shape[0], (math.prod(x.shape[1:]) + math.prod(dy.shape[1:])) * x.itemsize):
            for position in np.ndindex(*self.window):
                reads = x[(block, *_reads(position, dy.shape[1:-1], self.of.strides, self.of.rates))]
                kernel[position] += np.einsum("nc,ncm->cm", reads.reshape(-1, channels), _rows(apart[block]))
        return kernel.reshape(*self.window, 1, dy.shape[-1])

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(types[1].size, *results[0].shape[:-1])


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


@dataclass(frozen=True)
class MaxPoolGradient(Op, name="max_pool_gradient", operands=("x", "y", "dy")):
    """The gradient of the pooling `of`: each window's goes to its largest element, of equal ones to the first."""

    of: MaxPool

    def infer(self, types: Types) -> Types:
        x, y, dy = types
        self.require(self.of.infer((x,)) == (y,) and y == dy, "y and dy must be what the pooling gives", types)
        return (x,)

    def kernel(self, args: Arrays) -> Arrays:
        of, rates = self.of, (1,) * len(self.of.strides)
        x, y, dy = (to_channels_last(a, of.data_format) for a in args)
        pairs = explicit_padding(of.padding, x.shape[1:-1], of.pool_size, of.strides, rates)
        dx = np.empty(x.shape, x.dtype)
        for block in _blocks(x.shape[0], 4 * math.prod(x.shape[1:]) * x.itemsize):
            seen, left = padded(x[block], pairs, -np.inf), dy[block].copy()
            total = np.zeros_like(seen)
            for position in np.ndindex(*of.pool_size):
                reads = (slice(None), *_reads(position, dy.shape[1:-1], of.strides, rates))
                chosen = left * (seen[reads] == y[block])
                total[reads] += chosen
                left -= chosen
            dx[block] = _unpadded(total, pairs)
        return (from_channels_last(dx, of.data_format),)


@dataclass(frozen=True)
class AvgPoolGradient(Op, name="avg_pool_gradient", operands=("dy",)):
    """The gradient of the pooling `of`: spread evenly over each window of an input with extents `spatial`."""

    of: AvgPool
    spatial: Shape

    def infer(self, types: Types) -> Types:
        dy, data_format = types[0], self.of.data_format
        channels = channels_of(dy.shape, data_format)
        x = dy.with_shape(activation_shape(dy.shape[0], list(self.spatial), channels, data_format))
        self.require(self.of.infer((x,)) == types, "dy must be what the pooling gives", types)
        return (x,)

    def kernel(self, args: Arrays) -> Arrays:
        of, dy, rates = self.of, to_channels_last(args[0], self.of.data_format), (1,) * len(self.of.strides)
        spatial = tuple(map(int, self.spatial))
        pairs = explicit_padding(of.padding, spatial, of.pool_size, of.strides, rates)
        inside = padded(np.ones((1, *spatial, 1), dy.dtype), pairs)
        positions = [_reads(position, dy.shape[1:-1], of.strides, rates) for position in np.ndindex(*of.pool_size)]
        count = sum((inside[(slice(None), *reads)] for reads in positions), np.zeros((1,) * dy.ndim, dy.dtype))
        dx = np.empty((dy.shape[0], *spatial, dy.shape[-1]), dy.dtype)
        for block in _blocks(dy.shape[0], 2 * math.prod(dx.shape[1:]) * dy.itemsize):
            share = dy[block] / count
            total = _empty_padded(share.shape[0], spatial, dy.shape[-1], pairs, dy.dtype)
            for reads in positions:
                total[(slice(None), *reads)] += share
            dx[block] = _unpadded(total, pairs)
        return (from_channels_last(dx, of.data_format),)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, spatial=bind_shape(self.spatial, bindings))
