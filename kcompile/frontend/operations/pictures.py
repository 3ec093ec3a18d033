"""Operations of ``keras.ops.image``, ``keras.ops.core`` and einops that cut, colour and rearrange.

Images have 4 axes, or 3 where a graph holds one image alone.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layers.images import Resizing
from kcompile.frontend.layers.writing import in_channels_last
from kcompile.frontend.operations.operation import as_value, operation, promoted
from kcompile.frontend.operations.shaping import pad
from kcompile.frontend.operations.statistics import known_extent
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value

# What red, green and blue weigh in `tf.image.rgb_to_grayscale`.
_LUMA = (0.2989, 0.5870, 0.1140)
_ZERO_TO_ONE = (0.0, 1.0)


def _batched(t: Trace, images: Value, write: Callable[[Value], Value]) -> Value:
    """``write(images)`` where `write` takes and returns 4 axes."""
    if images.type.rank == 4:
        return write(images)
    alone = t(ops.Reshape((1, *images.type.shape)), images)
    result = write(alone)
    return t(ops.Reshape(result.type.shape[1:]), result)


def _channels_last(t: Trace, images: Value, data_format: str | None, write: Callable[[Value], Value]) -> Value:
    return _batched(t, images, lambda x: in_channels_last(t, x, data_format or "channels_last", write))


# -- colours ----------------------------------------------------------------------------------------------------------


@operation("image", "RGBToGrayscale", function="rgb_to_grayscale")
def rgb_to_grayscale(t: Trace, images: Value, *, data_format: str | None = None) -> Value:
    """The brightness of each pixel, as the only channel."""

    def write(x: Value) -> Value:
        if x.type.shape[-1] == 1:
            return x
        grey = t(ops.Dense(), as_value(t, x, "float32"), t.constant(np.array(_LUMA, np.float32).reshape(3, 1)))
        return as_value(t, grey, images.type.dtype)

    return _channels_last(t, images, data_format, write)


def _planes(t: Trace, x: Value) -> list[Expression]:
    axis = x.type.rank - 1
    return [lift(t.b, x)[0].apply(ops.Slice(axis, i, i + 1)) for i in range(3)]


def _joined(t: Trace, planes: Sequence[Expression]) -> Value:
    return t(ops.Concat(planes[0].type.rank - 1), *(plane.value for plane in planes))


@operation("image", "RGBToHSV", function="rgb_to_hsv")
def rgb_to_hsv(t: Trace, images: Value, *, data_format: str | None = None) -> Value:
    """Hue, saturation and value, from 0 to 1; A. R. Smith 1978, "Color Gamut Transform Pairs"."""

    def write(x: Value) -> Value:
        tiny = float(np.finfo(x.type.dtype).eps)
        red, green, blue = (plane.where(plane.abs() >= tiny, 0.0) for plane in _planes(t, x))
        value = red.maximum(green).maximum(blue)
        spread = value - red.minimum(green).minimum(blue)
        saturation = (spread / value.where(value > 0.0, 1.0)).where(value > 0.0, 0.0)
        sixth = 1.0 / (spread.where(spread > 0.0, 1.0) * 6.0)
        hue = (sixth * (blue - red) + 2 / 6).where(value.equals(green), sixth * (red - green) + 4 / 6)
        hue = (sixth * (green - blue)).where(value.equals(red), hue)
        hue = hue.where(spread > 0.0, 0.0)
        return _joined(t, [hue + (hue < 0.0).cast(x.type.dtype), saturation, value])

    return _channels_last(t, images, data_format, write)


@operation("image", "HSVToRGB", function="hsv_to_rgb")
def hsv_to_rgb(t: Trace, images: Value, *, data_format: str | None = None) -> Value:
    """Red, green and blue of hue, saturation and value."""

    def write(x: Value) -> Value:
        hue, saturation, value = _planes(t, x)
        place = (hue - hue.floor()) * 6.0
        parts = [(place - 3.0).abs() - 1.0, 2.0 - (place - 2.0).abs(), 2.0 - (place - 4.0).abs()]
        rest = 1.0 - saturation
        return _joined(t, [value * (rest + saturation * part.clip(*_ZERO_TO_ONE)) for part in parts])

    return _channels_last(t, images, data_format, write)


# -- sizes ------------------------------------------------------------------------------------------------------------


@operation("image", "Resize")
def resize(
    t: Trace,
    images: Value,
    *,
    size: Sequence[int],
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Value:
    """Images at another size; integers stay integers."""
    ratio = (crop_to_aspect_ratio, pad_to_aspect_ratio, fill_mode, fill_value)
    height, width = size
    layer = Resizing(height, width, interpolation, *ratio, antialias, data_format, name="resize")
    return _batched(t, images, lambda x: t.run(layer, x))


def _sides(extent: Dim, before: int | None, after: int | None, target: int | None, name: str) -> tuple[int, int]:
    """What is added, or for a negative `extent` cut, before and behind an axis; one of three says the third."""
    if before is not None and after is not None:
        return before, after
    known = before if after is None else after
    if not isinstance(extent, int) or target is None or known is None:
        raise ModelError(f"an operation {name} needs known extents, and two of both sides and the target.")
    rest = target - extent - known
    return (known, rest) if after is None else (rest, known)


def _axes(images: Value, data_format: str | None) -> tuple[int, int]:
    rank = images.type.rank
    return (rank - 2, rank - 1) if data_format == "channels_first" else (rank - 3, rank - 2)


@operation("image", "PadImages")
def pad_images(
    t: Trace,
    images: Value,
    *,
    top_padding: int | None = None,
    left_padding: int | None = None,
    bottom_padding: int | None = None,
    right_padding: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Value:
    """Images with borders of zeros."""
    height, width = _axes(images, data_format)
    shape = images.type.shape
    widths = [(0, 0)] * images.type.rank
    widths[height] = _sides(shape[height], top_padding, bottom_padding, target_height, "PadImages")
    widths[width] = _sides(shape[width], left_padding, right_padding, target_width, "PadImages")
    return pad(t, images, pad_width=widths)


@operation("image", "CropImages")
def crop_images(
    t: Trace,
    images: Value,
    *,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Value:
    """Images without their borders."""
    height, width = _axes(images, data_format)
    given = (
        (height, top_cropping, bottom_cropping, target_height),
        (width, left_cropping, right_cropping, target_width),
    )
    for axis, before, after, target in given:
        extent = images.type.shape[axis]
        if target is not None and isinstance(extent, int):
            before, after = (extent - target - (after or 0) if before is None else before), after
            after = extent - target - before if after is None else after
        images = t(ops.Slice(axis, before or 0, dims.sub(extent, after or 0)), images)
    return images


# -- filters ----------------------------------------------------------------------------------------------------------


@operation("image", "ExtractPatches")
def extract_patches(
    t: Trace,
    images: Value,
    *,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Value:
    """The elements of each window as channels, in the window's order."""
    rank = 3 if not isinstance(size, int) and len(size) == 3 else 2
    window, rates = (_each(value, rank) for value in (size, dilation_rate))
    op = ops.Conv(_each(strides or window, rank), "same" if padding.lower() == "same" else "valid", rates)

    def write(x: Value) -> Value:
        channels = known_extent(x, rank + 1, "ExtractPatches")
        count = int(np.prod(window)) * channels
        picks = np.eye(count, dtype=x.type.dtype).reshape(*window, channels, count)
        return t(op, x, t.constant(picks))

    if images.type.rank == rank + 2:
        return in_channels_last(t, images, data_format or "channels_last", write)
    alone = t(ops.Reshape((1, *images.type.shape)), images)
    result = in_channels_last(t, alone, data_format or "channels_last", write)
    return t(ops.Reshape(result.type.shape[1:]), result)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _filtered(t: Trace, x: Value, window: np.ndarray) -> Value:
    """Each channel under one window, with zeros around the image."""
    channels = known_extent(x, 3, "image filter")
    kernel = np.repeat(window[:, :, None, None], channels, axis=3).astype(x.type.dtype)
    return t(ops.Conv((1, 1), "same", (1, 1), channels), x, t.constant(kernel))


@operation("image", "GaussianBlur")
def gaussian_blur(
    t: Trace,
    images: Value,
    *,
    kernel_size: Sequence[int] = (3, 3),
    sigma: Sequence[float] = (1.0, 1.0),
    data_format: str | None = None,
) -> Value:
    """Images under a window of Gaussian weights."""
    curves = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / s) ** 2) for n, s in zip(kernel_size, sigma, strict=True)]
    # As in Keras, the first size and sigma are those of the columns.
    window = np.outer(curves[1] / curves[1].sum(), curves[0] / curves[0].sum())
    return _channels_last(t, images, data_format, lambda x: _filtered(t, x, window))


@operation("image", "SobelEdges")
def sobel_edges(t: Trace, images: Value, *, data_format: str | None = None) -> Value:
    """How steeply each channel rises downwards and to the right, along a new last axis."""
    columns = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    found = [
        _channels_last(t, images, data_format, lambda x, window=window: _filtered(t, x, window))
        for window in (columns.T, columns)
    ]
    return t(ops.Concat(images.type.rank), *(lift(t.b, x)[0].expand(-1).value for x in found))


# -- parts ------------------------------------------------------------------------------------------------------------


@operation("core", "Slice")
def slice_(t: Trace, inputs: Value, start_indices: Any, *, shape: Sequence[int]) -> Value:
    """The block of `shape` that begins at known places.

    Raises:
        ModelError: the places are tensors.
    """
    for axis, (start, extent) in enumerate(zip(_places(start_indices, "Slice"), shape, strict=True)):
        stop = inputs.type.shape[axis] if extent == -1 else start + extent
        inputs = t(ops.Slice(axis, start, stop), inputs)
    return inputs


@operation("core", "SliceUpdate")
def slice_update(t: Trace, inputs: Value, start_indices: Any, updates: Value) -> Value:
    """`inputs` with a block replaced that begins at known places."""
    x, block = promoted(t, inputs, updates)
    starts = _places(start_indices, "SliceUpdate")
    inside = t(ops.Full(block.type.shape, 1, "bool"))
    for axis, start in enumerate(starts):
        rest = dims.sub(dims.sub(x.type.shape[axis], start), block.type.shape[axis])
        block, inside = (_surrounded(t, part, axis, start, rest) for part in (block, inside))
    return t(ops.Where(), inside, block, x)


def _surrounded(t: Trace, x: Value, axis: int, before: int, after: Dim) -> Value:
    shape = x.type.shape

    def border(extent: Dim) -> list[Value]:
        return [t(ops.Full((*shape[:axis], extent, *shape[axis + 1 :]), 0, x.type.dtype))] if extent != 0 else []

    return t(ops.Concat(axis), *border(before), x, *border(after))


def _places(start_indices: Any, name: str) -> list[int]:
    if isinstance(start_indices, Value) or any(isinstance(i, Value) for i in start_indices):
        raise ModelError(f"`start_indices` of an operation {name} must be numbers. Received: tensors.")
    return [int(index) for index in np.asarray(start_indices).reshape(-1)]


@operation("core", "SaturateCast")
def saturate_cast(t: Trace, x: Value, *, dtype: str) -> Value:
    """`x` as `dtype`, with the nearest number that it has in place of those beyond."""
    if np.dtype(dtype).kind not in "iu" or x.type.dtype == "bool":
        return as_value(t, x, dtype)
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if not x.type.is_float:
        own = np.iinfo(x.type.dtype)
        low, high = max(low, int(own.min)), min(high, int(own.max))
    elif high >= 1 << 24:  # the largest float that is not beyond
        high = int(np.nextafter(np.asarray(high, x.type.dtype), np.asarray(0, x.type.dtype)))
    (y,) = lift(t.b, x)
    return y.maximum(low).minimum(high).cast(dtype).value


_TOKEN = re.compile(r"\(|\)|\.\.\.|\w+")


@operation("einops", "Rearrange")
def rearrange(t: Trace, tensor: Value, pattern: str, **axes_lengths: int) -> Value:
    """Axes split, moved and joined by their names: ``"b h (w c) -> b c h w"``.

    Raises:
        ModelError: the pattern does not fit.
    """
    before, arrow, after = pattern.partition("->")
    source, target = (_groups(side, tensor.type.rank) for side in (before, after))
    law = f"`pattern` of an operation Rearrange must fit {tensor.type}"
    names = [[name for group in side for name in group] for side in (source, target)]
    if not arrow or len(source) != tensor.type.rank or sorted(names[0]) != sorted(names[1]):
        raise ModelError(f"{law}. Received: {pattern!r}.")
    extents: dict[str, Dim] = dict(axes_lengths)
    for group, extent in zip(source, tensor.type.shape, strict=True):
        unknown = [name for name in group if name not in extents]
        rest = dims.exact_div(extent, dims.mul(*(extents[name] for name in group if name in extents)))
        if len(unknown) > 1 or rest is None or (not unknown and rest != 1):
            raise ModelError(f"{law}. Received: {pattern!r} with {axes_lengths}.")
        extents.update(dict.fromkeys(unknown, rest))
    (x,) = lift(t.b, tensor)
    apart = x.reshape([extents[name] for name in names[0]])
    moved = apart.transpose([names[0].index(name) for name in names[1]])
    return moved.reshape([dims.mul(*(extents[name] for name in group)) for group in target]).value


def _groups(side: str, rank: int) -> list[list[str]]:
    """The axes of one side of a pattern, each a list of names."""
    groups: list[list[str]] = []
    inside = False
    for token in _TOKEN.findall(side):
        if token in "()":
            inside = token == "("
            groups += [[]] if inside else []
        elif inside:
            groups[-1].append(token)
        else:
            groups.append([] if token == "1" else [token])
    if ["..."] not in groups:
        return groups
    place = groups.index(["..."])
    count = rank - len(groups) + 1
    return [*groups[:place], *([f"...{i}"] for i in range(count)), *groups[place + 1 :]]
