"""Callbacks that watch one number of the logs."""

import math
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.callbacks.base import Callback, Logs
from kcompile.frontend.training.naming import snake_case
from kcompile.ir.types import Array

# Metrics of which more is better; of others, losses among them, less is.
_RISING = (
    "accuracy",
    "acc",
    "auc",
    "precision",
    "recall",
    "f1_score",
    "fbeta_score",
    "io_u",
    "r2_score",
    "similarity",
    "correlation",
    "sensitivity",
    "specificity",
)


def names_what_rises(name: str) -> bool:
    """Whether a metric of that name is the better the more it is."""
    return any(part in name for part in _RISING)


class Monitor(Callback):
    """Base: decides whether a number of the logs got better.

    Args:
        monitor: its name.
        min_delta: by how much it must be better.
        mode: whether it should fall ("min") or rise ("max"); "auto" goes by its name.

    Raises:
        ModelError: the mode is another.
    """

    # The attributes that make up the state.
    kept: ClassVar[tuple[str, ...]] = ("best",)

    def __init__(self, monitor: str = "val_loss", min_delta: float = 0.0, mode: str = "auto") -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ModelError(f'`mode` of {type(self).__name__} must be "auto", "min" or "max". Received: {mode!r}.')
        self.monitor, self.min_delta, self.mode = monitor, abs(min_delta), mode
        self.best: float | None = None
        self._seen = False

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        name = self.monitor.removeprefix("val_")
        if self.mode != "auto" or name == "loss" or name.endswith("_loss"):
            return self.mode == "max"
        found = next((m for m in self.model.metrics if name == m.name or name.endswith(f"_{m.name}")), None)
        own = getattr(getattr(found, "fn", None), "__name__", "")
        return any(map(names_what_rises, (name, snake_case(type(found).__name__), own)))

    def require_count(self, argument: str, value: Any) -> None:
        """Raise a ModelError unless an argument is a number of epochs."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            law = f"`{argument}` of {type(self).__name__} must be a number of epochs, 0 or more"
            raise ModelError(f"{law}. Received: {value!r}.")

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best`."""
        if best is None:
            return True
        return value - self.min_delta > best if self.rises else value + self.min_delta < best

    def watched(self, logs: Logs | None) -> float | None:
        """The number; None, and a warning, where this time the logs do not have it.

        Raises:
            ModelError: they never will, since no metric has that name.
        """
        given = logs or {}
        if self.monitor in given:
            self._seen = True
            return float(np.mean(given[self.monitor]))
        text = f"{type(self).__name__} watches `{self.monitor}`, which is not in the logs: {', '.join(given)}."
        if not self._seen and self.monitor.removeprefix("val_") not in given:
            raise ModelError(f"{text} Give one of these as `monitor`, or add a metric of that name in `compile`.")
        warnings.warn(text, stacklevel=3)
        return None

    def get_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.kept}

    def set_state(self, state: dict[str, Any]) -> None:
        for name in self.kept:
            setattr(self, name, state[name])


class EarlyStopping(Monitor):
    """Ends training when a number has not got better for `patience` epochs.

    Args:
        patience: epochs without improvement that are borne.
        baseline: what the number must be better than to count.
        restore_best_weights: whether the model gets back the weights of the best epoch.
        start_from_epoch: epochs before this one do not count.

    Raises:
        ModelError: `patience` or `start_from_epoch` is no number of epochs.
    """

    kept = ("best", "wait", "stopped_epoch", "best_epoch", "best_weights")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, min_delta, mode)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best_weights: list[Array] | None = None
        self.require_count("patience", patience)
        self.require_count("start_from_epoch", start_from_epoch)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best, self.best_weights = None, None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.watched(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.improves(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")  # noqa: T201
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")  # noqa: T201
            self.model.set_weights(self.best_weights)


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when a number has not got better for `patience` epochs.

    Args:
        cooldown: epochs after a reduction that do not count.
        min_lr: the least learning rate.

    Raises:
        ModelError: the factor is 1 or more, or `patience` or `cooldown` is no number of epochs.
    """

    kept = ("best", "wait", "cooldown_counter")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, min_delta, mode)
        self.require_count("patience", patience)
        self.require_count("cooldown", cooldown)
        if factor >= 1:
            raise ModelError(f"`factor` of ReduceLROnPlateau must be below 1. Received: factor={factor}.")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.best, self.wait, self.cooldown_counter = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate
        value = self.watched(logs)
        if value is None:
            return
        if self.cooldown_counter:
            self.cooldown_counter, self.wait = self.cooldown_counter - 1, 0
        if self.improves(value, self.best):
            self.best, self.wait = value, 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        before = self.model.optimizer.learning_rate
        if before <= np.float32(self.min_lr):
            return
        self.model.optimizer.learning_rate = max(before * self.factor, self.min_lr)
        self.cooldown_counter, self.wait = self.cooldown, 0
        if self.verbose:
            rate = self.model.optimizer.learning_rate
            print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}.")  # noqa: T201


class ModelCheckpoint(Monitor):
    """Saves the model after each epoch, or every so many batches.

    A file is written beside its place and then moved there, so that an interruption leaves the one before.

    Args:
        filepath: may hold ``{epoch}``, ``{batch}`` and names of logs, as in ``"{epoch:02d}-{val_loss:.2f}.keras"``.
        save_best_only: whether only a better model replaces the one before.
        save_weights_only: whether only weights are saved; the path must end in ``.weights.h5``.
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: what the first model must be better than.

    Raises:
        ModelError: the path has another suffix or cannot be written to, or `save_freq` is something else.
    """

    kept = ("best", "unsaved")

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Literal["epoch"] | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, 0.0, mode)
        self.filepath, self.verbose = str(filepath), verbose
        self.save_best_only, self.save_weights_only, self.save_freq = save_best_only, save_weights_only, save_freq
        self.best = initial_value_threshold
        suffixes = (".weights.h5",) if save_weights_only else (".keras", ".h5")
        if not self.filepath.endswith(suffixes):
            law = f"`filepath` of ModelCheckpoint must end in {' or '.join(suffixes)}"
            raise ModelError(f"{law}. Received: {self.filepath!r}.")
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise ModelError(f'`save_freq` must be "epoch" or a number of batches. Received: {save_freq!r}.')
        self._epoch = self.unsaved = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.unsaved += 1
        if isinstance(self.save_freq, int) and self.unsaved >= self.save_freq:
            self.unsaved = 0
            self._save({"epoch": self._epoch + 1, "batch": batch + 1, **(logs or {})}, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save({"epoch": epoch + 1, **(logs or {})}, logs)

    def _save(self, names: Logs, logs: Logs | None) -> None:
        path = self._path(names)
        if not self._is_due(logs, path):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            law = f"`filepath` of ModelCheckpoint must be in a folder that can be written to: {error.strerror or error}"
            raise ModelError(f"{law}. Received: {self.filepath!r}.") from error
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)

    def _path(self, names: Logs) -> Path:
        try:
            return Path(self.filepath.format(**names))
        except (KeyError, ValueError, IndexError) as problem:
            law = f"`filepath` of ModelCheckpoint may name {', '.join(names)}"
            raise ModelError(f"{law}. Received: {self.filepath!r}, which names {problem}.") from None

    def _is_due(self, logs: Logs | None, path: Path) -> bool:
        """Whether to save; says why, and keeps in mind what is the best now."""
        value = self.watched(logs) if self.save_best_only else None
        if value is None:
            # What cannot be compared must not replace a model that is known to be the best.
            due = not self.save_best_only or self.best is None
            self._say(f"saving model to {path}" if due else f"{self.monitor} is not known")
            return due
        before = "None" if self.best is None else f"{self.best:.5f}"
        if math.isnan(value) or not self.improves(value, self.best):
            self._say(f"{self.monitor} did not improve from {before}")
            return False
        self._say(f"{self.monitor} improved from {before} to {value:.5f}, saving model to {path}")
        self.best = value
        return True

    def _say(self, text: str) -> None:
        if self.verbose:
            print(f"\nEpoch {self._epoch + 1}: {text}")  # noqa: T201
