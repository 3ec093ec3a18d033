"""One side of `benchmarks.training`: models that train, timed on request.

Runs in either environment: ``python benchmarks/training_worker.py kcompile|keras``. For each line on its input,
``MODEL BATCH STEPS``, it answers with the seconds of wall time per step of `fit`; for ``predict`` instead of STEPS,
with the seconds of one `predict` of one sample.
"""

import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np

keras = importlib.import_module(sys.argv[1])
layers = keras.layers


def mlp() -> Any:
    """784-64-64-10."""
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")]
    return keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10, activation="softmax")])


def cifar_cnn() -> Any:
    """Three convolutions and two poolings on 32 x 32 images, the CNN of Keras's tutorials."""
    convolutions: list[Any] = [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()]
    convolutions += [layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D()]
    convolutions += [layers.Conv2D(64, 3, activation="relu"), layers.Flatten()]
    head = [layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax")]
    return keras.Sequential([keras.Input((32, 32, 3)), *convolutions, *head])


def lstm() -> Any:
    """64 units over 50 steps of 8 numbers."""
    return keras.Sequential([keras.Input((50, 8)), layers.LSTM(64), layers.Dense(10, activation="softmax")])


MODELS: dict[str, Callable[[], Any]] = {"mlp": mlp, "cifar_cnn": cifar_cnn, "lstm": lstm}
_CALLS = 200


def compiled(name: str) -> Any:
    """The model, ready to train."""
    model = MODELS[name]()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def per_step(model: Any, batch: int, steps: int) -> float:
    """Seconds per step of `fit`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * steps, *model.inputs[0].shape[1:])).astype("float32")
    y = rng.integers(0, 10, len(x)).astype("int32")
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch, epochs=1, verbose=0)
    return (time.perf_counter() - start) / steps


def per_prediction(model: Any) -> float:
    """Seconds of one call with one sample: the median."""
    x = np.zeros((1, *model.inputs[0].shape[1:]), "float32")
    seconds: list[float] = []
    for _ in range(_CALLS // 10 if sys.argv[1] == "keras" else _CALLS):
        start = time.perf_counter()
        model.predict(x, verbose=0)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Answer until the input ends."""
    models: dict[str, Any] = {}
    for line in sys.stdin:
        name, batch, steps = line.split()
        model = models[name] = models.get(name) or compiled(name)
        if steps == "predict":
            print(per_prediction(model), flush=True)
        else:
            print(per_step(model, int(batch), int(steps)), flush=True)


if __name__ == "__main__":
    main()
