"""Metrics that are means of a value per sample, as functions (``keras/src/metrics``); each takes arrays as well."""

from collections.abc import Sequence

from kcompile.frontend.training.eager import on_arrays
from kcompile.frontend.training.losses import functions as losses
from kcompile.frontend.training.losses.functions import EPSILON, same_rank
from kcompile.ir.expression import Expression
from kcompile.ir.ops import ArgReduce


def _classes_of(x: Expression) -> Expression:
    return x.apply(ArgReduce(-1))


def _ones(matches: Expression) -> Expression:
    return matches.cast("float32")


@on_arrays
def accuracy(y_true: Expression, y_pred: Expression) -> Expression:
    """1 where label and prediction are equal."""
    y_true, y_pred = same_rank(y_true.cast(y_pred.type.dtype), y_pred)
    return _ones(y_true.equals(y_pred))


@on_arrays
def binary_accuracy(y_true: Expression, y_pred: Expression, threshold: float = 0.5) -> Expression:
    """1 where the prediction is on the label's side of the threshold."""
    y_true, y_pred = same_rank(y_true, y_pred)
    return _ones(y_true.equals((y_pred > threshold).cast(y_true.type.dtype)))


@on_arrays
def categorical_accuracy(y_true: Expression, y_pred: Expression) -> Expression:
    """1 where the largest prediction is at the place of the largest label."""
    return _ones(_classes_of(y_true).equals(_classes_of(y_pred)))


@on_arrays
def sparse_categorical_accuracy(y_true: Expression, y_pred: Expression) -> Expression:
    """1 where the largest prediction is at the place that the label names."""
    if y_true.type.rank == y_pred.type.rank and y_true.shape[-1] == 1:
        y_true = y_true.squeeze(-1)
    matches = _ones(y_true.equals(_classes_of(y_pred).cast(y_true.type.dtype)))
    return matches.squeeze(-1) if matches.type.rank > 1 and matches.shape[-1] == 1 else matches


@on_arrays
def sparse_top_k_categorical_accuracy(y_true: Expression, y_pred: Expression, k: int = 5) -> Expression:
    """1 where less than `k` predictions are larger than the one that the label names."""
    if y_true.type.rank == y_pred.type.rank and y_true.shape[-1] == 1:
        y_true = y_true.squeeze(-1)
    classes = y_pred.shape[-1]
    assert isinstance(classes, int)
    chosen = y_true.cast("int32").one_hot(classes, "bool")
    own = y_pred.where(chosen, 0.0).sum((-1,), keepdims=True)
    larger = (y_pred > own).cast("int32").sum((-1,))
    return _ones(larger < k)


@on_arrays
def top_k_categorical_accuracy(y_true: Expression, y_pred: Expression, k: int = 5) -> Expression:
    """1 where less than `k` predictions are larger than the one at the place of the largest label."""
    return sparse_top_k_categorical_accuracy(_classes_of(y_true), y_pred, k)


@on_arrays
def squared_error(y_true: Expression, y_pred: Expression) -> Expression:
    """``(y_true - y_pred) ** 2``, element by element."""
    y_true, y_pred = same_rank(y_true.cast(y_pred.type.dtype), y_pred)
    return (y_pred - y_true).square()


@on_arrays
def cosine_similarity(y_true: Expression, y_pred: Expression, axis: int = -1) -> Expression:
    """The cosine of the angle between the two along `axis`."""
    return -losses.cosine_similarity(y_true, y_pred, axis)


def _centred(x: Expression, axes: Sequence[int]) -> Expression:
    return x - x.mean(axes, keepdims=True)


def _variance(x: Expression, axes: Sequence[int]) -> Expression:
    return _centred(x, axes).square().mean(axes, keepdims=True)


@on_arrays
def pearson_correlation(y_true: Expression, y_pred: Expression, axis: int = -1) -> Expression:
    """The correlation of the two along `axis`."""
    y_true, y_pred = same_rank(y_true.cast(y_pred.type.dtype), y_pred)
    scaled = [_centred(y, (axis,)) / _variance(y, (axis,)).sqrt() for y in (y_true, y_pred)]
    return (scaled[0] * scaled[1]).mean((axis,))


@on_arrays
def concordance_correlation(y_true: Expression, y_pred: Expression, axis: int = -1) -> Expression:
    """The agreement of the two along `axis`; Lin 1989, with the means that Keras takes away."""
    y_true, y_pred = same_rank(y_true.cast(y_pred.type.dtype), y_pred)
    true_mean, pred_mean = (y.mean((axis,), keepdims=True) for y in (y_true, y_pred))
    together = (y_true - pred_mean) * (y_pred - pred_mean)
    norm = _variance(y_true, (axis,)) + _variance(y_pred, (axis,)) + (true_mean - pred_mean).square()
    return (2.0 * together / (norm + EPSILON)).mean((axis,))
