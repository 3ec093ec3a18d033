"""What `compile` was given, resolved for each output of a model (``keras/src/trainers/compile_utils.py``)."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kcompile.errors import GraphError, InputError, ModelError
from kcompile.frontend.training import losses, metrics
from kcompile.frontend.training.losses import Loss
from kcompile.frontend.training.losses.functions import same_rank
from kcompile.frontend.training.metrics import Mean, MeanMetricWrapper, Metric
from kcompile.frontend.training.state import State
from kcompile.ir import expression
from kcompile.ir.expression import Expression
from kcompile.ir.types import Array


@dataclass(frozen=True)
class Target:
    """One output: its predictions and their mask, and, where the data has them, labels and sample weights."""

    name: str
    y_pred: Expression
    mask: Expression | None = None
    y_true: Expression | None = None
    weights: Expression | None = None

    def labels(self) -> Expression:
        """The labels.

        Raises:
            ModelError: the data has none.
        """
        if self.y_true is None:
            raise ModelError(f"output `{self.name}` has a loss or metrics, which need labels. Give them as `y`.")
        return self.y_true


def _is_binary(y_pred: Expression) -> bool:
    return y_pred.type.rank > 0 and y_pred.shape[-1] == 1


def _is_sparse(y_true: Expression, y_pred: Expression) -> bool:
    return y_true.type.rank < y_pred.type.rank or (y_true.shape[-1] == 1 and y_pred.shape[-1] != 1)


def resolve_loss(identifier: Any, y_true: Expression, y_pred: Expression) -> Loss:
    """The loss for an output; "crossentropy" is the one that fits the shapes."""
    if str(identifier).lower() not in ("crossentropy", "ce"):
        return losses.get(identifier)
    if _is_binary(y_pred):
        return losses.get("binary_crossentropy")
    return losses.get("sparse_categorical_crossentropy" if _is_sparse(y_true, y_pred) else "categorical_crossentropy")


def resolve_metric(identifier: Any, y_true: Expression, y_pred: Expression) -> Metric:
    """The metric for an output, under the name that the user gave; "accuracy" is the one that fits the shapes."""
    if str(identifier).lower() not in ("accuracy", "acc"):
        metric = metrics.get(identifier)
    elif _is_binary(y_pred):
        metric = metrics.BinaryAccuracy()
    elif _is_sparse(y_true, y_pred):
        metric = metrics.SparseCategoricalAccuracy()
    else:
        metric = metrics.CategoricalAccuracy()
    if isinstance(identifier, str):
        metric.name = identifier
    return metric


def per_output(argument: str, value: Any, names: Sequence[str], alone: type | tuple[type, ...] = ()) -> list[Any]:
    """An argument of `compile` for each output: given once, in a list, or in a dict by the outputs' names.

    Args:
        alone: kinds of sequences that are one value for a model with one output.

    Raises:
        ModelError: names or numbers do not fit.
    """
    if isinstance(value, Mapping) and "class_name" not in value:
        unknown = [str(key) for key in value if key not in names]
        if unknown:
            law = f"`{argument}` must name outputs of the model: {', '.join(names)}"
            raise ModelError(f"{law}. Received: {', '.join(unknown)}.")
        return [value.get(name) for name in names]
    if not isinstance(value, list | tuple):
        return [value] * len(names)
    given: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
    if len(names) == 1 and isinstance(value, alone):
        return [given]
    if len(given) != len(names):
        law = f"`{argument}` must hold one entry for each of the outputs {', '.join(names)}"
        raise ModelError(f"{law}. Received: {len(given)} entries.")
    return given


@dataclass(frozen=True)
class ClassLabels:
    """Labels that are numbers of classes: those from 0 to `count`, and `ignored`."""

    loss: str
    count: int
    ignored: int | None

    def check(self, output: str, labels: Array, weights: Array | None) -> None:
        """Refuse other labels, but for samples without weight.

        Raises:
            InputError: there are some.
        """
        # A number below zero is a large one without its sign.
        if labels.dtype == np.int32 and labels.size and labels.view(np.uint32).max() < self.count:
            return
        whole = labels.dtype.kind in "iu" or not (labels % 1).any()
        if labels.size == 0 or (labels.min() >= 0 and labels.max() < self.count and whole):
            return
        wrong = ~((labels >= 0) & (labels < self.count) & (labels % 1 == 0))
        if self.ignored is not None:
            wrong &= labels != self.ignored
        if weights is not None and weights.size == labels.size:
            wrong &= weights.reshape(labels.shape) != 0
        if wrong.any():
            law = f"labels of output `{output}` must be classes from 0 to {self.count - 1} for the loss {self.loss}"
            raise InputError(f"{law}. Received: {labels[wrong].flat[0]}.")


@contextmanager
def _fitting(what: str, target: Target) -> Generator[None]:
    """Errors of what is written for an output, as those of its labels.

    Raises:
        ModelError: what is written does not fit.
    """
    try:
        yield
    except GraphError as error:
        law = f"{what} must fit the labels and predictions of output `{target.name}`"
        received = f"labels {target.labels().type}, predictions {target.y_pred.type}"
        raise ModelError(f"{law}. Received: {received} ({error}).") from error


@dataclass
class Objectives:
    """The losses and metrics of a model, made when the shapes of labels and predictions are first seen.

    Attributes:
        tracker: the mean of the total loss.
        partial: the mean of each output's loss, where there are several.
        groups: the metrics of each output with the names of their logs; weighted ones marked.
        own: metrics that the model has itself.
    """

    loss: Any = None
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None
    tracker: Mean = field(default_factory=lambda: Mean("loss"))
    partial: dict[str, Mean] = field(default_factory=dict[str, Mean])
    groups: dict[str, list[tuple[Metric, bool]]] = field(default_factory=dict[str, list[tuple[Metric, bool]]])
    own: list[Metric] = field(default_factory=list[Metric])
    _losses: list[Loss | None] | None = None
    _classes: dict[str, ClassLabels] = field(default_factory=dict[str, ClassLabels])
    _pending: list[list[Array]] = field(default_factory=list[list[Array]])

    def build(self, targets: Sequence[Target]) -> None:
        """Make losses and metrics for the outputs; once."""
        if self._losses is not None:
            return
        names = [target.name for target in targets]
        given = per_output("loss", self.loss, names)
        self._losses = [
            None if loss is None else resolve_loss(loss, target.labels(), target.y_pred)
            for loss, target in zip(given, targets, strict=True)
        ]
        for loss, target in zip(self._losses, targets, strict=True):
            count = loss.classes(target.y_pred) if loss is not None else None
            if loss is not None and count is not None:
                ignored = getattr(loss, "ignore_class", None)
                self._classes[target.name] = ClassLabels(str(loss.name), count, ignored)
        if sum(loss is not None for loss in self._losses) > 1:
            pairs = zip(names, self._losses, strict=True)
            self.partial = {name: Mean(f"{name}_loss") for name, loss in pairs if loss is not None}
        for argument, weighted in (("metrics", False), ("weighted_metrics", True)):
            value = getattr(self, argument)
            if value is not None:
                self._add_metrics(per_output(argument, value, names, (list, tuple)), targets, weighted)

    def _add_metrics(self, given: Sequence[Any], targets: Sequence[Target], weighted: bool) -> None:
        for entry, target in zip(given, targets, strict=True):
            listed: list[Any] = list(entry) if isinstance(entry, list | tuple) else [entry]  # pyright: ignore[reportUnknownArgumentType]
            found = [resolve_metric(m, target.labels(), target.y_pred) for m in listed if m is not None]
            self.groups.setdefault(target.name, []).extend((metric, weighted) for metric in found)

    @property
    def all_metrics(self) -> list[Metric]:
        """All metrics, as Keras orders them."""
        own = [metric for weighted in (False, True) for metric in self._flagged(weighted)]
        return [self.tracker, *own, *self.partial.values()]

    @property
    def given(self) -> bool:
        """Whether `compile` was given metrics."""
        return self.metrics is not None or self.weighted_metrics is not None

    def needed(self, names: Sequence[str]) -> list[str]:
        """The outputs among `names` that have a loss or metrics."""
        listed = (per_output(a, getattr(self, a), names, (list, tuple)) for a in ("metrics", "weighted_metrics"))
        entries = zip(per_output("loss", self.loss, names), *listed, strict=True)
        return [name for name, given in zip(names, entries, strict=True) if any(map(_is_given, given))]

    def _flagged(self, weighted: bool) -> list[Metric]:
        return [metric for group in self.groups.values() for metric, flag in group if flag == weighted]

    def check_labels(self, labels: Mapping[str, Array], weights: Mapping[str, Array]) -> None:
        """Refuse labels that are no classes where a loss takes such.

        Raises:
            InputError: there are some.
        """
        for name, law in self._classes.items():
            if name in labels:
                law.check(name, labels[name], weights.get(name))

    def reset(self) -> None:
        """Forget all batches."""
        self._pending = []
        for metric in self._kept:
            metric.reset_state()

    @property
    def _kept(self) -> list[Metric]:
        return [*self.all_metrics, *self.own]

    @property
    def states(self) -> list[list[Array]]:
        """What each metric has seen since `reset`."""
        return [[weight.array.copy() for weight in metric.variables] for metric in self._kept]

    def resume(self, states: list[list[Array]]) -> None:
        """Let the metrics go on from `states`, as soon as they are made."""
        self._pending = states
        self.assign_pending()

    def assign_pending(self) -> None:
        """Let the metrics go on from what `resume` was given, where all of them are made."""
        metrics = self._kept
        if list(map(len, self._pending)) != [len(metric.variables) for metric in metrics]:
            return
        for metric, values in zip(metrics, self._pending, strict=True):
            for weight, value in zip(metric.variables, values, strict=True):
                weight.array = value
        self._pending = []

    def total_loss(self, state: State, targets: Sequence[Target], extra: Sequence[Expression]) -> Expression:
        """The loss of a batch: those of the outputs, weighted, and what layers add.

        Raises:
            ModelError: there is nothing to minimize.
        """
        self.build(targets)
        weights = per_output("loss_weights", self.loss_weights, [target.name for target in targets])
        found: list[Expression] = []
        for loss, target, weight in zip(self._losses or [], targets, weights, strict=True):
            if loss is None:
                continue
            with _fitting(f"the loss {loss.name}", target):
                value = loss(target.labels(), target.y_pred, target.weights, target.mask)
            value = value.mean() if value.type.rank else value
            if target.name in self.partial:
                self.partial[target.name].update(state, value, weights=batch_size(target.y_pred))
            found.append(value if weight is None else value * float(weight))
        found += extra
        if not found:
            raise ModelError("there is no loss to minimize. Give `loss` to `compile`.")
        return sum(found[1:], found[0])

    def update_metrics(self, state: State, targets: Sequence[Target], loss: Expression) -> None:
        """Write the new states of all metrics."""
        self.tracker.update(state, loss, weights=batch_size(targets[0].y_pred))
        self.update_groups(state, targets)
        self.assign_pending()

    def update_groups(self, state: State, targets: Sequence[Target]) -> None:
        """Write the new states of the metrics that `compile` was given."""
        self.build(targets)
        for target in targets:
            for metric, weighted in self.groups.get(target.name, []):
                weights = target.weights if weighted else None
                if target.mask is not None and isinstance(metric, MeanMetricWrapper):
                    weights = _masked(target.mask, weights)
                with _fitting(f"the metric {metric.name}", target):
                    metric.ensure_built(target.labels(), target.y_pred)
                    metric.write_update(state, target.labels(), target.y_pred, weights=weights)

    def results(self, state: State) -> dict[str, Expression]:
        """The results of all metrics by the names that logs use."""
        found = self.group_results(state, {"loss": self.tracker.outcome(state)})
        found.update({metric.name: metric.outcome(state) for metric in self.partial.values()})
        return found

    def group_results(self, state: State, before: Mapping[str, Expression] | None = None) -> dict[str, Expression]:
        """Those of the metrics that `compile` was given, after others."""
        found = dict(before or {})
        several = len(self._losses or []) > 1
        for weighted in (False, True):
            for name, group in self.groups.items():
                for metric, flag in group:
                    if flag == weighted:
                        own = f"{name}_{metric.name}" if several else metric.name
                        found[_free(found, own, weighted)] = metric.write_outcome(state)
        return found


def _is_given(entry: Any) -> bool:
    return entry is not None and entry != []


def _free(taken: Mapping[str, Any], name: str, weighted: bool) -> str:
    """`name`, changed as Keras does where it is taken."""
    if name in taken and weighted:
        name = f"weighted_{name}"
    count, found = 0, name
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found


def batch_size(x: Expression) -> Expression:
    """The number of samples of a batch, as a float."""
    return expression.count(x.b, x.shape[:1], "float32")


def _masked(mask: Expression, weights: Expression | None) -> Expression:
    seen = mask.cast("float32")
    if weights is None:
        return seen
    seen, weights = same_rank(seen, weights)
    return weights * seen
