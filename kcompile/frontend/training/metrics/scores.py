"""F-scores, the coefficient of determination, and overlaps of classes (``keras/src/metrics``)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.losses.functions import EPSILON, same_rank
from kcompile.frontend.training.metrics.base import Metric
from kcompile.frontend.training.state import State
from kcompile.frontend.weight import Weight
from kcompile.ir import expression
from kcompile.ir.expression import Expression
from kcompile.ir.ops import ArgReduce, ScatterAdd


def _columns(metric: Metric, values: Sequence[Expression]) -> int:
    """The number of columns of labels and predictions ``[N, C]``."""
    y_true, y_pred = values[0].type, values[1].type
    columns = y_pred.shape[-1] if y_pred.rank else None
    if y_true.rank != 2 or y_pred.rank != 2 or not isinstance(columns, int):
        law = f"metric `{metric.name}` takes labels and predictions of shape [N, columns]"
        raise ModelError(f"{law}. Received: {y_true} and {y_pred}.")
    return columns


class FBetaScore(Metric):
    """``(1 + beta ** 2) * precision * recall / (beta ** 2 * precision + recall)`` for each class.

    Args:
        average: how classes are joined: "micro", "macro", "weighted", or not at all (None).
        threshold: from which on a prediction is yes; by default the largest of a row is.
    """

    arguments = ("average", "beta", "threshold")
    default_name = "fbeta_score"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        fits = (
            average in (None, "micro", "macro", "weighted") and beta > 0 and (threshold is None or 0 < threshold <= 1)
        )
        if not fits:
            law = f"{type(self).__name__} takes an average None, micro, macro or weighted, beta > 0, 0 < threshold <= 1"
            raise ModelError(f"{law}. Received: average={average!r}, beta={beta}, threshold={threshold}.")
        self.average, self.beta, self.threshold = average, float(beta), threshold

    def build(self, *values: Expression) -> None:
        shape = () if self.average == "micro" else (_columns(self, values),)
        for name in ("true_positives", "false_positives", "false_negatives", "intermediate_weights"):
            self.add_variable(name, shape)

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        y_true, y_pred = (value.cast(self.dtype) for value in values)
        if self.threshold is None:
            chosen = (y_pred >= y_pred.max((-1,), keepdims=True)) & (y_pred.abs() > 1e-9)
        else:
            chosen = y_pred > self.threshold
        y_pred = chosen.cast(self.dtype)
        counted = (y_pred * y_true, y_pred * (1.0 - y_true), (1.0 - y_pred) * y_true, y_true)
        for weight, count in zip(self.variables, counted, strict=True):
            scaled = count if weights is None else count * weights.cast(self.dtype).expand(1)
            total = scaled.sum() if self.average == "micro" else scaled.sum((0,))
            state.write(weight, (state.expression(weight) + total).value)

    def outcome(self, state: State) -> Expression:
        right, wrong, missed, real = (state.expression(weight) for weight in self.variables)
        precision, recall = (right / (right + other + EPSILON) for other in (wrong, missed))
        square = self.beta**2
        score = precision * recall / (square * precision + recall + EPSILON) * (1 + square)
        if self.average == "weighted":
            return (score * (real / (real.sum() + EPSILON))).sum()
        return score if self.average is None else score.mean()


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall."""

    arguments = ("average", "threshold")
    default_name = "f1_score"

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)


class R2Score(Metric):
    """The share of the variance that the predictions explain, adjusted for `num_regressors` where there are some."""

    arguments = ("class_aggregation", "num_regressors")
    default_name = "r2_score"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average") or num_regressors < 0:
            law = "metric R2Score takes None, uniform_average or variance_weighted_average, and a number from 0 on"
            raise ModelError(f"{law}. Received: {class_aggregation!r}, num_regressors={num_regressors}.")
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self.num_samples = self.add_variable("num_samples")

    def build(self, *values: Expression) -> None:
        columns = _columns(self, same_rank(values[0], values[1]))
        for name in ("squared_sum", "sum", "residual", "count"):
            self.add_variable(name, (columns,))

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        y_true, y_pred = same_rank(values[0].cast(self.dtype), values[1].cast(self.dtype))
        factor = y_true.like(1.0) if weights is None else weights.cast(self.dtype)
        factor = (factor.expand(1) if factor.type.rank == 1 else factor).broadcast_to(y_true.shape)
        weighted = y_true * factor
        added = (y_true * weighted, weighted, (y_true - y_pred).square() * factor, factor)
        for weight, values_ in zip(self.variables[1:], added, strict=True):
            state.write(weight, (state.expression(weight) + values_.sum((0,))).value)
        size = expression.count(state.b, y_true.shape, self.dtype)
        state.write(self.num_samples, (state.expression(self.num_samples) + size).value)

    def outcome(self, state: State) -> Expression:
        samples, squares, total, residual, count = (state.expression(weight) for weight in self.variables)
        variance = squares - total * (total / count)
        scores = 1.0 - residual / variance
        scores = scores.where(scores.abs() < float("inf"), scores.where(scores.differs(scores), 0.0))
        if self.class_aggregation == "uniform_average":
            scores = scores.mean()
        elif self.class_aggregation == "variance_weighted_average":
            scores = (variance * scores).sum() / variance.sum()
        if not self.num_regressors:
            return scores
        left = samples - self.num_regressors - 1.0
        adjusted = 1.0 - (1.0 - scores) * (samples - 1.0) / left
        return adjusted.where(left > 0.0, scores)


class _ClassOverlap(Metric):
    """Base: a table of how often each class was taken for each other."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype or "int32")
        if max(target_class_ids) >= num_classes:
            law = f"target classes of metric `{self.name}` must be below {num_classes}"
            raise ModelError(f"{law}. Received: {list(target_class_ids)}.")
        self.num_classes, self.target_class_ids, self.ignore_class = num_classes, list(target_class_ids), ignore_class
        self.sparse_y_true, self.sparse_y_pred, self.axis = sparse_y_true, sparse_y_pred, axis
        self.table: Weight = self.add_variable("total_confusion_matrix", (num_classes, num_classes))

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        y_true, y_pred = values
        y_true = y_true if self.sparse_y_true else y_true.apply(ArgReduce(self.axis))
        y_pred = y_pred if self.sparse_y_pred else y_pred.apply(ArgReduce(self.axis))
        y_true, y_pred = (y.reshape((y.type.size,)).cast("int32") for y in (y_true, y_pred))
        counts = (y_true >= 0) & (y_true < self.num_classes) & (y_pred >= 0) & (y_pred < self.num_classes)
        if self.ignore_class is not None:
            counts = counts & y_true.differs(self.ignore_class)
        factor = counts.cast(self.dtype)
        if weights is not None:
            factor = weights.cast(self.dtype).reshape((weights.type.size,)) * factor
        places = (y_true * self.num_classes + y_pred).where(counts, 0)
        size = self.num_classes
        found = places.apply(ScatterAdd(size * size, 0), factor).reshape((size, size))
        state.write(self.table, (state.expression(self.table) + found).value)

    def outcome(self, state: State) -> Expression:
        table = state.expression(self.table)
        eye = np.eye(self.num_classes)[:, self.target_class_ids]
        chosen = Expression(state.b, state.b.constant(eye.astype(self.dtype)))
        diagonal = Expression(state.b, state.b.constant(np.eye(self.num_classes).astype(self.dtype)))
        right = (table * diagonal).sum((0,))
        union = table.sum((0,)) + table.sum((1,)) - right
        right, union = ((x.expand(1) * chosen).sum((0,)).cast("float32") for x in (right, union))
        valid = union > 1e-9
        shares = (right / (union + EPSILON)).where(valid, 0.0)
        return shares.sum() / (valid.cast("float32").sum() + EPSILON)


class IoU(_ClassOverlap):
    """The mean overlap of `target_class_ids`: what label and prediction share over what either has."""

    default_name = "io_u"
    arguments = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")


class BinaryIoU(_ClassOverlap):
    """`IoU` of yes and no, from predictions and a threshold."""

    default_name = "binary_io_u"
    arguments = ("target_class_ids", "threshold")

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        y_true, y_pred = values
        super().update(state, y_true, (y_pred.cast("float32") >= self.threshold).cast("int32"), weights=weights)


class MeanIoU(_ClassOverlap):
    """`IoU` of all classes."""

    default_name = "mean_io_u"
    arguments = ("num_classes", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")

    def __init__(self, num_classes: int, name: str | None = None, dtype: str | None = None, **options: Any) -> None:
        super().__init__(num_classes, range(num_classes), name, dtype, **options)


class OneHotIoU(_ClassOverlap):
    """`IoU` of one-hot labels."""

    default_name = "one_hot_io_u"
    arguments = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_pred", "axis")

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)


class OneHotMeanIoU(_ClassOverlap):
    """`MeanIoU` of one-hot labels."""

    default_name = "one_hot_mean_io_u"
    arguments = ("num_classes", "ignore_class", "sparse_y_pred", "axis")

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, range(num_classes), name, dtype, ignore_class, False, sparse_y_pred, axis)
