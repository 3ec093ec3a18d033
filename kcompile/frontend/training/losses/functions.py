"""The losses of https://keras.io/api/losses/ as functions: one number per sample, written as IR.

    y_true, y_pred: T[N, ..., C] -> T[N, ...]

Formulas, epsilons and the order of the operations are those of Keras 3 (``keras/src/losses/losses.py`` and
``keras/src/backend/jax/nn.py``). Each takes arrays as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.eager import on_arrays
from kcompile.ir.expression import Expression
from kcompile.ir.ops import CrossEntropy, CumSum, Full, LogSoftmax, MatMul, Sigmoid, Softmax, Softplus

# `keras.config.epsilon()`.
EPSILON = 1e-7

# Stands for minus infinity where infinities would meet in a difference.
_LOWEST = -1e30


@dataclass(frozen=True)
class Masked:
    """Values of which only those count that the mask marks."""

    values: Expression
    mask: Expression


def same_rank(first: Expression, second: Expression, expand: bool = True) -> tuple[Expression, Expression]:
    """The two without a last axis of extent 1 that only one of them has; next to a vector that one gets the axis.

    As `squeeze_or_expand_to_same_rank` in ``keras/src/losses/loss.py``.
    """
    if first.type.rank < second.type.rank:
        second, first = same_rank(second, first, expand)
        return first, second
    if first.type.rank != second.type.rank + 1 or first.shape[-1] != 1:
        return first, second
    if second.type.rank == 1 and expand:
        return first, second.expand(-1)
    return first.squeeze(-1), second


def _aligned(y_true: Expression, y_pred: Expression) -> tuple[Expression, Expression]:
    return same_rank(y_true.cast(y_pred.type.dtype), y_pred)


@on_arrays
def mean_squared_error(y_true: Expression, y_pred: Expression) -> Expression:
    """``mean((y_true - y_pred) ** 2)`` over the last axis."""
    y_true, y_pred = _aligned(y_true, y_pred)
    return (y_true - y_pred).square().mean((-1,))


@on_arrays
def mean_absolute_error(y_true: Expression, y_pred: Expression) -> Expression:
    """``mean(|y_true - y_pred|)`` over the last axis."""
    y_true, y_pred = _aligned(y_true, y_pred)
    return (y_true - y_pred).abs().mean((-1,))


@on_arrays
def mean_absolute_percentage_error(y_true: Expression, y_pred: Expression) -> Expression:
    """``100 * mean(|y_true - y_pred| / max(|y_true|, epsilon))`` over the last axis."""
    y_true, y_pred = _aligned(y_true, y_pred)
    return ((y_true - y_pred) / y_true.abs().maximum(EPSILON)).abs().mean((-1,)) * 100.0


@on_arrays
def mean_squared_logarithmic_error(y_true: Expression, y_pred: Expression) -> Expression:
    """``mean((log(1 + y_true) - log(1 + y_pred)) ** 2)`` over the last axis; both count as `EPSILON` at least."""
    y_true, y_pred = _aligned(y_true, y_pred)
    first, second = ((y.maximum(EPSILON) + 1.0).log() for y in (y_pred, y_true))
    return (first - second).square().mean((-1,))


def unit(x: Expression, axes: Sequence[int]) -> Expression:
    """``x`` divided by its Euclidean norm, which counts as `EPSILON` at least."""
    return x * (1.0 / x.square().sum(axes, keepdims=True).sqrt()).minimum(1.0 / EPSILON)


@on_arrays
def cosine_similarity(y_true: Expression, y_pred: Expression, axis: int = -1) -> Expression:
    """Minus the cosine of the angle between the two along `axis`: -1 where they have one direction."""
    y_true, y_pred = _aligned(y_true, y_pred)
    return -(unit(y_true, (axis,)) * unit(y_pred, (axis,))).sum((axis,))


@on_arrays
def huber(y_true: Expression, y_pred: Expression, delta: float = 1.0) -> Expression:
    """The mean of ``e ** 2 / 2`` where ``|e| <= delta``, else of ``delta * |e| - delta ** 2 / 2``; Huber 1964."""
    y_true, y_pred = _aligned(y_true, y_pred)
    error = y_pred - y_true
    size = error.abs()
    outside = size * delta - 0.5 * delta * delta
    return (error.square() * 0.5).where(size <= delta, outside).mean((-1,))


@on_arrays
def log_cosh(y_true: Expression, y_pred: Expression) -> Expression:
    """``mean(log(cosh(y_pred - y_true)))`` over the last axis."""
    y_true, y_pred = _aligned(y_true, y_pred)
    error = y_pred - y_true
    return (error + (error * -2.0).apply(Softplus()) - math.log(2.0)).mean((-1,))


def _signed_labels(y_true: Expression) -> Expression:
    """Labels that are all 0 or 1 as -1 and 1."""
    binary = (y_true.equals(0.0) | y_true.equals(1.0)).all()
    return (y_true * 2.0 - 1.0).where(binary, y_true)


@on_arrays
def hinge(y_true: Expression, y_pred: Expression) -> Expression:
    """``mean(max(1 - y_true * y_pred, 0))`` over the last axis, for labels -1 and 1, or 0 and 1."""
    y_true = _signed_labels(y_true.cast(y_pred.type.dtype))
    return (1.0 - y_true * y_pred).maximum(0.0).mean((-1,))


@on_arrays
def squared_hinge(y_true: Expression, y_pred: Expression) -> Expression:
    """``mean(max(1 - y_true * y_pred, 0) ** 2)`` over the last axis, for labels -1 and 1, or 0 and 1."""
    y_true = _signed_labels(y_true.cast(y_pred.type.dtype))
    return (1.0 - y_true * y_pred).maximum(0.0).square().mean((-1,))


@on_arrays
def categorical_hinge(y_true: Expression, y_pred: Expression) -> Expression:
    """``max(max((1 - y_true) * y_pred) - sum(y_true * y_pred) + 1, 0)`` over the last axis."""
    y_true = y_true.cast(y_pred.type.dtype)
    wrong, right = ((1.0 - y_true) * y_pred).max((-1,)), (y_true * y_pred).sum((-1,))
    return (wrong - right + 1.0).maximum(0.0)


@on_arrays
def kl_divergence(y_true: Expression, y_pred: Expression) -> Expression:
    """``sum(y_true * log(y_true / y_pred))`` over the last axis; Kullback and Leibler 1951."""
    y_true, y_pred = (y.clip(EPSILON, 1.0) for y in (y_true.cast(y_pred.type.dtype), y_pred))
    return (y_true * (y_true / y_pred).log()).sum((-1,))


@on_arrays
def poisson(y_true: Expression, y_pred: Expression) -> Expression:
    """``mean(y_pred - y_true * log(y_pred))`` over the last axis."""
    y_true = y_true.cast(y_pred.type.dtype)
    return (y_pred - y_true * (y_pred + EPSILON).log()).mean((-1,))


def _smoothed(y_true: Expression, label_smoothing: float, share: float) -> Expression:
    return y_true * (1.0 - label_smoothing) + label_smoothing * share if label_smoothing else y_true


def _classes(y_pred: Expression, axis: int) -> int:
    extent = y_pred.shape[axis]
    if not isinstance(extent, int):
        raise ModelError(f"a loss over classes needs a known number of them. Received: {y_pred.type}.")
    return extent


def _log_probabilities(y_pred: Expression, from_logits: bool, axis: int) -> Expression:
    if from_logits:
        return y_pred.apply(LogSoftmax(axis))
    return _shares(y_pred, axis).clip(EPSILON, 1.0 - EPSILON).log()


def _shares(y_pred: Expression, axis: int) -> Expression:
    """``y_pred`` divided by its sum, which is 1 already where a softmax gives it."""
    op = y_pred.value.op
    if isinstance(op, Softmax) and (op.axis - axis) % y_pred.type.rank == 0:
        return y_pred
    return y_pred / y_pred.sum((axis,), keepdims=True)


@on_arrays
def categorical_crossentropy(
    y_true: Expression, y_pred: Expression, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Expression:
    """``-sum(y_true * log(y_pred))`` over the classes on `axis`."""
    y_true = _smoothed(y_true.cast(y_pred.type.dtype), label_smoothing, 1.0 / _classes(y_pred, -1))
    return -(y_true * _log_probabilities(y_pred, from_logits, axis)).sum((axis,))


@on_arrays
def categorical_focal_crossentropy(
    y_true: Expression,
    y_pred: Expression,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Expression:
    """``-sum(alpha * (1 - y_pred) ** gamma * y_true * log(y_pred))``; Lin et al. 2017, arXiv:1708.02002."""
    y_true = _smoothed(y_true.cast(y_pred.type.dtype), label_smoothing, 1.0 / _classes(y_pred, -1))
    y_pred = y_pred.apply(Softmax(axis)) if from_logits else y_pred
    share = _shares(y_pred, axis).clip(EPSILON, 1.0 - EPSILON)
    return ((1.0 - share) ** gamma * alpha * (-(y_true * share.log()))).sum((axis,))


@on_arrays
def sparse_categorical_crossentropy(
    y_true: Expression,
    y_pred: Expression,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> "Expression | Masked":
    """``-log(y_pred)`` of the class whose number is in `y_true`, classes on `axis`; `ignore_class` does not count."""
    if y_true.type.rank == y_pred.type.rank and y_true.shape[axis] == 1:
        y_true = y_true.squeeze(axis)
    labels = y_true.cast("int32")
    if ignore_class is None:
        return _sparse(labels, y_pred, from_logits, axis)
    counts = labels.differs(ignore_class)
    y_pred = y_pred.where(counts.expand(axis), 0.0)
    values = _sparse(labels.where(counts, 0), y_pred, from_logits, axis)
    return Masked(values.where(counts, 0.0), counts)


def _sparse(labels: Expression, y_pred: Expression, from_logits: bool, axis: int) -> Expression:
    last = axis in (-1, y_pred.type.rank - 1)
    if last and not from_logits and labels.shape == y_pred.shape[:-1] and _classes(y_pred, axis):
        return _shares(y_pred, axis).apply(CrossEntropy(EPSILON), labels)
    chosen = labels.one_hot(_classes(y_pred, axis), "bool", axis)
    return -_log_probabilities(y_pred, from_logits, axis).where(chosen, 0.0).sum((axis,))


def _binary(y_true: Expression, y_pred: Expression, from_logits: bool) -> Expression:
    if from_logits:
        return y_true * (-y_pred).apply(Softplus()) + (1.0 - y_true) * y_pred.apply(Softplus())
    share = y_pred.clip(EPSILON, 1.0 - EPSILON)
    return -(y_true * share.log() + (1.0 - y_true) * (1.0 - share).log())


@on_arrays
def binary_crossentropy(
    y_true: Expression, y_pred: Expression, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Expression:
    """``-mean(y_true * log(y_pred) + (1 - y_true) * log(1 - y_pred))`` over `axis`."""
    y_true = _smoothed(y_true.cast(y_pred.type.dtype), label_smoothing, 0.5)
    return _binary(y_true, y_pred, from_logits).mean((axis,))


@on_arrays
def binary_focal_crossentropy(
    y_true: Expression,
    y_pred: Expression,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Expression:
    """Binary cross-entropy times ``(1 - p) ** gamma``, p being the share of the true class; arXiv:1708.02002."""
    y_true = _smoothed(y_true.cast(y_pred.type.dtype), label_smoothing, 0.5)
    y_pred = y_pred.apply(Sigmoid()) if from_logits else y_pred
    right = y_true * y_pred + (1.0 - y_true) * (1.0 - y_pred)
    values = (1.0 - right) ** gamma * _binary(y_true, y_pred, from_logits=False)
    if apply_class_balancing:
        values = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * values
    return values.mean((axis,))


@on_arrays
def dice(y_true: Expression, y_pred: Expression, axis: Sequence[int] | int | None = None) -> Expression:
    """``1 - 2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred))`` over `axis`, by default all."""
    y_true, axes = y_true.cast(y_pred.type.dtype), _axes(axis)
    overlap = (y_true * y_pred).sum(axes)
    return 1.0 - (2.0 * overlap) / (y_true.sum(axes) + y_pred.sum(axes) + EPSILON)


@on_arrays
def tversky(
    y_true: Expression,
    y_pred: Expression,
    alpha: float = 0.5,
    beta: float = 0.5,
    axis: Sequence[int] | int | None = None,
) -> Expression:
    """``1 - t / (t + alpha * missed + beta * wrong)`` over `axis`; Salehi et al. 2017, arXiv:1706.05721."""
    y_true, axes = y_true.cast(y_pred.type.dtype), _axes(axis)
    overlap = (y_true * y_pred).sum(axes)
    missed, wrong = ((1.0 - y_pred) * y_true).sum(axes), (y_pred * (1.0 - y_true)).sum(axes)
    return 1.0 - overlap / (overlap + missed * alpha + wrong * beta + EPSILON)


def _axes(axis: Sequence[int] | int | None) -> Sequence[int] | None:
    return (axis,) if isinstance(axis, int) else axis


@on_arrays
def circle(
    y_true: Expression,
    y_pred: Expression,
    remove_diagonal: bool = True,
    gamma: float = 80.0,
    margin: float = 0.4,
) -> Masked:
    """The circle loss over all pairs of a batch of unit embeddings ``[N, D]``; Sun et al. 2020, arXiv:2002.10857."""
    labels = y_true.cast("int32").reshape((y_pred.shape[0], 1))
    distance = (1.0 - y_pred.apply(MatMul(), y_pred.swap_last())).maximum(0.0)
    alike = labels.equals(labels.swap_last())
    other = ~alike
    if remove_diagonal:
        alike = alike & ~_diagonal(y_pred)
    near, far = alike.cast(distance.type.dtype), other.cast(distance.type.dtype)
    pull = ((margin + distance) * near).maximum(0.0) * (margin - distance) * -gamma
    push = ((1.0 + margin - distance) * far).maximum(0.0) * (1.0 - margin - distance) * gamma
    values = (_log_sum_exp(pull, alike) + _log_sum_exp(push, other)).apply(Softplus())
    return Masked(values, values > 0.0)


def _diagonal(x: Expression) -> Expression:
    """Whether row and column are equal: ``bool[N, N]`` for ``x: [N, ...]``."""
    ones = Expression(x.b, x.b(Full((x.shape[0],), 1, "int32")))
    number = ones.apply(CumSum(0))
    return number.expand(0).equals(number.expand(1))


def _log_sum_exp(x: Expression, mask: Expression) -> Expression:
    marked = x.where(mask, _LOWEST)
    largest = marked.max((1,), keepdims=True)
    total = (marked - largest).exp().where(mask, 0.0).sum((1,))
    return total.maximum(float(np.finfo(np.float32).tiny)).log() + largest.squeeze(1)


@on_arrays
def categorical_generalized_cross_entropy(y_true: Expression, y_pred: Expression, q: float = 0.5) -> Expression:
    """``(1 - p ** q) / q`` of the class in `y_true`; Zhang and Sabuncu 2018, arXiv:1805.07836."""
    chosen = y_true.cast("int32").one_hot(_classes(y_pred, -1), y_pred.type.dtype)
    return (1.0 - (y_pred * chosen).sum((-1,)) ** q) / q
