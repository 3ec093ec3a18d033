"""Images at another size, by the filters of ``tf.image.resize`` (half-pixel centres)."""

import math
from collections.abc import Callable, Mapping, Sequence

from kcompile.frontend.layers.writing import inverse, positions
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.evaluate import evaluate
from kcompile.ir.expression import Expression, count, lift
from kcompile.ir.graph import Builder, Value
from kcompile.ir.types import Array

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")


def resize(t: Trace, x: Value, size: Sequence[Dim], interpolation: str, antialias: bool = False) -> Value:
    """``x: T[N, *spatial, C] -> T[N, *size, C]``."""
    if interpolation == "nearest" or (interpolation == "bilinear" and not antialias):
        method = "nearest" if interpolation == "nearest" else "bilinear"
        return t(ops.Resize(tuple(size), method), x)
    for axis, extent in enumerate(size, 1):
        before = x.type.shape[axis]
        if extent != before:
            x = along_axis(t, x, axis, _filter(t, before, extent, interpolation, antialias, x.type.dtype))
    return x


def _filter(t: Trace, extent: Dim, size: Dim, interpolation: str, antialias: bool, dtype: str) -> Value:
    """The matrix of `filter_matrix` in `dtype`, computed at run time where an extent is open."""
    if isinstance(extent, int) and isinstance(size, int):
        return t.constant(filter_matrix(extent, size, interpolation, antialias).astype(dtype))
    wide = "float64" if dtype == "float64" else "float32"
    return _shares(t, extent, size, interpolation, antialias, wide).cast(dtype).value


def along_axis(t: Trace, x: Value, axis: int, matrix: Value) -> Value:
    """``x`` with each line along `axis` multiplied by a matrix ``T[extent, new extent]``."""
    perm = (*(a for a in range(x.type.rank) if a != axis), axis)
    y = t(ops.Dense(), t(ops.Transpose(perm), x), matrix)
    return t(ops.Transpose(inverse(perm)), y)


def filter_matrix(extent: int, size: int, interpolation: str, antialias: bool) -> Array:
    """The share of each element in each result: ``f64[extent, size]``, every column sums to 1.

    A result at ``(i + 0.5) * extent / size - 0.5`` weighs the elements by the filter of their distance, which is
    stretched for a smaller result where `antialias`.
    """
    b = Builder("filter")
    t = Trace(b, lambda weight, path: b.constant(weight.numpy(), path))
    shares = _shares(t, extent, size, interpolation, antialias, "float64")
    return evaluate(b.build([shares.value]), {})["output_0"]


def _shares(t: Trace, extent: Dim, size: Dim, interpolation: str, antialias: bool, dtype: str) -> Expression:
    places, centres = (each.cast(dtype) for each in lift(t.b, positions(t, extent), positions(t, size)))
    scale = count(t.b, (extent,), dtype) / count(t.b, (size,), dtype)
    distance = (((centres + 0.5) * scale - 0.5).expand(0) - places.expand(1)).abs()
    weights = _FILTERS[interpolation](distance / scale.maximum(1.0) if antialias else distance)
    total = weights.sum((0,), keepdims=True)
    safe = total.where(total.differs(0.0), 1.0)
    return (weights / safe).where(total.abs() > 1e-9, 0.0)


def _triangle(d: Expression) -> Expression:
    return (1.0 - d).maximum(0.0)


def _cubic(d: Expression) -> Expression:
    """Keys 1981 with a = -0.5."""
    near = (d * 1.5 - 2.5) * d * d + 1.0
    far = ((d * -0.5 + 2.5) * d - 4.0) * d + 2.0
    return near.where(d < 1.0, far.where(d < 2.0, 0.0))


def _lanczos(radius: int) -> Callable[[Expression], Expression]:
    def weight(d: Expression) -> Expression:
        safe = d.where(d > 1e-3, 1.0)
        curve = (safe * math.pi).apply(ops.Sin()) * (safe * (math.pi / radius)).apply(ops.Sin()) * radius
        near = (curve / (safe.square() * math.pi**2)).where(d > 1e-3, 1.0)
        return near.where(d <= radius, 0.0)

    return weight


_FILTERS: Mapping[str, Callable[[Expression], Expression]] = {
    "bilinear": _triangle,
    "bicubic": _cubic,
    "lanczos3": _lanczos(3),
    "lanczos5": _lanczos(5),
}
