"""What watches the training of one trial."""

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from kcompile.frontend.training.callbacks.base import Logs
from kcompile.frontend.training.callbacks.monitoring import Monitor

if TYPE_CHECKING:
    from optuna.trial import Trial


class SaveBestEpoch(Monitor):
    """Saves the weights after the best epoch, and keeps its score.

    Args:
        path: a ``.weights.h5`` file.
        least: the score that must be beaten before weights are saved: that of another execution.
    """

    kept = ("best", "best_epoch")

    def __init__(self, monitor: str, mode: str, path: Path, least: float | None = None) -> None:
        super().__init__(monitor, 0.0, mode)
        self.path, self._least = path, least
        self.best_epoch: int | None = None
        self.seen: list[str] = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.seen = list(logs or {})
        # An objective that is never seen is an error at the end.
        value = float((logs or {}).get(self.monitor, math.nan))
        if math.isnan(value) or not self.improves(value, self.best):
            return
        self.best, self.best_epoch = value, epoch
        if self._least is None or self.improves(value, self._least):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.model.save_weights(self.path)


class PruningCallback(Monitor):
    """Tells Optuna the score after each epoch, and ends the training where the trial does not promise to be a good one.

    Attributes:
        pruned: whether it did.
    """

    kept = ("best", "pruned")

    def __init__(self, trial: "Trial", monitor: str, mode: str = "auto") -> None:
        super().__init__(monitor, 0.0, mode)
        self.trial, self.pruned = trial, False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = (logs or {}).get(self.monitor)
        if value is None:
            return
        with warnings.catch_warnings():
            # A training that was killed reports some epochs once more.
            warnings.simplefilter("ignore")
            self.trial.report(float(value), epoch + 1)
        if self.trial.should_prune():
            self.pruned, self.model.stop_training = True, True
