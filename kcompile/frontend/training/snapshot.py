"""All that the next step of a `fit` depends on, in one file.

Weights, the optimizer's state, metrics, the place in the data, and where the streams of random numbers are: those of
shuffling and dropout, and NumPy's and Python's global ones, which the user's own code may draw from.
"""

import json
import random
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import initializers
from kcompile.frontend.training.compiled import Compiled
from kcompile.frontend.training.loop import Sources
from kcompile.frontend.training.optimizers import Optimizer
from kcompile.frontend.training.paths import weight_paths
from kcompile.frontend.training.steps import attributes
from kcompile.frontend.weight import Weight
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

_FACTS = "facts"
# Stands in JSON for the array of that number.
_ARRAY = "array:"


@dataclass
class Snapshot:
    """Facts: texts, numbers, arrays, and lists and dicts of them.

    Raises:
        OSError, ValueError: of `read`, where a file is missing or damaged.
    """

    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def write(self, file: BinaryIO) -> None:
        """Write the facts to an open file: an archive of arrays, and of JSON that names them."""
        arrays: list[Array] = []
        text = json.dumps(_without_arrays(self.facts, arrays))
        named = {f"{_ARRAY}{i}": array for i, array in enumerate(arrays)}
        np.savez(file, **{_FACTS: np.frombuffer(text.encode(), np.uint8)}, **named)  # pyright: ignore[reportArgumentType]

    @classmethod
    def read(cls, path: Path) -> "Snapshot":
        """The snapshot in a file."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return cls(_with_arrays(json.loads(arrays.pop(_FACTS).tobytes()), arrays))
        except (zipfile.BadZipFile, KeyError, EOFError, RecursionError) as error:
            raise ValueError(f"no snapshot: {error}") from error


def _without_arrays(value: Any, arrays: list[Array]) -> Any:
    """`value` as JSON has it, with names in the place of its arrays, which are put into `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return f"{_ARRAY}{len(arrays) - 1}"
    if isinstance(value, dict):
        return {str(key): _without_arrays(item, arrays) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [_without_arrays(item, arrays) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, dict):
        return {key: _with_arrays(item, arrays) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return arrays[value] if isinstance(value, str) and value.startswith(_ARRAY) else value


def take(model: "Model", compiled: Compiled) -> Snapshot:
    """The state of a model that is being trained."""
    assert compiled.optimizer is not None
    assert compiled.objectives is not None
    sources = _listed(model.sources)
    return Snapshot(
        {
            "made_for": _made_for(model, compiled),
            "weights": [weight.array for weight in _weights(model)],
            "optimizers": [_state_of(each, _weights(model)) for each in _optimizers(model, compiled)],
            "metrics": compiled.objectives.states,
            "seed": compiled.seed,
            "own_steps": compiled.own_steps,
            "data": [{"began": source.began, "taken": source.taken, "ended": source.ended} for source in sources],
            "random": {
                "own": initializers.random_state(),
                "numpy": np.random.get_state(),
                "python": random.getstate(),
            },
        }
    )


def check(snapshot: Snapshot, model: "Model", compiled: Compiled, where: Path) -> None:
    """Refuse a snapshot of another model or optimizer.

    Raises:
        ModelError: it is of another.
    """
    _build(snapshot, model, compiled)
    own, other = _made_for(model, compiled), snapshot.facts["made_for"]
    if own == other:
        return
    pairs = zip([*own, *[None] * len(other)], [*other, *[None] * len(own)], strict=False)
    mine, theirs = next((a, b) for a, b in pairs if a != b)
    law = f"the backup in {where} must be of model `{model.name}`, compiled as it was"
    received = f"{theirs or 'no more weights'}, where the model has {mine or 'no more weights'}"
    raise ModelError(f"{law}. Received: {received}. Delete the backup to begin anew, or give another `backup_dir`.")


def restore(snapshot: Snapshot, model: "Model", compiled: Compiled) -> None:
    """Bring a model, and the streams of random numbers, into the state of a snapshot that was checked."""
    assert compiled.optimizer is not None
    facts = snapshot.facts
    _build(snapshot, model, compiled)
    _assign(_weights(model), facts["weights"])
    for optimizer, state in zip(_optimizers(model, compiled), facts["optimizers"], strict=True):
        _assign(optimizer.variables, state["variables"])
    compiled.seed, compiled.own_steps = facts["seed"], dict(facts["own_steps"])
    set_random(facts["random"])


def set_random(states: dict[str, Any]) -> None:
    """Bring the streams of random numbers where they were."""
    initializers.set_random_state(states["own"])
    np.random.set_state(tuple(states["numpy"]))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))


def restore_data(snapshot: Snapshot, model: "Model", within: bool) -> None:
    """Bring the data of the present `fit` where it was, and the streams of random numbers again, which that uses.

    Args:
        within: whether the snapshot was taken within an epoch; otherwise the next one begins anew, but where the data
            goes on from epoch to epoch.
    """
    for i, (source, facts) in enumerate(zip(_listed(model.sources), snapshot.facts["data"], strict=False)):
        # A dataset may shuffle itself after each epoch.
        for _ in range(facts["ended"]):
            source.end_epoch()
        if source.batches.goes_on or (i == 0 and (within or source.steps is not None)):
            source.resume(facts["began"], facts["taken"])
    set_random(snapshot.facts["random"])


def _optimizers(model: "Model", compiled: Compiled) -> list[Optimizer]:
    """The optimizer of `compile`, and those that the model has itself."""
    assert compiled.optimizer is not None
    others = [found for found in attributes(model, Optimizer) if found is not compiled.optimizer]
    return [compiled.optimizer, *others]


def _state_of(optimizer: Optimizer, weights: Sequence[Weight]) -> dict[str, Any]:
    """The variables, and the numbers of the weights that the optimizer changes."""
    numbers = {weight: number for number, weight in enumerate(weights)}
    built_for = [numbers[weight] for weight in optimizer.weights]
    return {"built_for": built_for, "variables": [variable.array for variable in optimizer.variables]}


def _build(snapshot: Snapshot, model: "Model", compiled: Compiled) -> None:
    weights, paths = _weights(model), weight_paths(model)
    for optimizer, state in zip(_optimizers(model, compiled), snapshot.facts["optimizers"], strict=False):
        optimizer.build([weights[number] for number in state["built_for"] if number < len(weights)], paths)


def _made_for(model: "Model", compiled: Compiled) -> list[str]:
    """What a snapshot fits: the optimizer, and the layers' weights; names do not matter, since they are counted."""
    from kcompile.frontend.training.owners import owners

    trained = set(model.trainable_weights)
    listed = [
        f"{weight.name} {list(weight.shape)} of a {type(layer).__name__}{'' if weight in trained else ', frozen'}"
        for layer, weight in owners(model)
    ]
    optimizers = [
        f"the optimizer {type(optimizer).__name__} with {len(optimizer.variables)} variables"
        for optimizer in _optimizers(model, compiled)
    ]
    return [*optimizers, *listed]


def _weights(model: "Model") -> list[Weight]:
    return [*model.trainable_weights, *model.non_trainable_weights]


def _assign(weights: Sequence[Weight], arrays: Sequence[Array]) -> None:
    for weight, array in zip(weights, arrays, strict=True):
        weight.assign(array)


def _listed(sources: Sources | None) -> list[Any]:
    return [source for source in (sources.training, sources.validation) if source] if sources else []
