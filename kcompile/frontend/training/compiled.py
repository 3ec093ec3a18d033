"""What `compile` leaves in a model, and the programs made from it, one for each kind of batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kcompile.frontend.training.data import Batch, Named
from kcompile.frontend.training.objectives import Objectives
from kcompile.frontend.training.optimizers import Optimizer
from kcompile.frontend.training.program import Program
from kcompile.frontend.training.step import BatchTypes, Mode, write_step
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
        signature = tuple((name, array.dtype.name, array.shape[1:]) for name, array in batch.arrays().items())
        # The parts of a model are part of the key, and kept alive by it.
        structure = (model.topology, *model.trainable_weights) if mode == "train" else (model.topology,)
        key = (mode, signature, tuple(map(id, structure)))
        if key not in self._programs:
            step = write_step(model, mode, _types(model, batch), *self._parts(mode))
            self._programs[key] = Program(step, structure)
        return self._programs[key]

    def _parts(self, mode: Mode) -> tuple[Objectives | None, Optimizer | None]:
        return (None, None) if mode == "predict" else (self.objectives, self.optimizer if mode == "train" else None)


def _types(model: "Model", batch: Batch) -> BatchTypes:
    """The types of a batch with an open batch axis, unless the model fixes its extent."""
    extent: Dim = next((t.shape[0] for t in model.inputs if isinstance(t.shape[0], int)), "N")

    def typed(arrays: Named) -> dict[str, TensorType]:
        return {name: TensorType(array.dtype.name, (extent, *array.shape[1:])) for name, array in arrays.items()}

    return BatchTypes(typed(batch.x), typed(batch.y), typed(batch.weights))
