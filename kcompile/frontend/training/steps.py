"""What one step of training, of evaluation and of prediction does, where a subclass of a model says it itself.

As ``keras/src/trainers/trainer.py`` and the trainers of its backends have it: a subclass may define `train_step`,
`test_step`, `predict_step`, `compute_loss`, `compute_metrics` and `metrics`, and each default calls the others. They
are traced once to the graph of a step; a model that defines none has its steps written without them (`step.py`).
"""

from collections.abc import Iterator, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kcompile.errors import ModelError
from kcompile.frontend.tensor import Tensor, current
from kcompile.frontend.tracing import flatten
from kcompile.frontend.training.formulas import as_expression, tensors
from kcompile.frontend.training.metrics import Metric
from kcompile.frontend.training.objectives import Objectives, Target, batch_size
from kcompile.frontend.training.optimizers.stepping import traced_step
from kcompile.frontend.training.source import unpack_x_y_sample_weight
from kcompile.frontend.training.tape import GradientTape
from kcompile.ir.expression import Expression

if TYPE_CHECKING:
    from kcompile.frontend.layer import Layer
    from kcompile.frontend.model import Model

Found = TypeVar("Found")

_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics", "get_metrics_result", "metrics")


class Steps:
    """The steps of a model, as subclasses find them."""

    @property
    def _stepping(self) -> "Model":
        return cast("Model", self)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of training on a batch, which is as `fit` was given it: ``x``, ``(x, y)`` or ``(x, y, weights)``.

        A subclass writes it with `kcompile.ops`, `kcompile.GradientTape`, `compute_loss`, and `apply` of optimizers.

        Returns:
            What the logs say after the step, by name.
        """
        model = self._stepping
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        with GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = self._tracked_loss(x, y, y_pred, sample_weight, True)
            scaled = model.optimizer.scale_loss(loss)
        weights = model.trainable_weights
        if weights:
            model.optimizer.apply(tape.gradient(scaled, weights), weights)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of an evaluation, on a batch as `evaluate` was given it.

        Returns:
            What the logs say after the step, by name.
        """
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        y_pred = self._stepping(x, training=False)
        self._tracked_loss(x, y, y_pred, sample_weight, False)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def predict_step(self, data: Any) -> Any:
        """The predictions for a batch, as `predict` was given it."""
        x, _, _ = unpack_x_y_sample_weight(data)
        return self._stepping(x, training=False)

    def _tracked_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> Any:
        takes = signature(self.compute_loss).parameters
        named = {"training": training} if "training" in takes else {}
        loss = self.compute_loss(x, y, y_pred, sample_weight, **named)
        tracker = _objectives(self._stepping).tracker
        first = next(leaf for leaf in flatten(x) if isinstance(leaf, Tensor))
        t, _ = traced_step("a step")
        tracker.update_state(loss, sample_weight=tensors(batch_size(Expression(t.b, first.value))))
        return loss

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of a batch, a number: those of `compile`, and what layers add to them.

        Raises:
            ModelError: there is nothing to minimize.
        """
        del x, training
        t, effects = traced_step("`compute_loss`")
        model = self._stepping
        extra = [as_expression(t.b, cost, "what `losses` holds").sum() for cost in model.losses]
        targets = _targets(model, y, y_pred, sample_weight)
        effects.labels.update({target.name: (_input(target.y_true), _input(target.weights)) for target in targets})
        return tensors(_objectives(model).total_loss(effects.state, targets, extra))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Take a batch into the metrics of `compile`; the results of all metrics by name."""
        del x
        if _objectives(self._stepping).given:
            CompiledMetrics(self._stepping).update_state(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """The results of all metrics by name."""
        found: dict[str, Any] = {}
        for metric in self.metrics:
            result = metric.result()
            found.update(result if isinstance(result, Mapping) else {metric.name: result})
        return found

    @property
    def metrics(self) -> list[Metric]:
        """The metrics, the mean loss first: those of `compile` after the first batch, then those of the model's own.

        In the code of a step, those of `compile` are one, which takes labels and predictions of all outputs.
        """
        model = self._stepping
        if not model.compiled:
            return own_metrics(model)
        objectives = _objectives(model)
        if current() is None:
            return [*objectives.all_metrics, *own_metrics(model)]
        together = [CompiledMetrics(model)] if objectives.given else []
        return [objectives.tracker, *together, *objectives.partial.values(), *own_metrics(model)]


class CompiledMetrics(Metric):
    """The metrics of `compile` as one, in the code of a step."""

    default_name = "compile_metrics"

    def __init__(self, model: "Model") -> None:
        super().__init__()
        self._model = model

    def update_state(self, *values: Any, sample_weight: Any = None) -> None:
        _, effects = traced_step("`update_state` of the metrics of `compile`")
        y_true, y_pred, weights = (*values, sample_weight)[:3]
        _objectives(self._model).update_groups(effects.state, _targets(self._model, y_true, y_pred, weights))

    def result(self) -> dict[str, Any]:
        _, effects = traced_step("`result` of the metrics of `compile`")
        return tensors(_objectives(self._model).group_results(effects.state))


def _objectives(model: "Model") -> Objectives:
    return model.require_compiled("a step").objectives_made


def defines(model: "Model", *names: str) -> bool:
    """Whether the class of a model has methods of its own by these names."""
    return any(getattr(type(model), name) is not getattr(Steps, name) for name in names)


def has_own_steps(model: "Model", objectives: Objectives) -> bool:
    """Whether the steps of training and evaluation are in part a user's own code."""
    return defines(model, *_STEPS) or bool(objectives.own)


def own_metrics(layer: "Layer") -> list[Metric]:
    """The metrics that a layer has itself, and those of layers inside."""
    return attributes(layer, Metric)


def attributes(layer: "Layer", kind: type[Found]) -> list[Found]:
    """The objects of a kind among the attributes of a layer, in lists and dicts too, and of those of layers inside."""
    given = [value for name, value in vars(layer).items() if name not in layer.untracked]
    found = {id(leaf): leaf for value in given for leaf in _leaves(value) if isinstance(leaf, kind)}
    for inner in layer.sublayers.values():
        found.update((id(each), each) for each in attributes(inner, kind))
    return list(found.values())


def _leaves(value: Any) -> Iterator[Any]:
    items: Any = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    if items is None:
        yield value
    else:
        for item in items:
            yield from _leaves(item)


def _targets(model: "Model", y: Any, y_pred: Any, sample_weight: Any) -> list[Target]:
    """The outputs with their labels and weights, from the structures that the code of a step has."""
    t, _ = traced_step("a loss")
    predictions = list(flatten(y_pred))
    names = _output_names(model, len(predictions))
    needed = _objectives(model).needed(names)

    def by_output(argument: str, value: Any) -> dict[str, Expression]:
        given = _by_output(argument, value, names, needed)
        return {name: as_expression(t.b, leaf, f"`{argument}`") for name, leaf in given.items()}

    labels, weights = by_output("y", y), by_output("sample_weight", sample_weight)
    values = [as_expression(t.b, leaf, "`y_pred`") for leaf in predictions]
    masks = [Expression(t.b, leaf.mask) if getattr(leaf, "mask", None) is not None else None for leaf in predictions]
    return [
        Target(name, value, mask, labels.get(name), weights.get(name))
        for name, value, mask in zip(names, values, masks, strict=True)
    ]


def _input(x: Expression | None) -> str:
    """The name of an input of the step; of what was computed, none."""
    return "" if x is None else x.value.name


def _output_names(model: "Model", count: int) -> list[str]:
    names = model.output_names if model.is_traced else []
    return names if len(names) == count else [f"output_{i}" for i in range(count)] if count > 1 else ["output"]


def _by_output(argument: str, value: Any, names: list[str], needed: list[str]) -> dict[str, Any]:
    """What the code of a step gives for each output: by name, in order, or one for all.

    Raises:
        ModelError: names or numbers do not fit.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        given = cast(Mapping[str, Any], value)
        if not given.keys() <= set(names):
            raise ModelError(f"`{argument}` must name outputs: {', '.join(names)}. Received: {', '.join(given)}.")
        return {name: leaf for name, leaf in given.items() if leaf is not None}
    if not isinstance(value, list | tuple):
        return dict.fromkeys(needed, value)
    listed = cast(list[Any], value)
    takers = next((each for each in (needed, names) if len(each) == len(listed)), None)
    if takers is None:
        law = f"`{argument}` must hold one tensor for each of the outputs {', '.join(needed)}"
        raise ModelError(f"{law}. Received: {len(listed)}.")
    return {name: leaf for name, leaf in zip(takers, listed, strict=True) if leaf is not None}
