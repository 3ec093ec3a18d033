"""Operations of ``keras.ops.nn`` on windows of sequences, images and volumes."""

from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layers import pooling
from kcompile.frontend.layers.convolution import transposed_padding
from kcompile.frontend.layers.writing import in_channels_last
from kcompile.frontend.operations.elementary import tensor
from kcompile.frontend.operations.operation import operation, promoted
from kcompile.frontend.operations.statistics import known_extent
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.expression import lift
from kcompile.ir.graph import Value


def _each(value: Any, rank: int) -> tuple[int, ...]:
    """`rank` integers; one stands for all."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _pooling(kind: str) -> Any:
    def rule(
        t: Trace, inputs: Value, *, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: Any = None
    ) -> Value:
        cls = getattr(pooling, f"{kind}Pooling{inputs.type.rank - 2}D")
        return t.run(cls(pool_size, strides, padding.lower(), data_format, name="pool"), inputs)

    return rule


def _adaptive(kind: str) -> Any:
    def rule(t: Trace, inputs: Value, *, output_size: Any, data_format: str | None = None) -> Value:
        cls = getattr(pooling, f"Adaptive{kind}Pooling{inputs.type.rank - 2}D")
        return t.run(cls(output_size, data_format=data_format, name="pool"), inputs)

    return rule


for _kind in ("Max", "Average"):
    operation("nn", f"{_kind}Pool")(_pooling(_kind))
    operation("nn", f"Adaptive{_kind}Pool")(_adaptive(_kind))


def _convolved(
    t: Trace, x: Value, kernel: Value, groups: int, strides: Any, padding: str, dilation_rate: Any, data_format: Any
) -> Value:
    rank = x.type.rank - 2
    op = ops.Conv(_each(strides, rank), _padding(padding), _each(dilation_rate, rank), groups)
    x, kernel = promoted(t, x, kernel, floating=True)
    return in_channels_last(t, x, data_format or "channels_last", lambda x: t(op, x, kernel))


def _padding(padding: str) -> Any:
    if padding.lower() not in ("valid", "same"):
        raise ModelError(f'`padding` of a convolution must be "valid" or "same". Received: {padding!r}.')
    return padding.lower()


def _channels(x: Value, data_format: str | None) -> int:
    """The extent of the channels."""
    return known_extent(x, 1 if data_format == "channels_first" else x.type.rank - 1, "Conv")


@operation("nn", "Conv")
def conv(
    t: Trace,
    inputs: Value,
    kernel: Value,
    *,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Value:
    """A convolution, in as many groups as the kernel's channels go into the input's."""
    kernel = tensor(t, kernel)
    groups = _channels(inputs, data_format) // known_extent(kernel, kernel.type.rank - 2, "Conv")
    return _convolved(t, inputs, kernel, groups, strides, padding, dilation_rate, data_format)


@operation("nn", "DepthwiseConv")
def depthwise_conv(
    t: Trace,
    inputs: Value,
    kernel: Value,
    *,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Value:
    """Each channel convolved with filters of its own: ``kernel: T[*window, C, M]``."""
    kernel = tensor(t, kernel)
    *window, channels, multiplier = kernel.type.static_shape()
    flat = t(ops.Reshape((*window, 1, channels * multiplier)), kernel)
    return _convolved(t, inputs, flat, channels, strides, padding, dilation_rate, data_format)


@operation("nn", "SeparableConv")
def separable_conv(
    t: Trace,
    inputs: Value,
    depthwise_kernel: Value,
    pointwise_kernel: Value,
    *,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Value:
    """A depthwise convolution, then one that mixes the channels."""
    options = {"strides": strides, "padding": padding, "dilation_rate": dilation_rate}
    y = depthwise_conv(t, inputs, depthwise_kernel, data_format=data_format, **options)
    return conv(t, y, pointwise_kernel, data_format=data_format)


@operation("nn", "ConvTranspose")
def conv_transpose(
    t: Trace,
    inputs: Value,
    kernel: Value,
    *,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Value:
    """A transposed convolution: ``kernel: T[*window, filters, C]``."""
    rank, kernel = inputs.type.rank - 2, tensor(t, kernel)
    steps, rates = _each(strides, rank), _each(dilation_rate, rank)
    added = (None,) * rank if output_padding is None else _each(output_padding, rank)
    windows = kernel.type.static_shape()[:rank]
    axes = zip(windows, steps, rates, added, strict=True)
    cuts = [transposed_padding(_padding(padding), *axis) for axis in axes]
    op = ops.ConvTranspose(steps, tuple(cut for cut, _ in cuts), tuple(extra for _, extra in cuts), rates)
    x, w = promoted(t, inputs, kernel, floating=True)
    return in_channels_last(t, x, data_format or "channels_last", lambda x: t(op, x, w))


@operation("nn", "Unfold")
def unfold(t: Trace, x: Value, *, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Value:
    """The windows of images as columns: ``x: T[N, C, H, W] -> T[N, C * h * w, windows]``."""
    window, rates, pads, steps = (_each(each, 2) for each in (kernel_size, dilation, padding, stride))
    channels = known_extent(x, 1, "Unfold")
    # Each filter of the one channel picks one element of the window.
    size = window[0] * window[1]
    kernel = t.constant(np.eye(size, dtype=x.type.dtype).reshape(*window, 1, size))
    apart = t(ops.Reshape((dims.mul(x.type.shape[0], channels), *x.type.shape[2:], 1)), x)
    op = ops.Conv(steps, tuple((p, p) for p in pads), rates)
    (y,) = lift(t.b, t(op, apart, kernel))
    rows, columns = (known_extent(y.value, axis, "Unfold") for axis in (1, 2))
    picked = y.reshape((x.type.shape[0], channels, rows * columns, size)).transpose((0, 1, 3, 2))
    return picked.reshape((x.type.shape[0], channels * size, rows * columns)).value


@operation("nn", "DepthToSpace")
def depth_to_space(t: Trace, x: Value, *, block_size: int, data_format: str = "channels_last") -> Value:
    """Channels as blocks of pixels: ``T[N, H, W, C] -> T[N, H * b, W * b, C / b / b]``."""
    (y,), b = lift(t.b, x), block_size
    if data_format == "channels_first":
        n, c, h, w = y.shape
        apart = y.reshape((n, _over(c, b * b), b, b, h, w)).transpose((0, 1, 4, 2, 5, 3))
        return apart.reshape((n, _over(c, b * b), dims.mul(h, b), dims.mul(w, b))).value
    n, h, w, c = y.shape
    apart = y.reshape((n, h, w, b, b, _over(c, b * b))).transpose((0, 1, 3, 2, 4, 5))
    return apart.reshape((n, dims.mul(h, b), dims.mul(w, b), _over(c, b * b))).value


@operation("nn", "SpaceToDepth")
def space_to_depth(t: Trace, x: Value, *, block_size: int, data_format: str = "channels_last") -> Value:
    """Blocks of pixels as channels: ``T[N, H, W, C] -> T[N, H / b, W / b, C * b * b]``."""
    (y,), b = lift(t.b, x), block_size
    if data_format == "channels_first":
        n, c, h, w = y.shape
        apart = y.reshape((n, c, _over(h, b), b, _over(w, b), b)).transpose((0, 1, 3, 5, 2, 4))
        return apart.reshape((n, dims.mul(c, b * b), _over(h, b), _over(w, b))).value
    n, h, w, c = y.shape
    apart = y.reshape((n, _over(h, b), b, _over(w, b), b, c)).transpose((0, 1, 3, 2, 4, 5))
    return apart.reshape((n, _over(h, b), _over(w, b), dims.mul(c, b * b))).value


def _over(extent: Dim, divisor: int) -> Dim:
    """The extent divided.

    Raises:
        ModelError: a rest would be left, or could be.
    """
    found = dims.exact_div(extent, divisor)
    if found is None:
        raise ModelError(f"an extent of {extent} must be a multiple of {divisor}.")
    return found
