"""A step that a user's own code says: `train_step` and its kin of a model, traced once to a graph."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kcompile.errors import ModelError
from kcompile.frontend.tensor import Tensor, writing
from kcompile.frontend.tracing import Trace, flatten, map_structure
from kcompile.frontend.training.data import Batch
from kcompile.frontend.training.effects import Effects
from kcompile.frontend.training.formulas import as_expression, call_users
from kcompile.frontend.training.objectives import Objectives
from kcompile.frontend.training.optimizers import Optimizer
from kcompile.frontend.training.optimizers.apply import packs
from kcompile.frontend.training.paths import weight_paths
from kcompile.frontend.training.source import pack_x_y_sample_weight
from kcompile.frontend.training.state import State
from kcompile.frontend.training.step import SEED, Mode, Step, finished
from kcompile.frontend.training.steps import defines
from kcompile.ir.dims import Dim
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Builder
from kcompile.ir.types import TensorType

if TYPE_CHECKING:
    from kcompile.frontend.model import Model


def write_own_step(
    model: "Model",
    mode: Mode,
    batch: Batch,
    objectives: Objectives | None = None,
    optimizer: Optimizer | None = None,
    rows: int | None = None,
) -> Step:
    """The graph of a step as the model's `train_step`, `test_step` or `predict_step` says it.

    Args:
        rows: the number of samples, where the code must know it.

    Raises:
        ModelError: the code does what only arrays can do, or returns something else than a step does.
    """
    b = Builder(f"{model.name}_{mode}")
    state = State(b)
    effects = Effects(state, b.input(SEED, TensorType("int64", ())), training=False, roots=[model])
    if mode == "train" and optimizer is not None and not defines(model, "train_step"):
        optimizer.build(model.trainable_weights, weight_paths(model))
        effects.pack = state.pack(optimizer.weights) if packs(optimizer.inner) else None
    t = Trace(b, state.read, effects)
    method = f"{mode}_step"
    with writing(t):
        found = call_users(
            getattr(model, method), f"`{method}` of {type(model).__name__}", _data(model, b, batch, rows)
        )
        if mode == "predict":
            return replace(_prediction(t, state, found), rows=rows)
        results = dict(_logs(t, method, found))
    if objectives is not None:
        objectives.assign_pending()
    return replace(finished(state, results), labels=effects.labels, rows=rows)


def _data(model: "Model", b: Builder, batch: Batch, rows: int | None) -> Any:
    """The batch as a user gave it, of tensors with an open batch axis, unless its extent is known."""
    known = model.inputs if model.is_traced else []
    extent: Dim = next((x.shape[0] for x in known if x.type.rank and isinstance(x.shape[0], int)), rows or "N")
    tensors = {
        name: Tensor(b.input(name, TensorType(array.dtype.name, (extent, *array.shape[1:]))))
        for name, array in batch.arrays().items()
    }
    assert batch.structure is not None
    parts = batch.structure.parts(batch)
    return pack_x_y_sample_weight(*(map_structure(lambda name: tensors.get(name), part) for part in parts))


def _logs(t: Trace, method: str, found: Any) -> Iterator[tuple[str, Expression]]:
    """What a step returns, flat.

    Raises:
        ModelError: it is no dict of numbers and tensors by name.
    """
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):  # pyright: ignore[reportUnknownVariableType]
        law = f"`{method}` must return a dict of what the logs say, by name"
        raise ModelError(f"{law}. Received: {type(found).__name__}.")  # pyright: ignore[reportUnknownArgumentType]
    for name, value in found.items():  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, Mapping):
            yield from _logs(t, method, value)
        else:
            yield str(name), as_expression(t.b, value, f"`{name}`, which `{method}` returns,")


def _prediction(t: Trace, state: State, found: Any) -> Step:
    leaves = list(flatten(found))
    names = iter(map(str, range(len(leaves))))
    structure = map_structure(lambda _: next(names), found)
    pairs = zip(flatten(structure), leaves, strict=True)
    results = {name: as_expression(t.b, leaf, "`predict_step`") for name, leaf in pairs}
    return finished(state, results, structure)
