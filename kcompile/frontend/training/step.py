"""One step as one graph: from weights, state and a batch to new weights, new state and logs.

(weights, optimizer slots, metric states, x, y, sample weights, seed) -> (the same, changed; logs)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kcompile.frontend.tensor import writing
from kcompile.frontend.tracing import Trace, flatten
from kcompile.frontend.training.effects import Effects
from kcompile.frontend.training.objectives import Objectives, Target
from kcompile.frontend.training.optimizers import Optimizer
from kcompile.frontend.training.optimizers.apply import packs
from kcompile.frontend.training.owners import weight_constraints, weight_penalties
from kcompile.frontend.training.paths import weight_paths
from kcompile.frontend.training.state import Pack, State
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.passes.grad import backward
from kcompile.ir.passes.pipeline import training
from kcompile.ir.types import TensorType

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

Mode = Literal["train", "test", "predict"]
SEED = "seed"


@dataclass(frozen=True)
class BatchTypes:
    """The types of a batch with an open batch axis: inputs by name; labels and weights by output, where given."""

    x: Mapping[str, TensorType]
    y: Mapping[str, TensorType] = field(default_factory=dict[str, TensorType])
    weights: Mapping[str, TensorType] = field(default_factory=dict[str, TensorType])


@dataclass(frozen=True)
class Step:
    """A step's graph, and what its inputs and outputs are.

    Inputs: those of the model by name, ``y/<output>``, ``weight/<output>``, `SEED`, and the state. Outputs: the logs or
    predictions `results` by name, then the new values of `written`. Of a `predict_step` of a user's own, the names of
    the results stand in `structure`, and in `labels` the inputs that losses take by outputs: labels, and their weights.
    `rows` is the number of samples, where the step takes no other.
    """

    graph: Graph
    state: State
    results: tuple[str, ...]
    written: tuple[Weight | Pack, ...]
    structure: Any = None
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    rows: int | None = None


def write_step(
    model: "Model",
    mode: Mode,
    types: BatchTypes,
    objectives: Objectives | None = None,
    optimizer: Optimizer | None = None,
) -> Step:
    """The graph of a step.

    Raises:
        ModelError: labels are missing, a loss or a metric does not fit them, or there is no loss.
    """
    b = Builder(f"{model.name}_{mode}")
    state, trainable = State(b), model.trainable_weights
    pack = None
    if mode == "train" and optimizer is not None:
        optimizer.build(trainable, weight_paths(model))
        pack = state.pack(trainable) if packs(optimizer.inner) else None
    effects = Effects(state, b.input(SEED, TensorType("int64", ())), mode == "train")
    t = Trace(b, state.read, effects)
    t.trainable = model.trainable
    targets = _targets(model, t, types)
    if objectives is None:
        return finished(state, {target.name: target.y_pred for target in targets})
    with writing(t):
        extra = [*effects.losses, *weight_penalties(model, state, trainable)]
        loss = objectives.total_loss(state, targets, extra)
        objectives.update_metrics(state, targets, loss)
        if mode == "train" and optimizer is not None:
            _minimize(model, state, optimizer, loss, pack)
        return finished(state, objectives.results(state))


def _targets(model: "Model", t: Trace, types: BatchTypes) -> list[Target]:
    b = t.b
    values = [b.input(name, types.x[name]) for name in model.input_names]
    outputs, masks = model.run(t, values, (None,) * len(values))
    targets: list[Target] = []
    for name, y_pred, mask in zip(model.output_names, flatten(outputs), _flat_masks(masks), strict=False):
        given = {kind: _given(b, f"{kind}/{name}", by_output.get(name)) for kind, by_output in _labels(types).items()}
        seen = Expression(b, mask) if isinstance(mask, Value) else None
        targets.append(Target(name, Expression(b, y_pred), seen, given["y"], given["weight"]))
    return targets


def _labels(types: BatchTypes) -> dict[str, Mapping[str, TensorType]]:
    return {"y": types.y, "weight": types.weights}


def _given(b: Builder, name: str, type: TensorType | None) -> Expression | None:
    return None if type is None else Expression(b, b.input(name, type))


def _flat_masks(masks: Any) -> list[Any]:
    return list(flatten(masks))


def _minimize(model: "Model", state: State, optimizer: Optimizer, loss: Expression, pack: Pack | None) -> None:
    found = backward(
        state.b, optimizer.scaled(state, loss).value, [state.original(weight) for weight in optimizer.weights]
    )
    gradients = [Expression(state.b, dw) for dw in found]
    limits = weight_constraints(model)
    weights = optimizer.weights
    optimizer.guarded(state, gradients, lambda given: optimizer.inner.write(state, given, weights, pack, limits))


def finished(state: State, results: Mapping[str, Expression], structure: Any = None) -> Step:
    """The step that gives these results, and the weights as they were written."""
    outputs = {f"result/{name}": result.value for name, result in results.items()}
    outputs |= {f"state/{i}": value for i, value in enumerate(state.written.values())}
    graph = training(state.b.build(outputs))
    return Step(graph, state, tuple(results), tuple(state.written), structure)
