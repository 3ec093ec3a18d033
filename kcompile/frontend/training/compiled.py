"""What `compile` leaves in a model, and the programs made from it, one for each kind of batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.frontend.training.data import Batch, Named
from kcompile.frontend.training.memory import keep_memory
from kcompile.frontend.training.objectives import Objectives
from kcompile.frontend.training.optimizers import Optimizer
from kcompile.frontend.training.program import Program
from kcompile.frontend.training.step import SEED, BatchTypes, Mode, Step, write_step
from kcompile.ir.dims import Dim
from kcompile.ir.products import use_wide_vectors
from kcompile.ir.types import Array, TensorType

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

    def runner(self, model: "Model", mode: Mode) -> "Runner":
        """What runs steps of the model as it is now."""
        keep_memory()
        use_wide_vectors()
        # The parts of a model are part of the key, and kept alive by it.
        structure = (model.topology, *model.trainable_weights) if mode == "train" else (model.topology,)
        return Runner(self, model, mode, structure)

    def program(self, runner: "Runner", batch: Batch) -> Program:
        """The program of a runner for batches of these shapes, whatever their number of samples."""
        signature = () if runner.mode == "predict" else batch.signature
        key = (runner.mode, signature, tuple(map(id, runner.structure)))
        if key not in self._programs:
            self._programs[key] = Program(self._step(runner, batch), runner.structure)
        return self._programs[key]

    def _step(self, runner: "Runner", batch: Batch) -> Step:
        if runner.mode == "predict":
            return _prediction(runner.model)
        optimizer = self.optimizer if runner.mode == "train" else None
        return write_step(runner.model, runner.mode, _types(runner.model, batch), self.objectives, optimizer)


class Runner:
    """Runs steps of a model whose parts stay the same."""

    def __init__(self, compiled: Compiled, model: "Model", mode: Mode, structure: tuple[object, ...]) -> None:
        self._compiled, self.model, self.structure = compiled, model, structure
        self.mode: Mode = mode
        self._programs: dict[object, Program] = {}

    def run(self, batch: Batch) -> dict[str, Array]:
        """The results of one step on a batch."""
        signature = batch.signature
        if signature not in self._programs:
            self._programs[signature] = self._compiled.program(self, batch)
        if self.mode != "predict" and self._compiled.objectives:
            self._compiled.objectives.check_labels(batch.y, batch.weights)
        optimizer = self._compiled.optimizer
        made = int(optimizer.iteration.value) if optimizer else 0
        seed = np.asarray((self._compiled.seed + made) % 2**63, np.int64)
        return self._programs[signature].run({**batch.arrays(), SEED: seed})


def _prediction(model: "Model") -> Step:
    """The step that predicts, for inputs of any extents that the model takes."""
    return model.for_input_types(lambda types: write_step(model, "predict", BatchTypes(types)))


def _types(model: "Model", batch: Batch) -> BatchTypes:
    """The types of a batch with an open batch axis, unless the model fixes its extent."""
    extent: Dim = next((t.shape[0] for t in model.inputs if isinstance(t.shape[0], int)), "N")

    def typed(arrays: Named) -> dict[str, TensorType]:
        return {name: TensorType(array.dtype.name, (extent, *array.shape[1:])) for name, array in arrays.items()}

    return BatchTypes(typed(batch.x), typed(batch.y), typed(batch.weights))
