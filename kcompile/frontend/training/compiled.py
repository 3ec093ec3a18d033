"""What `compile` leaves in a model, and the programs made from it, one for each kind of batch."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.errors import KCompileError
from kcompile.frontend.inputs import BATCH
from kcompile.frontend.tracing import map_structure
from kcompile.frontend.training.data import Batch, Named
from kcompile.frontend.training.memory import keep_memory
from kcompile.frontend.training.objectives import Objectives
from kcompile.frontend.training.optimizers import Optimizer
from kcompile.frontend.training.own_step import write_own_step
from kcompile.frontend.training.program import Program
from kcompile.frontend.training.step import SEED, BatchTypes, Mode, Step, write_step
from kcompile.frontend.training.steps import defines, has_own_steps
from kcompile.ir.dims import Dim
from kcompile.ir.types import Array, TensorType

if TYPE_CHECKING:
    from kcompile.frontend.model import Model


@dataclass
class Compiled:
    """The arguments of `compile`, resolved.

    Attributes:
        seed: of the random numbers of the first step; each step counts one up.
        arguments: as they were given.
        own_steps: how many steps of a user's own code were run, by their modes.
    """

    optimizer: Optimizer | None = None
    objectives: Objectives | None = None
    seed: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    own_steps: dict[str, int] = field(default_factory=dict[str, int])
    _programs: dict[Any, Program] = field(default_factory=dict[Any, Program])

    @property
    def objectives_made(self) -> Objectives:
        """Losses and metrics, where `compile` was called."""
        assert self.objectives is not None
        return self.objectives

    def runner(self, model: "Model", mode: Mode) -> "Runner":
        """What runs steps of the model as it is now."""
        keep_memory()
        # The parts of a model are part of the key, and kept alive by it.
        own = defines(model, "predict_step") if mode == "predict" else has_own_steps(model, self.objectives_made)
        if own:
            return Runner(self, model, mode, (*model.trainable_weights, *model.non_trainable_weights), own)
        structure = (model.topology, *model.trainable_weights) if mode == "train" else (model.topology,)
        return Runner(self, model, mode, structure)

    def program(self, runner: "Runner", batch: Batch) -> Program:
        """The program of a runner for batches of these shapes, whatever their number of samples."""
        signature = () if runner.mode == "predict" and not runner.own else batch.signature
        key = (runner.mode, signature, tuple(map(id, runner.structure)))
        for known in (key, (*key, batch.size)):
            if known in self._programs:
                return self._programs[known]
        made = Program(self._step(runner, batch), runner.structure)
        self._programs[key if made.step.rows is None else (*key, made.step.rows)] = made
        return made

    def _own_step(self, runner: "Runner", batch: Batch) -> Step:
        given = (runner.model, runner.mode, batch, self.objectives, self.optimizer)
        try:
            return write_own_step(*given)
        except KCompileError:
            # Some code needs the number of samples: a loss whose classes are the samples of a batch.
            return write_own_step(*given, rows=batch.size)

    def _step(self, runner: "Runner", batch: Batch) -> Step:
        if runner.own:
            return self._own_step(runner, batch)
        if runner.mode == "predict":
            return _prediction(runner.model)
        optimizer = self.optimizer if runner.mode == "train" else None

        def write(extent: Dim) -> Step:
            return write_step(runner.model, runner.mode, _types(batch, extent), self.objectives, optimizer)

        extent = next((t.shape[0] for t in runner.model.inputs if isinstance(t.shape[0], int)), None)
        if extent is None:
            return write(BATCH)
        # Most models that state a number of samples take any other, as those do that Keras built from a batch.
        with suppress(KCompileError, TypeError):  # of code that counts on a known number, too
            return write(BATCH)
        return write(extent)


class Runner:
    """Runs steps of a model whose parts stay the same; `own` ones are a user's code."""

    def __init__(
        self, compiled: Compiled, model: "Model", mode: Mode, structure: tuple[object, ...], own: bool = False
    ) -> None:
        self._compiled, self.model, self.structure = compiled, model, structure
        self.mode: Mode = mode
        self.own = own
        self._programs: dict[object, Program] = {}
        self._last: Program | None = None
        self._checked: Batch | None = None

    def run(self, batch: Batch) -> dict[str, Array]:
        """The results of one step on a batch."""
        signature = batch.signature
        found = self._programs.get(signature)
        if found is None or found.step.rows not in (None, batch.size):
            found = self._programs[signature] = self._compiled.program(self, batch)
        self._last = found
        self._check_labels(batch.whole or batch, self._last.step)
        seed = np.asarray((self._compiled.seed + self._made()) % 2**63, np.int64)
        return self._last.run({**batch.arrays(), SEED: seed})

    def _check_labels(self, batch: Batch, step: Step) -> None:
        """Refuse labels that are no classes where a loss takes such; those of many batches at once.

        Raises:
            InputError: there are some.
        """
        objectives = self._compiled.objectives
        if batch is not self._checked and objectives and self.mode != "predict":
            objectives.check_labels(*self._labels(batch, step))
        self._checked = batch

    def _labels(self, batch: Batch, step: Step) -> tuple[Named, Named]:
        """Labels and their weights by output; of a user's own step, those that go to a loss as they are."""
        if not self.own:
            return batch.y, batch.weights
        arrays = batch.arrays()
        y, weights = ({n: arrays[pair[i]] for n, pair in step.labels.items() if pair[i] in arrays} for i in (0, 1))
        return y, weights

    def _made(self) -> int:
        """The number of steps before this one; code of a user's own may use any optimizer, or none."""
        if self.own:
            made = self._compiled.own_steps.get(self.mode, 0)
            self._compiled.own_steps[self.mode] = made + 1
            return made
        return int(self._compiled.optimizer.iteration.array) if self._compiled.optimizer else 0

    def structured(self, found: Mapping[str, Array]) -> Any:
        """Predictions by name in the structure that the model, or its `predict_step`, gives."""
        if not self.own:
            return self.model.structure_outputs(found)
        assert self._last is not None
        return map_structure(lambda name: found[name], self._last.step.structure)


def _prediction(model: "Model") -> Step:
    """The step that predicts, for inputs of any extents that the model takes."""
    return model.for_input_types(lambda types: write_step(model, "predict", BatchTypes(types)), any_batch=True)


def _types(batch: Batch, extent: Dim) -> BatchTypes:
    """The types of a batch of that many samples."""

    def typed(arrays: Named) -> dict[str, TensorType]:
        return {name: TensorType(array.dtype.name, (extent, *array.shape[1:])) for name, array in arrays.items()}

    return BatchTypes(typed(batch.x), typed(batch.y), typed(batch.weights))
