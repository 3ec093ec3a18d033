"""Searches in children of its own, which are killed on the way, and prints what comes out: ``searches.py FOLDER``."""

import hashlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import kcompile
from kcompile import Input, Sequential, layers, tune

rng = np.random.default_rng(1)
X = rng.standard_normal((60, 4))
Y = (X[:, :1] * X[:, 1:2] > 0).astype(float)


def build(hp: tune.HyperParameters) -> Sequential:
    model = Sequential([Input((4,)), layers.Dense(hp.Int("units", 2, 16, step=2), activation="relu")])
    if hp.Boolean("drop"):
        model.add(layers.Dropout(hp.Float("rate", 0.1, 0.5)))
    model.add(layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("rate_of_learning", 1e-3, 1e-1, sampling="log")
    model.compile(kcompile.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


class Killer(kcompile.callbacks.Callback):
    """Kills the process in the so-manieth epoch of the search."""

    left = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        Killer.left -= 1
        if Killer.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def search(folder: Path) -> str:
    tuner = tune.BayesianOptimization(
        build, "val_loss", 3, num_initial_points=2, seed=5, directory=folder, project_name="p", pruner="median"
    )
    tuner.search(X, Y, epochs=3, validation_split=0.3, verbose=0, batch_size=16, callbacks=[Killer()])
    digest = hashlib.sha256()
    for trial in tuner.trials:
        digest.update(repr((trial.number, trial.hyperparameters.values, trial.score, trial.status)).encode())
    for weight in tuner.get_best_models()[0].get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def child(folder: Path, kill: int) -> bool:
    """Whether a child came to the end; its digest is printed."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            Killer.left = kill
            print(search(folder), flush=True)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    assert child(folder / "whole", 0)
    assert not child(folder / "killed", 2)
    assert not child(folder / "killed", 5)
    assert child(folder / "killed", 0)
