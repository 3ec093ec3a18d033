"""Trains a small model in children of its own, which are killed on the way, and prints what comes out.

    python interrupted.py FOLDER CASE

Prints a digest of the weights, the optimizer's variables and the last logs of an uninterrupted `fit`, then that of one
that was killed again and again.
"""

import hashlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import kcompile
from kcompile import callbacks, layers
from kcompile.frontend import initializers

EPOCHS, SAMPLES, BATCH = 5, 40, 8
rng = np.random.default_rng(1)
X, Y = rng.standard_normal((SAMPLES, 6)), rng.integers(0, 2, (SAMPLES, 1)).astype(float)


def made() -> kcompile.Sequential:
    initializers.set_seed(7)
    np.random.seed(7)
    model = kcompile.Sequential(
        [
            kcompile.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    optimizer = kcompile.optimizers.Nadam(0.01, use_ema=True)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy", kcompile.metrics.AUC(name="auc")])
    return model


class Own:
    """A dataset that shuffles itself after each epoch."""

    def __init__(self) -> None:
        self.order, self.generator = np.arange(SAMPLES), np.random.default_rng(3)

    def __len__(self) -> int:
        return SAMPLES // BATCH

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        chosen = self.order[index * BATCH : (index + 1) * BATCH]
        return X[chosen], Y[chosen]

    def on_epoch_end(self) -> None:
        self.order = self.generator.permutation(SAMPLES)


def endless() -> Iterator[tuple[Any, Any]]:
    while True:
        chosen = np.random.permutation(SAMPLES)[:BATCH]
        yield X[chosen], Y[chosen]


DATA: dict[str, Callable[[], dict[str, Any]]] = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": BATCH, "validation_split": 0.2},
    "steps": lambda: {"x": X, "y": Y, "batch_size": BATCH, "steps_per_epoch": 3, "validation_data": (X, Y)},
    "dataset": lambda: {"x": Own(), "validation_data": Own(), "validation_steps": 2, "validation_freq": [2, 3, 5]},
    "generator": lambda: {
        "x": endless(),
        "steps_per_epoch": 4,
        "validation_data": endless(),
        "validation_steps": 2,
    },
}


def train(data: str, folder: Path, save_freq: Any, *more: callbacks.Callback) -> str:
    model = made()
    folder.mkdir(exist_ok=True)
    halve = callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9)
    plateau = callbacks.ReduceLROnPlateau("loss", factor=0.7, patience=1, min_delta=0.05)
    stop = callbacks.EarlyStopping("val_loss", patience=2, start_from_epoch=1, restore_best_weights=True)
    backup = callbacks.BackupAndRestore(folder / "backup", save_freq, double_checkpoint=True)
    log = callbacks.CSVLogger(folder / "log.csv")
    listed = [backup, halve, plateau, stop, log, *more]
    history = model.fit(**DATA[data](), epochs=EPOCHS, verbose=0, callbacks=listed)
    digest = hashlib.sha256((folder / "log.csv").read_bytes())
    digest.update(repr(sorted((k, v[-1]) for k, v in history.history.items())).encode())
    for array in [*model.get_weights(), *(v.value for v in model.optimizer.variables)]:
        digest.update(np.ascontiguousarray(array).tobytes())
    assert not (folder / "backup").exists()
    return digest.hexdigest()


class Killer(callbacks.Callback):
    """Kills the process after so many batches, or at the so-manieth call of a function that writes files."""

    def __init__(self, batches: int | None, function: str | None, calls: int) -> None:
        super().__init__()
        self.left = batches
        if function is not None:
            self.patch(function, calls)

    def patch(self, function: str, calls: int) -> None:
        own, seen = getattr(os, function), iter(range(calls))

        def counted(*arguments: Any) -> Any:
            if next(seen, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return own(*arguments)

        setattr(os, function, counted)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def child(data: str, folder: Path, save_freq: Any, kill: Any = None) -> bool:
    """Whether a child came to the end; its digest is printed."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            print(train(data, folder, save_freq, *([Killer(*kill)] if kill else [])), flush=True)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def main(folder: Path, data: str, save_freq: Any) -> None:
    assert child(data, folder / "whole", 100)
    kills = [(4, None, 0), (7, None, 0), (None, "replace", 1), (None, "fsync", 1), (None, "link", 1), (9, None, 0)]
    for kill in kills:
        if child(data, folder, save_freq, kill):
            return
    assert child(data, folder, save_freq)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if sys.argv[3].isdecimal() else sys.argv[3])
