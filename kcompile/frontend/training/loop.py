"""The loops of `fit`, `evaluate` and `predict` (``keras/src/backend/jax/trainer.py`` without the device)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.errors import InputError
from kcompile.frontend.training.callbacks.base import CallbackList
from kcompile.frontend.training.compiled import Compiled
from kcompile.frontend.training.data import ArrayBatches, Batch, Batches, IterableBatches, Reader, is_arrays
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

Logs = dict[str, Any]


@dataclass
class Source:
    """Batches with the number of them that makes an epoch, where the user gives one."""

    batches: Batches
    steps: int | None = None
    _running: Iterator[Batch] | None = None

    @property
    def count(self) -> int | None:
        """The number of batches of an epoch, where it is known."""
        return self.steps or self.batches.count

    def epoch(self) -> Iterator[tuple[int, Batch]]:
        """The numbered batches of one epoch; with `steps`, the data goes on where the last epoch stopped.

        Raises:
            InputError: there is no batch.
        """
        empty = True
        for step, batch in enumerate(iter(self.batches) if self.steps is None else self._continued(self.steps)):
            empty = False
            yield step, batch
        if empty:
            raise InputError("the data must give at least one batch. Received: none.")

    def _continued(self, steps: int) -> Iterator[Batch]:
        for _ in range(steps):
            batch = next(self._running, None) if self._running else None
            if batch is None:
                self._running = iter(self.batches)
                batch = next(self._running, None)
            if batch is None:
                return
            yield batch

    def restart(self) -> None:
        """Begin the next epoch with the first batch."""
        self._running = None


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
    """Run epochs of training."""
    assert compiled.objectives is not None
    assert compiled.optimizer is not None
    model.stop_training = False
    callbacks.call("on_train_begin", {})
    logs: Logs = {}
    first = max(epochs.start, model.initial_epoch or 0)
    for epoch in range(first, epochs.stop):
        compiled.objectives.reset()
        callbacks.call("on_epoch_begin", epoch, {})
        runner = compiled.runner(model, "train")
        for step, batch in source.epoch():
            callbacks.call("on_train_batch_begin", step, {})
            logs = as_logs(runner.run(batch))
            callbacks.call("on_train_batch_end", step, logs)
            if model.stop_training:
                break
        source.batches.end_epoch()
        logs = dict(logs)
        if validation is not None and _is_due(epoch, validation_freq):
            found = test(model, compiled, validation, callbacks)
            logs.update({f"val_{name}": value for name, value in found.items()})
        callbacks.call("on_epoch_end", epoch, logs)
        if model.stop_training:
            break
    compiled.optimizer.finalize()
    callbacks.call("on_train_end", logs)


def _is_due(epoch: int, frequency: int | Sequence[int]) -> bool:
    return (epoch + 1) % frequency == 0 if isinstance(frequency, int) else epoch + 1 in frequency


def test(model: "Model", compiled: Compiled, source: Source, callbacks: CallbackList) -> Logs:
    """The logs of one run over the data; the metrics of training are not kept."""
    assert compiled.objectives is not None
    callbacks.call("on_test_begin", {})
    compiled.objectives.reset()
    source.restart()
    runner = compiled.runner(model, "test")
    logs: Logs = {}
    for step, batch in source.epoch():
        callbacks.call("on_test_batch_begin", step, {})
        logs = as_logs(runner.run(batch))
        callbacks.call("on_test_batch_end", step, logs)
    source.batches.end_epoch()
    callbacks.call("on_test_end", logs)
    return logs


def predict(model: "Model", compiled: Compiled, source: Source, callbacks: CallbackList) -> dict[str, Array]:
    """The outputs for all batches, by name."""
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
    return {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in parts.items()}
