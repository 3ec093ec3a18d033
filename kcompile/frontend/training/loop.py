"""The loops of `fit`, `evaluate` and `predict` (``keras/src/backend/jax/trainer.py`` without the device)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.errors import InputError
from kcompile.frontend import initializers
from kcompile.frontend.training.callbacks.base import CallbackList
from kcompile.frontend.training.checks import warn_of_nan
from kcompile.frontend.training.compiled import Compiled
from kcompile.frontend.training.data import ArrayBatches, Batch, Batches, IterableBatches, Reader, is_arrays
from kcompile.frontend.training.interrupts import Interrupts
from kcompile.ir.parts import one_thread_products
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

Logs = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """Where `fit` begins; a callback that restores an interrupted one sets it.

    Attributes:
        step: of the first epoch.
        logs: those after the step before it.
    """

    epoch: int
    step: int = 0
    logs: Logs = field(default_factory=dict[str, Any])


@dataclass
class Source:
    """Batches with the number of them that makes an epoch, where the user gives one.

    Attributes:
        began: where the stream of random numbers was when the present run through the data began.
        taken: batches that this run has given; of data that cannot begin again, all that it has given.
        ended: how many epochs it has come to the end of.
    """

    batches: Batches
    steps: int | None = None
    began: Mapping[str, Any] = field(default_factory=dict[str, Any])
    taken: int = 0
    ended: int = 0
    _running: Iterator[Batch] | None = None

    @property
    def count(self) -> int | None:
        """The number of batches of an epoch, where it is known."""
        return self.steps or self.batches.count

    def epoch(self, first: int = 0) -> Iterator[tuple[int, Batch]]:
        """The numbered batches of one epoch; with `steps`, the data goes on where the last epoch stopped.

        Args:
            first: the step to begin with, where those before it were made by a run that this one resumes.

        Raises:
            InputError: there is no batch.
        """
        if self.steps is None and not first:
            self.restart()
        step = first
        while self.steps is None or step < self.steps:
            batch = self._next()
            if batch is None:
                break
            yield step, batch
            step += 1
        if not step and self.ended:
            law = "the data must give batches for every epoch"
            advice = "Give a generator that goes on, with `steps_per_epoch`, or fewer `epochs`"
            raise InputError(f"{law}. Received: an end after {self.taken} batches and {self.ended} epochs. {advice}.")
        if not step:
            raise InputError("the data must give at least one batch. Received: none.")

    def _next(self) -> Batch | None:
        batch = next(self._running, None) if self._running is not None else None
        if batch is None and (self._running is None or self.steps is not None):
            batch = next(self._begun(), None)
        self.taken += batch is not None
        return batch

    def _begun(self) -> Iterator[Batch]:
        self.began = initializers.random_state()
        self.taken = self.taken if self.batches.goes_on else 0
        self._running = iter(self.batches)
        return self._running

    def restart(self) -> None:
        """Begin the next epoch with the first batch."""
        self._running = None

    def end_epoch(self) -> None:
        """Let the data do what it does after an epoch."""
        self.ended += 1
        self.batches.end_epoch()

    def resume(self, began: Mapping[str, Any], taken: int) -> None:
        """Go on where another source of the same data was, by its `began` and `taken`."""
        if not began:
            return
        initializers.set_random_state(began)
        running = self._begun()
        self.taken = sum(1 for _ in islice(running, taken))


@dataclass(frozen=True)
class Sources:
    """What a `fit` reads."""

    training: Source
    validation: Source | None = None


def make_source(
    reader: Reader,
    data: tuple[Any, Any, Any],
    batch_size: int | None,
    steps: int | None = None,
    shuffle: bool = False,
    class_weight: Mapping[int, float] | None = None,
) -> Source:
    """The source of batches for what a user gave.

    Raises:
        InputError: labels stand beside a source that gives its own, arrays do not fit the model, or there is nothing
            to train on.
    """
    x, y, weights = data
    if is_arrays(x):
        batches = ArrayBatches(reader, data, batch_size, shuffle, class_weight, steps)
        if not batches.samples and reader.outputs:
            raise InputError("there must be at least one sample. Received: arrays of 0 samples.")
        return Source(batches, steps)
    if y is not None or weights is not None:
        what = type(x).__name__
        raise InputError(f"`y` and `sample_weight` go with arrays; a {what} gives its own. Received both.")
    if not hasattr(x, "__iter__") and not hasattr(x, "__getitem__"):
        raise InputError(f"`x` must be arrays, or something that gives batches. Received: {type(x).__name__}.")
    return Source(IterableBatches(reader, x, shuffle, class_weight), steps)


def as_logs(results: Mapping[str, Array]) -> Logs:
    """Results as numbers, in the order of their names, as callbacks get them."""
    return {name: float(results[name]) if results[name].ndim == 0 else results[name] for name in sorted(results)}


def train(
    model: "Model",
    compiled: Compiled,
    source: Source,
    validation: Source | None,
    callbacks: CallbackList,
    epochs: range,
    validation_freq: int | Sequence[int] = 1,
) -> None:
    """Run epochs of training.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the model is as it was after some step.
    """
    assert compiled.optimizer is not None
    model.stop_training, model.start, model.sources = False, None, Sources(source, validation)
    try:
        callbacks.call("on_train_begin", {})
        start = model.start or Start(epochs.start)
        # Small products take longer on several threads, and far longer on a busy machine; plans cut large ones.
        with Interrupts() as interrupts, one_thread_products():
            logs = _epochs(model, compiled, callbacks, start, epochs, validation_freq, interrupts)
            interrupts.busy = True
            compiled.optimizer.finalize()
            callbacks.call("on_train_end", logs)
            interrupts.let_through()
    except BaseException:
        callbacks.call("on_train_abort", {})
        raise
    finally:
        model.sources = None


def _epochs(
    model: "Model",
    compiled: Compiled,
    callbacks: CallbackList,
    start: Start,
    epochs: range,
    validation_freq: int | Sequence[int],
    interrupts: Interrupts,
) -> Logs:
    """The logs of the last epoch."""
    assert compiled.objectives is not None
    assert model.sources is not None
    source, validation = model.sources.training, model.sources.validation
    logs: Logs = {}
    warned = False
    for epoch in range(max(epochs.start, start.epoch), epochs.stop):
        model.forget_batches()
        callbacks.call("on_epoch_begin", epoch, {})
        runner = compiled.runner(model, "train")
        first, logs = (start.step, start.logs) if epoch == start.epoch else (0, {})
        for step, batch in source.epoch(first):
            interrupts.busy = True
            callbacks.call("on_train_batch_begin", step, {})
            logs = as_logs(runner.run(batch))
            callbacks.call("on_train_batch_end", step, logs)
            interrupts.let_through()
            if not warned and not model.stop_training and logs.get("loss", 0.0) != logs.get("loss", 0.0):
                warned = True
                warn_of_nan(batch, epoch, step)
            if model.stop_training:
                break
        source.end_epoch()
        logs = dict(logs)
        if validation is not None and _is_due(epoch, validation_freq):
            found = test(model, compiled, validation, callbacks)
            logs.update({f"val_{name}": value for name, value in found.items()})
        interrupts.busy = True
        callbacks.call("on_epoch_end", epoch, logs)
        interrupts.let_through()
        if model.stop_training:
            break
    return logs


def _is_due(epoch: int, frequency: int | Sequence[int]) -> bool:
    return (epoch + 1) % frequency == 0 if isinstance(frequency, int) else epoch + 1 in frequency


def test(model: "Model", compiled: Compiled, source: Source, callbacks: CallbackList) -> Logs:
    """The logs of one run over the data; the metrics of training are not kept."""
    assert compiled.objectives is not None
    callbacks.call("on_test_begin", {})
    model.forget_batches()
    source.restart()
    runner = compiled.runner(model, "test")
    logs: Logs = {}
    for step, batch in source.epoch():
        callbacks.call("on_test_batch_begin", step, {})
        logs = as_logs(runner.run(batch))
        callbacks.call("on_test_batch_end", step, logs)
    source.end_epoch()
    callbacks.call("on_test_end", logs)
    return logs


def predict(model: "Model", compiled: Compiled, source: Source, callbacks: CallbackList) -> Any:
    """The outputs for all batches, in the structure that the model gives."""
    callbacks.call("on_predict_begin", {})
    runner = compiled.runner(model, "predict")
    parts: dict[str, list[Array]] = {}
    for step, batch in source.epoch():
        callbacks.call("on_predict_batch_begin", step, {})
        found = runner.run(batch)
        for name, array in found.items():
            parts.setdefault(name, []).append(array)
        callbacks.call("on_predict_batch_end", step, {"outputs": found})
    callbacks.call("on_predict_end", {})
    whole = {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in parts.items()}
    return runner.structured(whole)
