"""Operations of ``keras.ops`` that sum elements up: means of many kinds, orders, norms, and those that skip NaN."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.operations.elementary import floats
from kcompile.frontend.operations.operation import as_value, axes_of, axis_of, one_axis, operation, promoted
from kcompile.frontend.operations.rules import argmax, argmin
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.expression import Expression, count, lift
from kcompile.ir.graph import Value

Reduction: TypeAlias = Callable[[Expression, tuple[int, ...], bool], Expression]


def known_extent(x: Value, axis: int, name: str) -> int:
    """The extent of an axis.

    Raises:
        ModelError: it is open.
    """
    extent = x.type.shape[axis]
    if isinstance(extent, int):
        return extent
    raise ModelError(f"an operation {name} needs a known extent along axis {axis}. Received: {x.type}.")


# -- sums -------------------------------------------------------------------------------------------------------------


@operation("math", "Logsumexp")
def logsumexp(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """``log(sum(exp(x)))``."""
    (y,), axes = floats(t, x), axes_of(x, axis)
    largest = y.max(axes, keepdims=True)
    shift = largest.where(largest.abs() < math.inf, 0.0)
    kept = (y - shift).exp().sum(axes, keepdims=True).log() + shift
    return _dropped(kept, axes, keepdims).value


def _dropped(x: Expression, axes: tuple[int, ...], keepdims: bool) -> Expression:
    """`x` without `axes`, whose extents are 1, unless they are to be kept."""
    return x if keepdims else x.reshape([extent for i, extent in enumerate(x.shape) if i not in axes])


@operation("numpy", "Average", order=("x", "axis", "weights"))
def average(t: Trace, x: Value, weights: Any = None, *, axis: Any = None) -> Value:
    """The mean, or with weights ``sum(x * weights) / sum(weights)``."""
    axes = axes_of(x, axis)
    if weights is None:
        return floats(t, x)[0].mean(axes).value
    y, w = floats(t, x, weights)
    if w.type.rank == 1 and y.type.rank > 1:
        w = w.reshape([w.shape[0] if i == axes[0] else 1 for i in range(y.type.rank)])
    w = w.broadcast_to(y.shape)
    return ((y * w).sum(axes) / w.sum(axes)).value


@operation("numpy", "CountNonzero")
def count_nonzero(t: Trace, x: Value, *, axis: Any = None) -> Value:
    """How many elements are not 0."""
    return lift(t.b, as_value(t, x, "bool"))[0].cast("int32").sum(axes_of(x, axis)).value


@operation("numpy", "Ptp")
def ptp(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """The largest element less the smallest."""
    (y,), axes = lift(t.b, x), axes_of(x, axis)
    return (y.max(axes, keepdims) - y.min(axes, keepdims)).value


@operation("nn", "Moments")
def moments(t: Trace, x: Value, *, axes: Any, keepdims: bool = False, synchronized: bool = False) -> list[Value]:
    """The mean and the variance."""
    del synchronized
    (y,), chosen = lift(t.b, x), axes_of(x, axes)
    mean = y.mean(chosen, keepdims=True)
    variance = (y - mean).square().mean(chosen, keepdims)
    return [_dropped(mean, chosen, keepdims).value, variance.value]


@operation("numpy", "Cumprod")
def cumprod(t: Trace, x: Value, *, axis: int | None = None, dtype: str | None = None) -> Value:
    """The running product along an axis."""
    x, place = one_axis(t, as_value(t, x, dtype or x.type.dtype), axis)
    parts = [t(ops.Slice(place, i, i + 1), x) for i in range(known_extent(x, place, "Cumprod"))]
    for i in range(1, len(parts)):
        parts[i] = t(ops.Mul(), parts[i - 1], parts[i])
    return t(ops.Concat(place), *parts) if parts else x


@operation("linalg", "Norm")
def norm(t: Trace, x: Value, *, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Value:
    """The norm of vectors along one axis, or of matrices along two.

    Raises:
        ModelError: it needs singular values.
    """
    (y,) = floats(t, x)
    given: list[int] | None = [axis] if isinstance(axis, int) else axis
    axes = [a % x.type.rank for a in given] if given is not None else list(range(x.type.rank))
    if ord is None or (len(axes) == 2 and ord == "fro"):
        return y.square().sum(axes, keepdims).sqrt().value
    if len(axes) == 1:
        return _vector_norm(y, ord, axes, keepdims).value
    rows, columns = axes
    if len(axes) != 2 or abs(ord) not in (1, math.inf):
        law = "an operation Norm takes ord None, 'fro', 1 or inf of matrices"
        raise ModelError(f"{law}. Received: ord={ord!r} along axes {axes}.")
    summed, rest = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = y.abs().sum((summed,), keepdims=True)
    kept = sums.max((rest,), keepdims=True) if ord > 0 else sums.min((rest,), keepdims=True)
    return _dropped(kept, tuple(axes), keepdims).value


def _vector_norm(y: Expression, ord: Any, axes: list[int], keepdims: bool) -> Expression:
    if ord == math.inf:
        return y.abs().max(axes, keepdims)
    if ord == -math.inf:
        return y.abs().min(axes, keepdims)
    if ord == 0:
        return y.differs(0.0).cast(y.type.dtype).sum(axes, keepdims)
    if ord == 1:
        return y.abs().sum(axes, keepdims)
    return (y.abs() ** float(ord)).sum(axes, keepdims) ** (1.0 / float(ord))


# -- orders -----------------------------------------------------------------------------------------------------------


@operation("numpy", "Median")
def median(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """The middle element, or the mean of the two in the middle."""
    return quantile(t, x, 0.5, axis=axis, keepdims=keepdims)


@operation("numpy", "Percentile")
def percentile(
    t: Trace, x: Value, q: Any, *, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Value:
    """The elements below which `q` percent of all are."""
    return quantile(t, x, np.asarray(q) / 100, axis=axis, method=method, keepdims=keepdims)


@operation("numpy", "Quantile")
def quantile(t: Trace, x: Value, q: Any, *, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Value:
    """The elements below which a share `q` of all are, with an axis of shares in front where `q` is a list.

    Raises:
        ModelError: the shares or the number of elements are not known.
    """
    if isinstance(q, Value):
        raise ModelError(f"`q` of an operation Quantile must be numbers. Received: a tensor {q.type}.")
    axes, rank = axes_of(x, axis), x.type.rank
    rest = [a for a in range(rank) if a not in axes]
    (y,) = floats(t, x)
    lead = [y.shape[a] for a in rest]
    row = y.transpose((*rest, *axes)).reshape((*lead, dims.mul(*(y.shape[a] for a in axes))))
    length = known_extent(row.value, len(rest), "Quantile")
    rising = row.apply(ops.Sort(-1))
    shares = np.asarray(q, np.float64)
    picked = [_at(rising, float(share) * (length - 1), method) for share in shares.reshape(-1)]
    kept = [part.keep(axes, rank) if keepdims else part for part in picked]
    if not shares.ndim:
        return kept[0].value
    return t(ops.Concat(0), *(part.expand(0).value for part in kept))


def _at(rising: Expression, place: float, method: str) -> Expression:
    """The element at a place of the last axis that may lie between two."""
    low, high = math.floor(place), math.ceil(place)
    chosen = {"lower": low, "higher": high, "nearest": round(place)}
    axis = rising.type.rank - 1

    def element(index: int) -> Expression:
        return rising.apply(ops.Slice(axis, index, index + 1)).squeeze(axis)

    if method in chosen:
        return element(chosen[method])
    if method not in ("linear", "midpoint"):
        raise ModelError(f"`method` of an operation Quantile must be one of NumPy's five. Received: {method!r}.")
    share = place - low if method == "linear" or low == high else 0.5
    return element(low) if not share else element(low) * (1.0 - share) + element(high) * share


# -- without NaN ------------------------------------------------------------------------------------------------------


def _skipping(fill: float, reduce: Reduction) -> Any:
    def rule(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
        (y,) = lift(t.b, x)
        if not x.type.is_float:
            return reduce(y, axes_of(x, axis), keepdims).value
        return reduce(y.like(fill).where(y.differs(y), y), axes_of(x, axis), keepdims).value

    return rule


def _unless_all(reduce: Reduction) -> Any:
    """Of none but NaN, NaN."""

    def rule(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
        (y,), axes = floats(t, x), axes_of(x, axis)
        found = y.equals(y).cast("int32").sum(axes, keepdims)
        return reduce(y, axes, keepdims).where(found > 0, math.nan).value

    return rule


def _nanmean(y: Expression, axes: tuple[int, ...], keepdims: bool) -> Expression:
    seen = y.equals(y)
    total = y.where(seen, 0.0).sum(axes, keepdims)
    return total / seen.cast(y.type.dtype).sum(axes, keepdims).maximum(1.0)


def _nanvar(y: Expression, axes: tuple[int, ...], keepdims: bool) -> Expression:
    return _nanmean((y - _nanmean(y, axes, True)).square(), axes, keepdims)


operation("numpy", "Nansum")(_skipping(0.0, lambda y, axes, keepdims: y.sum(axes, keepdims)))
operation("numpy", "Nanprod")(_skipping(1.0, lambda y, axes, keepdims: y.apply(ops.ReduceProd(axes, keepdims))))
operation("numpy", "Nanmean")(_unless_all(_nanmean))
operation("numpy", "Nanvar")(_unless_all(_nanvar))
operation("numpy", "Nanstd")(_unless_all(lambda y, axes, keepdims: _nanvar(y, axes, keepdims).sqrt()))
operation("numpy", "Nanmax")(
    _unless_all(lambda y, axes, keepdims: y.like(-math.inf).where(y.differs(y), y).max(axes, keepdims))
)
operation("numpy", "Nanmin")(
    _unless_all(lambda y, axes, keepdims: y.like(math.inf).where(y.differs(y), y).min(axes, keepdims))
)


@operation("numpy", "Nancumsum")
def nancumsum(t: Trace, x: Value, *, axis: int | None = None, dtype: str | None = None) -> Value:
    """The running sum along an axis, in which NaN counts as 0."""
    x, place = one_axis(t, as_value(t, x, dtype or x.type.dtype), axis)
    (y,) = lift(t.b, x)
    return (y.like(0.0).where(y.differs(y), y) if x.type.is_float else y).apply(ops.CumSum(place)).value


@operation("numpy", "Nanargmax")
def nanargmax(t: Trace, x: Value, *, axis: int | None = None, keepdims: bool = False) -> Value:
    """Where the largest element stands; of none but NaN, -1."""
    return _nanarg(t, x, axis, keepdims, -math.inf, argmax)


@operation("numpy", "Nanargmin")
def nanargmin(t: Trace, x: Value, *, axis: int | None = None, keepdims: bool = False) -> Value:
    """Where the smallest element stands; of none but NaN, -1."""
    return _nanarg(t, x, axis, keepdims, math.inf, argmin)


def _nanarg(t: Trace, x: Value, axis: int | None, keepdims: bool, fill: float, find: Any) -> Value:
    x, place = one_axis(t, x, axis)
    (y,) = floats(t, x)
    seen = y.equals(y).cast("int32").max((place,), keepdims)
    (found,) = lift(t.b, find(t, y.where(y.equals(y), fill).value, axis=place, keepdims=keepdims))
    return found.where(seen > 0, -1).value


# -- moments of several -----------------------------------------------------------------------------------------------


@operation("numpy", "Corrcoef")
def corrcoef(t: Trace, x: Value) -> Value:
    """The correlations of the rows."""
    (y,) = floats(t, x)
    centred = y - y.mean((1,), keepdims=True)
    products = centred.apply(ops.MatMul(), centred.swap_last())
    length = centred.square().sum((1,), keepdims=True).sqrt()
    return (products / length / length.swap_last()).clip(-1.0, 1.0).value


@operation("numpy", "Trapezoid")
def trapezoid(t: Trace, y: Value, x: Any = None, *, dx: float = 1.0, axis: int = -1) -> Value:
    """The area under points along an axis, `dx` apart."""
    if x is not None:
        raise ModelError("`x` of an operation Trapezoid must be None: points must be `dx` apart.")
    (points,) = floats(t, y)
    place = axis_of(y, axis)
    extent = points.shape[place]
    after, before = (points.apply(ops.Slice(place, *bounds)) for bounds in ((1, extent), (0, dims.sub(extent, 1))))
    return ((after + before).sum((place,)) * (0.5 * dx)).value


@operation("numpy", "Size")
def size(t: Trace, x: Value) -> Value:
    """The number of elements."""
    return count(t.b, x.type.shape, "int32").value


@operation("numpy", "Ndim")
def ndim(t: Trace, x: Value) -> Value:
    """The number of axes."""
    return t.constant(np.asarray(x.type.rank, np.int32))


@operation("nn", "PSNR")
def psnr(t: Trace, x1: Value, x2: Value, *, max_val: float) -> Value:
    """``20 * log10(max_val) - 10 * log10(mean((x1 - x2) ** 2))``."""
    x, y = lift(t.b, *promoted(t, x1, x2, floating=True))
    return (20 * math.log10(max_val) - (x - y).square().mean().log() * (10 * math.log10(math.e))).value
