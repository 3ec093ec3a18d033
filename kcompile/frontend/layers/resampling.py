"""Images at another size, by the filters of ``tf.image.resize`` (half-pixel centres)."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layers.writing import inverse
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value
from kcompile.ir.types import Array

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")


def resize(
    t: Trace, x: Value, size: Sequence[Dim], interpolation: str, antialias: bool = False, where: str = "resizing"
) -> Value:
    """``x: T[N, *spatial, C] -> T[N, *size, C]``.

    Raises:
        ModelError: an extent is open, and the interpolation needs to know it.
    """
    if interpolation == "nearest" or (interpolation == "bilinear" and not antialias):
        method = "nearest" if interpolation == "nearest" else "bilinear"
        return t(ops.Resize(tuple(size), method), x)
    for axis, extent in enumerate(size, 1):
        before = x.type.shape[axis]
        if not isinstance(before, int) or not isinstance(extent, int):
            law = f'interpolation "{interpolation}" of {where} needs known spatial extents'
            raise ModelError(f"{law}. Received: {x.type}.")
        if extent != before:
            x = along_axis(t, x, axis, filter_matrix(before, extent, interpolation, antialias).astype(x.type.dtype))
    return x


def along_axis(t: Trace, x: Value, axis: int, matrix: Array) -> Value:
    """``x`` with each line along `axis` multiplied by a constant matrix ``T[extent, new extent]``."""
    perm = (*(a for a in range(x.type.rank) if a != axis), axis)
    y = t(ops.Dense(), t(ops.Transpose(perm), x), t.constant(matrix))
    return t(ops.Transpose(inverse(perm)), y)


def filter_matrix(extent: int, size: int, interpolation: str, antialias: bool) -> Array:
    """The share of each element in each result: ``f64[extent, size]``, every column sums to 1.

    A result at ``(i + 0.5) * extent / size - 0.5`` weighs the elements by the filter of their distance, which is
    stretched for a smaller result where `antialias`.
    """
    stretch = max(extent / size, 1.0) if antialias else 1.0
    centres = (np.arange(size) + 0.5) * (extent / size) - 0.5
    distance = np.abs(centres[None, :] - np.arange(extent)[:, None]) / stretch
    weights = _FILTERS[interpolation](distance)
    total = weights.sum(axis=0, keepdims=True)
    return np.where(np.abs(total) > 1e-9, weights / np.where(total != 0, total, 1), 0.0)


def _triangle(d: Array) -> Array:
    return np.maximum(0.0, 1.0 - d)


def _cubic(d: Array) -> Array:
    """Keys 1981 with a = -0.5."""
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return np.where(d >= 2.0, 0.0, np.where(d >= 1.0, far, near))


def _lanczos(radius: int) -> Callable[[Array], Array]:
    def weight(d: Array) -> Array:
        curve = radius * np.sin(math.pi * d) * np.sin(math.pi * d / radius)
        near = np.where(d > 1e-3, curve / np.where(d > 1e-3, math.pi**2 * d**2, 1.0), 1.0)
        return np.where(d > radius, 0.0, near)

    return weight


_FILTERS: dict[str, Callable[[Array], Array]] = {
    "bilinear": _triangle,
    "bicubic": _cubic,
    "lanczos3": _lanczos(3),
    "lanczos5": _lanczos(5),
}
