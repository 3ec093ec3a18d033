"""Convolutions and pooling over any number of spatial axes.

`x` is ``[N, *spatial, C]`` (``data_format="channels_last"``) or ``[N, C, *spatial]``; a kernel is always
``[*window, C / groups, F]`` as Keras stores it. `padding` is a pair ``(before, after)`` per spatial axis, ``"valid"``
(none), or ``"same"``: as much as makes the result ``ceil(spatial / stride)`` long, the odd element after, as
https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2 has it.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from kcompile.ir import dims, expression
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values
from kcompile.ir.ops.linear import product
from kcompile.ir.ops.shape import Slice
from kcompile.ir.ops.windows import (
    BLOCK_BYTES,
    BlockwiseOp,
    DataFormat,
    Pairs,
    add_along_rows,
    from_channels_last,
    image_blocks,
    line_blocks,
    padded,
    product_into,
    to_channels_last,
    windows_of,
)
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Value

Padding: TypeAlias = Literal["valid", "same"] | Pairs


def same_padding(extent: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """The padding before and after an axis that makes its result ``ceil(extent / stride)`` long."""
    total = max((-(-extent // stride) - 1) * stride + (window - 1) * dilation + 1 - extent, 0)
    return total // 2, total - total // 2


def explicit_padding(
    padding: Padding,
    spatial: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Pairs:
    """`padding` as pairs, for known extents."""
    if padding == "valid":
        return ((0, 0),) * len(window)
    if padding == "same":
        return tuple(same_padding(*axis) for axis in zip(spatial, window, strides, dilation, strict=True))
    return padding


def window_extents(
    padding: Padding, spatial: Shape, window: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> list[Dim]:
    """Extents of a result: ``ceil(d / s)`` for "same", else ``(d + pads - (w - 1) * dilation - 1) // s + 1``."""
    if padding == "same":
        return [dims.ceil_div(dim, stride) for dim, stride in zip(spatial, strides, strict=True)]
    pairs = ((0, 0),) * len(window) if padding == "valid" else padding
    return [
        dims.add(dims.floor_div(dims.add(dim, low, high, -(size - 1) * rate - 1), stride), 1)
        for dim, (low, high), size, stride, rate in zip(spatial, pairs, window, strides, dilation, strict=True)
    ]


def require_windows(
    op: Op, types: Types, window: Shape, strides: tuple[int, ...], rates: tuple[int, ...], padding: Padding
) -> None:
    """Raise unless window, strides, dilation and padding hold a fitting number for each spatial axis of the operand."""
    rank = types[0].rank - 2
    op.require(rank >= 1 and len(window) == len(strides) == len(rates) == rank, "attributes and ranks must fit", types)
    sizes = (*window, *strides, *rates)
    op.require(all(isinstance(n, int) and n > 0 for n in sizes), "windows and steps must be from 1 on", types)
    pairs = () if isinstance(padding, str) else padding
    fits = isinstance(padding, str) or (len(pairs) == rank and all(n >= 0 for pair in pairs for n in pair))
    op.require(fits, "`padding` must hold a pair of numbers from 0 on per spatial axis", types)


def spatial_of(shape: Shape, data_format: DataFormat) -> Shape:
    """The spatial extents of an activation shape."""
    return shape[1:-1] if data_format == "channels_last" else shape[2:]


def channels_of(shape: Shape, data_format: DataFormat) -> Dim:
    """The channel extent of an activation shape."""
    return shape[-1] if data_format == "channels_last" else shape[1]


def activation_shape(batch: Dim, spatial: list[Dim], channels: Dim, data_format: DataFormat) -> list[Dim]:
    """The shape ``[N, *spatial, C]`` or ``[N, C, *spatial]``."""
    return [batch, *spatial, channels] if data_format == "channels_last" else [batch, channels, *spatial]


def correlate(view: Array, kernel: Array, y: Array, block_bytes: int) -> None:
    """Write products of patches, ``view: [*y.shape[:-1], *window, C]``, with the kernel to ``y``, a block each."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    for block in line_blocks(y, matrix.shape[0] * y.itemsize, block_bytes):
        patches = view[block].reshape(y[block].size // matrix.shape[1], matrix.shape[0])
        product_into(patches, matrix, y[block])


def _depthwise(x: Array, kernel: Array, strides: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
    """Cross-correlation of each channel with filters of its own, position by position of the window."""
    *window, _, filters = kernel.shape
    by_channel = kernel.reshape(*window, x.shape[-1], -1)
    view = windows_of(x, tuple(window), strides, dilation)
    lead = view.shape[: x.ndim - 1]
    y = np.zeros((*lead, *by_channel.shape[-2:]), x.dtype)
    for position in np.ndindex(*window):
        y += view[(..., *position, slice(None), None)] * by_channel[position]
    return y.reshape(*lead, filters)


def _bias_gradient(b: "Builder", dys: Gradients, operands: int, data_format: DataFormat) -> "tuple[Value, ...]":
    """The gradient by the bias, where there is one: the sum for each filter."""
    if operands < 3:
        return ()
    (dy,) = expression.lift(b, *dys)
    channels = dy.type.rank - 1 if data_format == "channels_last" else 1
    return (dy.sum([axis for axis in range(dy.type.rank) if axis != channels]).value,)


@dataclass(frozen=True)
class Conv(BlockwiseOp, name="conv", operands=("x", "kernel", "bias?")):
    """``y[n, o, f]`` is the sum over w and c of ``x[n, o * stride + w * dilation, c] * kernel[w, c, f]``.

    w runs over the window and c over the channels. ``groups`` splits channels and filters into independent blocks; a
    depthwise convolution has ``groups == C``.
    """

    strides: tuple[int, ...]
    padding: Padding = "valid"
    dilation: tuple[int, ...] = ()
    groups: int = 1
    data_format: DataFormat = "channels_last"

    @property
    def rates(self) -> tuple[int, ...]:
        """`dilation`, one per spatial axis."""
        return self.dilation or (1,) * len(self.strides)

    def pads(self, types: Types) -> Pairs:
        """The padding as pairs, where the spatial extents are known."""
        spatial = types[0].with_shape(spatial_of(types[0].shape, self.data_format)).static_shape()
        return explicit_padding(self.padding, spatial, types[1].static_shape()[:-2], self.strides, self.rates)

    def infer(self, types: Types) -> Types:
        x, kernel = types[:2]
        rank = len(self.strides)
        self.require(x.rank == kernel.rank == rank + 2 and x.dtype == kernel.dtype, "ranks and dtypes must fit", types)
        require_windows(self, types, kernel.shape[:rank], self.strides, self.rates, self.padding)
        filters, channels = kernel.static_shape()[-1], channels_of(x.shape, self.data_format)
        whole = self.groups > 0 and filters % self.groups == 0
        fits = whole and channels == dims.mul(kernel.shape[-2], self.groups)
        self.require(fits, "the kernel must hold [*window, channels / groups, filters]", types)
        self.require(len(types) < 3 or types[2].shape == (filters,), "the bias must hold one number per filter", types)
        spatial = spatial_of(x.shape, self.data_format)
        extents = window_extents(self.padding, spatial, kernel.static_shape()[:rank], self.strides, self.rates)
        self.require(all(isinstance(e, str) or e >= 0 for e in extents), "the window exceeds the input", types)
        return (x.with_shape(activation_shape(x.shape[0], extents, filters, self.data_format)),)

    def write(self, args: Arrays, out: Array, block_bytes: int = BLOCK_BYTES) -> None:
        """Write the result to `out`, from patches of `block_bytes` at a time."""
        x, y = (to_channels_last(a, self.data_format) for a in (args[0], out))
        kernel = args[1]
        x = padded(x, explicit_padding(self.padding, x.shape[1:-1], kernel.shape[:-2], self.strides, self.rates))
        if self.groups == x.shape[-1] > 1:
            y[...] = _depthwise(x, kernel, self.strides, self.rates)
        else:
            for part, matrix, rows in zip(*(np.split(a, self.groups, -1) for a in (x, kernel, y)), strict=True):
                view = windows_of(part, matrix.shape[:-2], self.strides, self.rates)
                correlate(view, matrix, rows, block_bytes)
        if len(args) > 2:
            add_along_rows(y, args[2])

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(results[0].size, *types[1].shape[:-1])

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients_conv import ConvFilterGradient, ConvInputGradient

        (dy,) = expression.lift(b, *dys)
        spatial = spatial_of(xs[0].type.shape, self.data_format)
        dx = b(ConvInputGradient(self, spatial), dy.value, xs[1])
        window = xs[1].type.static_shape()[:-2]
        return (
            dx,
            b(ConvFilterGradient(self, window), xs[0], dy.value),
            *_bias_gradient(b, dys, len(xs), self.data_format),
        )


@dataclass(frozen=True)
class ConvTranspose(Op, name="conv_transpose", operands=("x", "kernel", "bias?")):
    """The gradient of `Conv` by its input: ``x[n, i, c] * kernel[w, f, c]`` is added at ``i * stride + w * dilation``.

    The kernel is ``[*window, F / groups, C]``. The full result, ``(d - 1) * stride + (w - 1) * dilation + 1 +
    output_padding`` long, loses `padding` at both ends.
    """

    strides: tuple[int, ...]
    padding: Pairs
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...] = ()
    groups: int = 1
    data_format: DataFormat = "channels_last"

    @property
    def rates(self) -> tuple[int, ...]:
        """`dilation`, one per spatial axis."""
        return self.dilation or (1,) * len(self.strides)

    def infer(self, types: Types) -> Types:
        x, kernel = types[:2]
        rank = len(self.strides)
        self.require(x.rank == kernel.rank == rank + 2 and x.dtype == kernel.dtype, "ranks and dtypes must fit", types)
        require_windows(self, types, kernel.shape[:rank], self.strides, self.rates, self.padding)
        self.require(len(self.output_padding) == rank, "`output_padding` must hold one number per axis", types)
        whole = self.groups > 0 and kernel.static_shape()[-1] % self.groups == 0
        self.require(
            whole and channels_of(x.shape, self.data_format) == kernel.shape[-1],
            "the kernel must hold [*window, filters / groups, channels]",
            types,
        )
        filters = dims.mul(kernel.shape[-2], self.groups)
        self.require(len(types) < 3 or types[2].shape == (filters,), "the bias must hold one number per filter", types)
        window, spatial = kernel.static_shape()[:rank], spatial_of(x.shape, self.data_format)
        extents = [
            dims.add(dims.mul(dims.sub(d, 1), s), (w - 1) * r + 1 + extra - low - high)
            for d, s, w, r, extra, (low, high) in zip(
                spatial, self.strides, window, self.rates, self.output_padding, self.padding, strict=True
            )
        ]
        self.require(all(isinstance(e, str) or e >= 0 for e in extents), "the padding exceeds the result", types)
        return (x.with_shape(activation_shape(x.shape[0], extents, filters, self.data_format)),)

    def kernel(self, args: Arrays) -> Arrays:
        x, kernel = to_channels_last(args[0], self.data_format), args[1]
        window, per_group = kernel.shape[:-2], kernel.shape[-2]
        full = [
            (d - 1) * s + (w - 1) * r + 1 + max(extra, 0)
            for d, s, w, r, extra in zip(
                x.shape[1:-1], self.strides, window, self.rates, self.output_padding, strict=True
            )
        ]
        y = np.zeros((x.shape[0], *full, self.groups, per_group), x.dtype)
        for g, (part, weights) in enumerate(zip(*(np.split(a, self.groups, -1) for a in (x, kernel)), strict=True)):
            rows = part.reshape(math.prod(part.shape[:-1]), part.shape[-1])
            for position in np.ndindex(*window):
                index = tuple(
                    slice(p * r, p * r + (d - 1) * s + 1 if d else 0, s)
                    for p, r, d, s in zip(position, self.rates, x.shape[1:-1], self.strides, strict=True)
                )
                y[(slice(None), *index, g)] += product(rows, weights[position].T).reshape(*part.shape[:-1], per_group)
        crop = tuple(
            slice(low, extent + min(extra, 0) - high)
            for extent, extra, (low, high) in zip(full, self.output_padding, self.padding, strict=True)
        )
        y = y.reshape(x.shape[0], *full, self.groups * per_group)[(slice(None), *crop)]
        if len(args) > 2:
            y = y + args[2]
        return (from_channels_last(y, self.data_format),)

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(types[0].size, *types[1].shape[:-1])

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients_conv import ConvFilterGradient

        (dy,) = expression.lift(b, *dys)
        bias = _bias_gradient(b, dys, len(xs), self.data_format)
        first, pairs = 1 if self.data_format == "channels_last" else 2, list[tuple[int, int]]()
        for axis, ((low, high), extra) in enumerate(zip(self.padding, self.output_padding, strict=True), first):
            rest = high - extra
            if rest < 0:  # the last elements depend on the bias alone
                dy = dy.apply(Slice(axis, 0, dims.add(dy.shape[axis], rest)))
            pairs.append((low, max(rest, 0)))
        forward = Conv(self.strides, tuple(pairs), self.dilation, self.groups, self.data_format)
        kernel = ConvFilterGradient(forward, xs[1].type.static_shape()[:-2])
        return b(forward, dy.value, xs[1]), b(kernel, dy.value, xs[0]), *bias


@dataclass(frozen=True)
class _Pool(BlockwiseOp, operands=("x",)):
    """Base: windows of `pool_size` over the spatial axes."""

    pool_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Padding = "valid"
    data_format: DataFormat = "channels_last"

    def pads(self, types: Types) -> Pairs:
        """The padding as pairs, where the spatial extents are known."""
        spatial = types[0].with_shape(spatial_of(types[0].shape, self.data_format)).static_shape()
        return explicit_padding(self.padding, spatial, self.pool_size, self.strides, (1,) * len(self.strides))

    def infer(self, types: Types) -> Types:
        x = types[0]
        spatial, rates = spatial_of(x.shape, self.data_format), (1,) * len(self.strides)
        require_windows(self, types, self.pool_size, self.strides, rates, self.padding)
        pairs = () if isinstance(self.padding, str) else self.padding
        holds = all(max(pair) < size for pair, size in zip(pairs, self.pool_size, strict=bool(pairs)))
        self.require(holds, "no window may hold padding alone", types)
        extents = window_extents(self.padding, spatial, self.pool_size, self.strides, rates)
        self.require(all(isinstance(e, str) or e >= 0 for e in extents), "the window exceeds the input", types)
        channels = channels_of(x.shape, self.data_format)
        return (x.with_shape(activation_shape(x.shape[0], extents, channels, self.data_format)),)

    def write(self, args: Arrays, out: Array, block_bytes: int = BLOCK_BYTES) -> None:
        """Write the result to `out`, images of `block_bytes` at a time."""
        x, y = (to_channels_last(a, self.data_format) for a in (args[0], out))
        for block in image_blocks(x.shape[0], math.prod(x.shape[1:]) * x.itemsize, block_bytes):
            y[block] = self._pooled(x[block])

    def _pooled(self, x: Array) -> Array:
        """The result for ``x: [N, *spatial, C]``."""
        raise NotImplementedError

    def _reduced(self, x: Array, reduce: Callable[[Array, Array], Array], fill: float) -> Array:
        """`reduce` over the windows of ``x: [N, *spatial, C]``, one axis after the other, `fill` being the padding."""
        rates = (1,) * len(self.strides)
        x = padded(x, explicit_padding(self.padding, x.shape[1:-1], self.pool_size, self.strides, rates), fill)
        for axis, (size, stride) in enumerate(zip(self.pool_size, self.strides, strict=True), 1):
            reach = max((x.shape[axis] - size) // stride, -1) * stride + 1
            parts = (x[(slice(None),) * axis + (slice(i, max(i + reach, 0), stride),)] for i in range(size))
            x = functools.reduce(reduce, parts)
        return x


@dataclass(frozen=True)
class MaxPool(_Pool, name="max_pool"):
    """The largest element of each window; padding never wins."""

    def _pooled(self, x: Array) -> Array:
        lowest = -np.inf if x.dtype.kind == "f" else float(np.iinfo(x.dtype).min)
        return self._reduced(x, np.maximum, lowest)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients_conv import MaxPoolGradient

        x, y, dy = expression.lift(b, *xs, *ys, *dys)
        return (x.apply(MaxPoolGradient(self), y, dy).value,)


@dataclass(frozen=True)
class AvgPool(_Pool, name="avg_pool"):
    """The mean of each window over the elements that are not padding."""

    def _pooled(self, x: Array) -> Array:
        count = self._reduced(np.ones_like(x[:1, ..., :1]), np.add, 0.0)
        return self._reduced(x, np.add, 0.0) / count

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients_conv import AvgPoolGradient

        (dy,) = expression.lift(b, *dys)
        return (dy.apply(AvgPoolGradient(self, spatial_of(xs[0].type.shape, self.data_format))).value,)
