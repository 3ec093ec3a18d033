"""Callbacks that keep logs, set the learning rate, stop at NaN, or call what they are given."""

import csv
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.callbacks.base import Callback, Logs


class History(Callback):
    """What `fit` returns: the logs of all epochs.

    Attributes:
        epoch: the numbers of the epochs.
        history: for each log its value after each epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch: list[int] = []
        self.history: dict[str, list[Any]] = {}

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class CSVLogger(Callback):
    """Writes the logs of each epoch to a file as comma-separated values.

    Args:
        append: whether to add to a file that is there.

    Raises:
        ModelError: the separator is not one character, or the file cannot be written.
    """

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False) -> None:
        super().__init__()
        if len(separator) != 1:
            raise ModelError(f"`separator` of CSVLogger must be one character. Received: {separator!r}.")
        self.filename, self.separator, self.append = Path(filename), separator, append
        self._file: TextIO | None = None
        self._keys: list[str] = []
        # How much of the file was there before, and stays.
        self._kept = 0

    def get_state(self) -> dict[str, Any]:
        return {"size": self.filename.stat().st_size, "keys": self._keys}

    def set_state(self, state: dict[str, Any]) -> None:
        self._kept, self._keys = state["size"], state["keys"]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.on_train_end()
        try:
            self._file = self.filename.open("a", newline="")
        except OSError as error:
            law = f"`filename` of CSVLogger must be a file that can be written: {error.strerror or error}"
            raise ModelError(f"{law}. Received: {str(self.filename)!r}.") from error
        self._kept, self._keys = self.filename.stat().st_size if self.append else 0, []

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        # Not sooner: a `fit` that resumes an interrupted one keeps the lines of the epochs before.
        assert self._file is not None
        self._file.truncate(self._kept)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        found = logs or {}
        assert self._file is not None
        writer = csv.writer(self._file, delimiter=self.separator, lineterminator="\r\n")
        if not self._keys:
            own = sorted(found)
            self._keys = own if any(key.startswith("val_") for key in own) else [*own, *(f"val_{key}" for key in own)]
            if not self._kept:
                writer.writerow(["epoch", *self._keys])
        writer.writerow([epoch, *(_cell(found.get(key, "NA")) for key in self._keys)])
        self._file.flush()
        self._kept = self.filename.stat().st_size

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._file is not None:
            self._file.close()

    def on_train_abort(self, logs: Logs | None = None) -> None:
        self.on_train_end(logs)


def _cell(value: Any) -> Any:
    if isinstance(value, str | float | int) or np.ndim(value) == 0:
        return value
    return f'"[{", ".join(map(str, value))}]"'


class TerminateOnNaN(Callback):
    """Ends training when the loss is no number.

    Args:
        raise_error: whether it ends with an error, so that nothing is done as at the end of a training that went well.

    Raises:
        ModelError: the loss is no number, and `raise_error`.
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or np.isfinite(loss):
            return
        if self.raise_error:
            law = f"the loss must be a finite number. Received: {loss} after batch {batch}"
            raise ModelError(f"{law}. Lower the learning rate, clip gradients, or look for such numbers in the data.")
        print(f"Batch {batch}: Invalid loss, terminating training")  # noqa: T201
        self.model.stop_training = True


class LearningRateScheduler(Callback):
    """Sets the learning rate at the beginning of each epoch to ``schedule(epoch, rate)`` or ``schedule(epoch)``.

    Raises:
        ModelError: the schedule is no function, or gives no float.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        if not callable(schedule):
            raise ModelError(f"`schedule` of LearningRateScheduler must be a function. Received: {schedule!r}.")
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        given = (epoch, self.model.optimizer.learning_rate)
        rate = self.schedule(*given) if _takes(self.schedule, *given) else self.schedule(epoch)
        if not isinstance(rate, float | np.floating):
            raise ModelError(f"`schedule` of LearningRateScheduler must give a float. Received: {rate!r}.")
        self.model.optimizer.learning_rate = float(rate)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")  # noqa: T201

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


def _takes(function: Callable[..., Any], *arguments: object) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # some functions written in C say nothing about their arguments
        return True
    return True


class LambdaCallback(Callback):
    """Calls functions at events: ``LambdaCallback(on_epoch_end=lambda epoch, logs: ...)``.

    Raises:
        ModelError: there is no event of a name, or something is no function.
    """

    def __init__(self, **functions: Callable[..., Any] | None) -> None:
        super().__init__()
        for event, function in functions.items():
            if not event.startswith("on_") or not hasattr(Callback, event):
                raise ModelError(f"LambdaCallback takes events such as `on_epoch_end`. Received: {event!r}.")
            if function is not None and not callable(function):
                raise ModelError(f"`{event}` of LambdaCallback must be a function. Received: {function!r}.")
            if function is not None:
                setattr(self, event, function)
