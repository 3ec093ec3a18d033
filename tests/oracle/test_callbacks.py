"""Callbacks against Keras's: the same logs, told to both, lead to the same decisions."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcompile import callbacks as ours

pytestmark = pytest.mark.oracle
keras = pytest.importorskip("keras")

numbers = st.sampled_from([0.0, 0.25, 0.5, 0.5000001, 0.75, 1.0, 1.5, 2.0, -1.0])
series = st.lists(numbers, min_size=1, max_size=12)


class Optimizer:
    learning_rate = 0.1


class Model:
    """What callbacks need of a model: they set its rate, take and give its weights, stop it and save it."""

    def __init__(self) -> None:
        self.stop_training = False
        self.optimizer = Optimizer()
        self.metrics: list[Any] = []
        self.weights, self.saved = 0, list[str]()

    def get_weights(self) -> Any:
        return [np.asarray(self.weights)]

    def set_weights(self, weights: Any) -> None:
        self.weights = int(weights[0])

    def save(self, path: Any, overwrite: bool = True) -> None:
        self.saved.append(str(path))


def told(callback: Any, logs: list[dict[str, float]], watched: tuple[str, ...], batches: int = 2) -> list[Any]:
    """What a training with these logs makes of a callback, the model and the logs, after each epoch."""
    model, seen = Model(), list[Any]()
    callback.set_model(model)
    callback.set_params({"epochs": len(logs), "steps": batches, "verbose": 0})
    callback.on_train_begin({})
    for epoch, found in enumerate(copy.deepcopy(logs)):
        callback.on_epoch_begin(epoch, {})
        for batch in range(batches):
            callback.on_train_batch_begin(batch, {})
            model.weights += 1
            callback.on_train_batch_end(batch, {"loss": found["loss"]})
        callback.on_epoch_end(epoch, found)
        state = [getattr(callback, name) for name in watched]
        seen.append((state, found, model.stop_training, float(model.optimizer.learning_rate), list(model.saved)))
        if model.stop_training:
            break
    callback.on_train_end({})
    return [*seen, model.weights]


def same(name: str, logs: list[dict[str, float]], watched: tuple[str, ...], **options: Any) -> None:
    pair = [told(getattr(library, name)(**options), logs, watched) for library in (ours, keras.callbacks)]
    np.testing.assert_equal(pair[0], pair[1])


def losses(values: list[float]) -> list[dict[str, float]]:
    return [{"loss": 1.0 / (i + 1), "val_loss": value} for i, value in enumerate(values)]


@settings(max_examples=100, deadline=None)
@given(
    series,
    st.integers(0, 3),
    st.sampled_from([0, 0.1, -0.3]),
    st.sampled_from(["auto", "min", "max"]),
    st.sampled_from([None, 0.5]),
    st.booleans(),
    st.integers(0, 3),
)
def test_early_stopping_decides_as_keras_does(
    values: list[float], patience: int, delta: float, mode: str, baseline: Any, restore: bool, start: int
) -> None:
    same(
        "EarlyStopping",
        losses(values),
        ("wait", "best", "stopped_epoch", "best_epoch"),
        patience=patience,
        min_delta=delta,
        mode=mode,
        baseline=baseline,
        restore_best_weights=restore,
        start_from_epoch=start,
    )


@settings(max_examples=100, deadline=None)
@given(
    series,
    st.sampled_from([0.1, 0.5]),
    st.integers(0, 3),
    st.sampled_from(["auto", "max"]),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.02]),
)
def test_the_rate_is_reduced_as_keras_does(
    values: list[float], factor: float, patience: int, mode: str, cooldown: int, least: float
) -> None:
    same(
        "ReduceLROnPlateau",
        losses(values),
        ("wait", "best", "cooldown_counter"),
        factor=factor,
        patience=patience,
        mode=mode,
        cooldown=cooldown,
        min_lr=least,
    )


@settings(max_examples=100, deadline=None)
@given(
    series,
    st.booleans(),
    st.sampled_from(["auto", "min", "max"]),
    st.sampled_from(["epoch", 1, 3]),
    st.sampled_from([None, 0.6]),
)
def test_models_are_saved_when_keras_saves_them(
    values: list[float], best_only: bool, mode: str, save_freq: Any, threshold: Any
) -> None:
    name = "{epoch:02d}.keras" if save_freq == "epoch" else "{epoch:02d}-{batch}.keras"
    options = {"save_best_only": best_only, "mode": mode, "initial_value_threshold": threshold, "save_freq": save_freq}
    monitor = "val_loss" if save_freq == "epoch" else "loss"
    # Keras learns of the direction at the end of the first epoch, too late for a batch before it.
    if save_freq == "epoch" or not best_only:
        same("ModelCheckpoint", losses(values), ("best",), filepath=name, monitor=monitor, **options)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([1.0, 0.5, float("nan"), float("inf")]), min_size=1, max_size=5))
def test_losses_that_are_no_numbers_end_training_where_they_do_in_keras(values: list[float]) -> None:
    same("TerminateOnNaN", [{"loss": value} for value in values], ())


def test_rates_follow_a_schedule_as_in_keras() -> None:
    for schedule in (lambda epoch, rate: rate * 0.9, lambda epoch: 0.1 / (epoch + 1)):
        same("LearningRateScheduler", losses([1.0] * 4), (), schedule=schedule)


def test_files_of_comma_separated_values_are_keras_s_to_the_byte(tmp_path: Path) -> None:
    for logs in (
        losses([0.5, 1e-7, 123456.789]),
        [{"loss": 1.0}, {"loss": 2.0, "acc": 1.0}],
        [{"loss": 1.0, "f1": np.asarray([0.5, 0.25])}],
        [{"b": 1.0, "loss": np.float32(0.1), "a": 2}],
    ):
        for library, name in ((ours, "ours.csv"), (keras.callbacks, "keras.csv")):
            for append in (False, True):
                told(library.CSVLogger(str(tmp_path / name), append=append), logs, ())
        assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "keras.csv").read_bytes()
