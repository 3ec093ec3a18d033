"""What `compile` leaves in a model, and the programs made from it, one for each kind of batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kcompile.errors import ModelError
from kcompile.frontend.training.data import Batch, Named
from kcompile.frontend.training.objectives import Objectives
from kcompile.frontend.training.optimizers import Optimizer
from kcompile.frontend.training.program import Program
from kcompile.frontend.training.step import BatchTypes, Mode, Step, write_step
from kcompile.ir.dims import Dim
from kcompile.ir.types import TensorType

if TYPE_CHECKING:
    from kcompile.frontend.model import Model


@dataclass
class Compiled:
    """The arguments of `compile`, resolved.

    Attributes:
        seed: of the random numbers of the first step; each step counts one up.
        arguments: as they were given.
    """

    optimizer: Optimizer | None = None
    objectives: Objectives | None = None
    seed: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    _programs: dict[Any, Program] = field(default_factory=dict[Any, Program])

    def program(self, model: "Model", mode: Mode, batch: Batch) -> Program:
        """The program for batches of these shapes, whatever their number of samples."""
        # The parts of a model are part of the key, and kept alive by it.
        structure = (model.topology, *model.trainable_weights) if mode == "train" else (model.topology,)
        key = (mode, () if mode == "predict" else _signature(batch), tuple(map(id, structure)))
        if key not in self._programs:
            step = _prediction(model) if mode == "predict" else self._step(model, mode, batch)
            self._programs[key] = Program(step, structure)
        return self._programs[key]

    def _step(self, model: "Model", mode: Mode, batch: Batch) -> Step:
        optimizer = self.optimizer if mode == "train" else None
        return write_step(model, mode, _types(model, batch), self.objectives, optimizer)


def _signature(batch: Batch) -> tuple[object, ...]:
    return tuple((name, array.dtype.name, array.shape[1:]) for name, array in batch.arrays().items())


def _prediction(model: "Model") -> Step:
    """The step that predicts, for inputs of any extents that the model takes."""
    try:
        return write_step(model, "predict", BatchTypes(model.input_types(apart=True)))
    except ModelError:
        return write_step(model, "predict", BatchTypes(model.input_types(apart=False)))


def _types(model: "Model", batch: Batch) -> BatchTypes:
    """The types of a batch with an open batch axis, unless the model fixes its extent."""
    extent: Dim = next((t.shape[0] for t in model.inputs if isinstance(t.shape[0], int)), "N")

    def typed(arrays: Named) -> dict[str, TensorType]:
        return {name: TensorType(array.dtype.name, (extent, *array.shape[1:])) for name, array in arrays.items()}

    return BatchTypes(typed(batch.x), typed(batch.y), typed(batch.weights))
