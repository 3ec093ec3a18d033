"""The area under a curve of two shares, as ``keras/src/metrics/confusion_metrics.py`` approximates it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from kcompile.errors import ModelError
from kcompile.frontend.training.losses.functions import EPSILON
from kcompile.frontend.training.metrics.base import no_nan
from kcompile.frontend.training.metrics.confusion import ALL_CONDITIONS, Condition, Counting, Decisions, listed
from kcompile.frontend.training.state import State
from kcompile.ir.expression import Expression
from kcompile.ir.ops import Sigmoid, Slice


class AUC(Counting):
    """The area under the ROC, the precision-recall or the precision-recall-gain curve, over thresholds.

    Args:
        curve: "ROC", "PR" or "PRGAIN".
        summation_method: of the heights between two thresholds: their mean ("interpolation"; for "PR" the one of Davis
            and Goadrich 2006), the smaller ("minoring") or the larger one ("majoring").
        thresholds: the inner thresholds, in place of evenly spread ones.
        multi_label: whether the columns are labels with areas of their own, which are averaged by `label_weights`.
    """

    conditions: ClassVar[Mapping[Condition, str]] = ALL_CONDITIONS
    arguments = (
        "num_thresholds",
        "curve",
        "summation_method",
        "multi_label",
        "num_labels",
        "label_weights",
        "from_logits",
    )

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: str | None = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        inner = sorted(listed(thresholds, 0.5)) if thresholds is not None else None
        if inner is None:
            inner = [i / (num_thresholds - 1) for i in range(1, num_thresholds - 1)]
        self.curve: Literal["ROC", "PR", "PRGAIN"] = _choice("curve", curve, ("ROC", "PR", "PRGAIN"))
        methods = ("interpolation", "minoring", "majoring")
        self.summation_method = _choice("summation_method", summation_method, methods)
        bounds = (-EPSILON, *inner, 1.0 + EPSILON)
        super().__init__(Decisions(bounds, multi_label=multi_label), name, dtype)
        self.thresholds = list(inner) if thresholds is not None else None
        self.num_thresholds, self.multi_label, self.num_labels = len(bounds), multi_label, num_labels
        self.label_weights, self.from_logits = label_weights, from_logits

    def build(self, *values: Expression) -> None:
        if not self.multi_label:
            return
        shape = values[1].type.shape
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise ModelError(
                f"metric `{self.name}` with labels takes predictions [N, labels]. Received: {values[1].type}."
            )
        self.add_counts((self.num_thresholds, shape[1]))

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        y_true, y_pred = values
        y_pred = y_pred.apply(Sigmoid()) if self.from_logits else y_pred
        own = None if self.multi_label else self.label_weights
        self.add(state, self.decisions.counts(y_true, y_pred, weights, own))

    def outcome(self, state: State) -> Expression:
        tp, fp, tn, fn = (self.count(state, condition) for condition in ALL_CONDITIONS)
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._combined(self._interpolated(tp, fp, fn))
        recall = no_nan(tp, tp + fn)
        if self.curve == "ROC":
            x, y = no_nan(fp, fp + tn), recall
        elif self.curve == "PR":
            x, y = recall, no_nan(tp, tp + fp)
        else:
            scale, none = no_nan(tp + fn, tn + fp), tp.equals(0.0)
            gains = [1.0 - scale * no_nan(wrong, tp) for wrong in (fn, fp)]
            x, y = gains[0].like(0.0).where(none, gains[0]).maximum(0.0), gains[1].like(1.0).where(none, gains[1])
        return self._combined((self._first(x) - self._rest(x)) * self._heights(y))

    def _heights(self, y: Expression) -> Expression:
        first, rest = self._first(y), self._rest(y)
        if self.summation_method == "interpolation":
            return (first + rest) / 2.0
        return first.minimum(rest) if self.summation_method == "minoring" else first.maximum(rest)

    def _interpolated(self, tp: Expression, fp: Expression, fn: Expression) -> Expression:
        yes = tp + fp
        first, rest = self._first(yes), self._rest(yes)
        gained = self._first(tp) - self._rest(tp)
        slope = no_nan(gained, (first - rest).maximum(0.0))
        intercept = self._rest(tp) - slope * rest
        both = (first > 0.0) & (rest > 0.0)
        ratio = no_nan(first, rest.maximum(0.0)).where(both, 1.0)
        return no_nan(slope * (gained + intercept * ratio.log()), (self._rest(tp) + self._rest(fn)).maximum(0.0))

    def _first(self, x: Expression) -> Expression:
        return x.apply(Slice(0, 0, self.num_thresholds - 1))

    def _rest(self, x: Expression) -> Expression:
        return x.apply(Slice(0, 1, self.num_thresholds))

    def _combined(self, terms: Expression) -> Expression:
        if not self.multi_label:
            return terms.sum()
        by_label = terms.sum((0,))
        if self.label_weights is None:
            return by_label.mean()
        total = sum(self.label_weights)
        weighted = [by_label.apply(Slice(0, i, i + 1)).sum() * float(w) for i, w in enumerate(self.label_weights)]
        return sum(weighted[1:], weighted[0]) / float(total or 1.0)

    def get_config(self) -> dict[str, Any]:
        own = {} if self.thresholds is None else {"thresholds": self.thresholds}
        return {**super().get_config(), **own}


def _choice(argument: str, value: str, options: Sequence[Any]) -> Any:
    found = {str(option).lower(): option for option in options}.get(str(value).lower())
    if found is None:
        raise ModelError(f"`{argument}` of AUC must be one of {', '.join(options)}. Received: {value!r}.")
    return found
