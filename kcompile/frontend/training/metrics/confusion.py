"""Metrics from counts of right and wrong decisions, as ``keras/src/metrics/metrics_utils.py`` counts them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.losses.functions import EPSILON, same_rank
from kcompile.frontend.training.metrics.base import Metric, no_nan
from kcompile.frontend.training.state import State
from kcompile.frontend.weight import Weight
from kcompile.ir import dims
from kcompile.ir.expression import Expression
from kcompile.ir.ops import CumSum, Relu, Reverse, ScatterAdd, Slice

# What no prediction is below: `NEG_INF` of Keras.
_LOWEST = -1e10

Condition = Literal["tp", "fp", "tn", "fn"]


def listed(thresholds: Any, default: float) -> list[float]:
    """Thresholds as a list of numbers from 0 to 1.

    Raises:
        ModelError: one of them is outside.
    """
    if thresholds is None:
        return [default]
    found = [float(t) for t in thresholds] if isinstance(thresholds, Sequence) else [float(thresholds)]
    if any(not 0 <= t <= 1 for t in found):
        raise ModelError(f"`thresholds` of a metric must be from 0 to 1. Received: {thresholds!r}.")
    return found


@dataclass(frozen=True)
class Decisions:
    """How predictions are compared with thresholds.

    `evenly`: the thresholds are ``i / (n - 1)``, the first and the last perhaps moved outwards by epsilon.
    """

    thresholds: tuple[float, ...]
    top_k: int | None = None
    class_id: int | None = None
    multi_label: bool = False

    @property
    def evenly(self) -> bool:
        """Whether the thresholds are evenly spread over 0 to 1."""
        count = len(self.thresholds)
        even = np.arange(count, dtype=np.float32) / max(count - 1, 1)
        return count > 2 and bool(np.allclose(self.thresholds, even, atol=EPSILON))

    def counts(
        self,
        y_true: Expression,
        y_pred: Expression,
        weights: Expression | None,
        label_weights: Sequence[float] | None = None,
    ) -> dict[Condition, Expression]:
        """Weighted numbers of right and wrong decisions for each threshold (and label): ``f32[T]`` or ``f32[T, L]``."""
        y_true, y_pred = y_true.cast("float32"), y_pred.cast("float32")
        y_pred, y_true = same_rank(y_pred, y_true)
        if weights is not None:
            weights = weights.cast("float32").expand(-1)
            _, weights = same_rank(y_true, weights, expand=False)
        if self.top_k is not None:
            y_pred = _largest(y_pred, self.top_k)
        if self.class_id is not None:
            chosen = Slice(y_pred.type.rank - 1, self.class_id, self.class_id + 1)
            y_true, y_pred = y_true.apply(chosen), y_pred.apply(chosen)
        factor = y_pred.like(1.0) if weights is None else weights
        if label_weights is not None:
            factor = factor * Expression(y_pred.b, y_pred.b.constant(np.asarray(label_weights, np.float32)))
        factor = factor.broadcast_to(y_pred.shape)
        real = y_true.differs(0.0).cast("float32")
        labels = y_pred.shape[1:] if self.multi_label else ()
        flat = [
            x.reshape((dims.exact_div(x.type.size, dims.mul(*labels)) or 0, *labels)) for x in (real, y_pred, factor)
        ]
        return self._by_bucket(*flat) if self.evenly else self._by_threshold(*flat)

    def _by_bucket(self, real: Expression, y_pred: Expression, factor: Expression) -> dict[Condition, Expression]:
        count = len(self.thresholds)
        bucket = (y_pred.clip(0.0, 1.0) * (count - 1.0)).ceil() - 1.0
        if self.thresholds[0] < 0 or self.thresholds[-1] > 1:
            bucket = bucket.apply(Relu())
        else:
            factor = factor.where(bucket >= 0.0, 0.0)
        right, wrong = real * factor, (1.0 - real) * factor
        tp, fp = (_above(share, bucket.cast("int32"), count) for share in (right, wrong))
        return {"tp": tp, "fp": fp, "tn": wrong.sum((0,)) - fp, "fn": right.sum((0,)) - tp}

    def _by_threshold(self, real: Expression, y_pred: Expression, factor: Expression) -> dict[Condition, Expression]:
        shape = (-1, *(1,) * y_pred.type.rank)
        bounds = y_pred.b.constant(np.asarray(self.thresholds, np.float32).reshape(shape))
        positive = (y_pred.expand(0) > Expression(y_pred.b, bounds)).cast("float32")
        right, wrong = (real * factor).expand(0), ((1.0 - real) * factor).expand(0)
        return {
            "tp": (positive * right).sum((1,)),
            "fp": (positive * wrong).sum((1,)),
            "tn": ((1.0 - positive) * wrong).sum((1,)),
            "fn": ((1.0 - positive) * right).sum((1,)),
        }


def _above(values: Expression, bucket: Expression, count: int) -> Expression:
    """For each threshold the sum of the values whose bucket is not below it."""
    if values.type.rank == 1:
        total = bucket.apply(ScatterAdd(count, 0), values)
        return total.apply(Reverse((0,))).apply(CumSum(0)).apply(Reverse((0,)))
    labels = values.shape[1]
    assert isinstance(labels, int)
    offsets = Expression(values.b, values.b.constant(np.arange(labels, dtype=np.int32)))
    size = values.type.size
    places = (bucket * labels + offsets).reshape((size,))
    total = places.apply(ScatterAdd(count * labels, 0), values.reshape((size,))).reshape((count, labels))
    return total.apply(Reverse((0,))).apply(CumSum(0)).apply(Reverse((0,)))


def _largest(x: Expression, k: int) -> Expression:
    """``x`` where it is among the `k` largest of its row, the first of equal ones; elsewhere the lowest number."""
    classes = x.shape[-1]
    assert isinstance(classes, int)
    earlier = Expression(x.b, x.b.constant(np.tri(classes, k=-1, dtype=bool)))
    mine, other = x.expand(-1), x.expand(-2)
    before = (other > mine) | (other.equals(mine) & earlier)
    return x.where(before.cast("int32").sum((-1,)) < k, _LOWEST)


class Counting(Metric):
    """Base of metrics that keep counts of decisions."""

    conditions: ClassVar[Mapping[Condition, str]] = {}

    def __init__(self, decisions: Decisions, name: str | None, dtype: str | None) -> None:
        super().__init__(name, dtype)
        self.decisions = decisions
        self.counts: dict[Condition, Weight] = {}
        if not decisions.multi_label:
            self.add_counts((len(decisions.thresholds),))

    def add_counts(self, shape: Sequence[int]) -> None:
        """Create the variables."""
        for condition, name in self.conditions.items():
            self.counts[condition] = self.add_variable(name, shape)

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        found = self.decisions.counts(values[0], values[1], weights)
        self.add(state, found)

    def add(self, state: State, found: Mapping[Condition, Expression]) -> None:
        """Add the counts of a batch."""
        for condition, weight in self.counts.items():
            state.write(weight, (state.expression(weight) + found[condition]).value)

    def count(self, state: State, condition: Condition) -> Expression:
        """A count so far."""
        return state.expression(self.counts[condition])

    def single(self, result: Expression) -> Expression:
        """The number where there is one threshold, else the vector."""
        return result.squeeze(0) if len(self.decisions.thresholds) == 1 else result


class _Count(Counting):
    """Base: one count."""

    arguments = ("thresholds",)

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(Decisions(tuple(listed(thresholds, 0.5))), name, dtype)
        self.thresholds = thresholds

    def outcome(self, state: State) -> Expression:
        (condition,) = self.counts
        return self.single(self.count(state, condition))


class TruePositives(_Count):
    """How often yes was right."""

    conditions: ClassVar[Mapping[Condition, str]] = {"tp": "accumulator"}


class FalsePositives(_Count):
    """How often yes was wrong."""

    conditions: ClassVar[Mapping[Condition, str]] = {"fp": "accumulator"}


class TrueNegatives(_Count):
    """How often no was right."""

    conditions: ClassVar[Mapping[Condition, str]] = {"tn": "accumulator"}


class FalseNegatives(_Count):
    """How often no was wrong."""

    conditions: ClassVar[Mapping[Condition, str]] = {"fn": "accumulator"}


class _Share(Counting):
    """Base: a share of right decisions."""

    arguments = ("thresholds", "top_k", "class_id")

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        bounds = listed(thresholds, 0.5 if top_k is None else _LOWEST)
        super().__init__(Decisions(tuple(bounds), top_k, class_id), name, dtype)
        self.thresholds, self.top_k, self.class_id = thresholds, top_k, class_id

    def outcome(self, state: State) -> Expression:
        right, wrong = (state.expression(weight) for weight in self.counts.values())
        return self.single(no_nan(right, right + wrong))


class Precision(_Share):
    """The share of right ones among the decisions for yes."""

    conditions: ClassVar[Mapping[Condition, str]] = {"tp": "true_positives", "fp": "false_positives"}


class Recall(_Share):
    """The share of the true ones that were found."""

    conditions: ClassVar[Mapping[Condition, str]] = {"tp": "true_positives", "fn": "false_negatives"}


ALL_CONDITIONS: Mapping[Condition, str] = {
    "tp": "true_positives",
    "fp": "false_positives",
    "tn": "true_negatives",
    "fn": "false_negatives",
}


class _BestUnder(Counting):
    """Base: the best value of one share at thresholds where another is `value` at least."""

    conditions: ClassVar[Mapping[Condition, str]] = ALL_CONDITIONS
    required: ClassVar[tuple[Condition, Condition]]
    wanted: ClassVar[tuple[Condition, Condition]]

    def __init__(
        self,
        value: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        law = f"{type(self).__name__} takes a share from 0 to 1 and a positive `num_thresholds`"
        if not 0 <= value <= 1 or num_thresholds <= 0:
            raise ModelError(f"{law}. Received: {value}, num_thresholds={num_thresholds}.")
        even = tuple(i / (num_thresholds - 1) for i in range(num_thresholds)) if num_thresholds > 1 else (0.5,)
        super().__init__(Decisions(even, class_id=class_id), name, dtype)
        self.value, self.num_thresholds, self.class_id = value, num_thresholds, class_id

    def _share(self, state: State, pair: tuple[Condition, Condition]) -> Expression:
        right, wrong = (self.count(state, condition) for condition in pair)
        return no_nan(right, right + wrong)

    def outcome(self, state: State) -> Expression:
        fits = self._share(state, self.required) >= self.value
        return self._share(state, self.wanted).where(fits, 0.0).max().maximum(0.0)


class SensitivityAtSpecificity(_BestUnder):
    """The best sensitivity at a specificity of that much at least."""

    arguments = ("specificity", "num_thresholds", "class_id")
    required, wanted = ("tn", "fp"), ("tp", "fn")

    def __init__(self, specificity: float, num_thresholds: int = 200, **options: Any) -> None:
        self.specificity = specificity
        super().__init__(specificity, num_thresholds, **options)


class SpecificityAtSensitivity(_BestUnder):
    """The best specificity at a sensitivity of that much at least."""

    arguments = ("sensitivity", "num_thresholds", "class_id")
    required, wanted = ("tp", "fn"), ("tn", "fp")

    def __init__(self, sensitivity: float, num_thresholds: int = 200, **options: Any) -> None:
        self.sensitivity = sensitivity
        super().__init__(sensitivity, num_thresholds, **options)


class PrecisionAtRecall(_BestUnder):
    """The best precision at a recall of that much at least."""

    arguments = ("recall", "num_thresholds", "class_id")
    required, wanted = ("tp", "fn"), ("tp", "fp")

    def __init__(self, recall: float, num_thresholds: int = 200, **options: Any) -> None:
        self.recall = recall
        super().__init__(recall, num_thresholds, **options)


class RecallAtPrecision(_BestUnder):
    """The best recall at a precision of that much at least."""

    arguments = ("precision", "num_thresholds", "class_id")
    required, wanted = ("tp", "fp"), ("tp", "fn")

    def __init__(self, precision: float, num_thresholds: int = 200, **options: Any) -> None:
        self.precision = precision
        super().__init__(precision, num_thresholds, **options)
