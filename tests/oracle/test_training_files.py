"""Files in the middle of training: what one of the two saves, the other goes on training from."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kcompile
from tests.oracle.training_pairs import OPTIMIZERS, classes_data, mlp, steps_of, weights_of

pytestmark = pytest.mark.oracle


def assert_equal_training(ours: Any, theirs: Any, batches: list[Any]) -> None:
    """Train both on the same batches; they must give the same numbers."""
    np.testing.assert_allclose(steps_of(ours, batches), steps_of(theirs, batches), rtol=1e-5, atol=1e-6)
    for mine, their in zip(weights_of(ours), weights_of(theirs), strict=True):
        np.testing.assert_allclose(mine, their, rtol=0, atol=1e-5)


def assert_same_state(ours: Any, theirs: Any) -> None:
    mine, their = ours.optimizer.variables, theirs.optimizer.variables
    assert len(mine) == len(their)
    for one, other in zip(mine, their, strict=True):
        np.testing.assert_array_equal(np.asarray(one.value), np.asarray(other.value), err_msg=one.name)


def assert_same_config(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal, but for the last digits of numbers that were float32 on the way."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == (pytest.approx(value) if isinstance(value, float) else value), key


@pytest.mark.parametrize(("name", "arguments"), OPTIMIZERS, ids=[f"{n}-{a}" for n, a in OPTIMIZERS])
@pytest.mark.parametrize("saver", ["keras", "kcompile"])
def test_training_goes_on_from_a_file(
    saver: str, name: str, arguments: dict[str, Any], rng: np.random.Generator, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(3)
    path, batches = tmp_path / "model.keras", classes_data(rng)[:8]
    first: Any = mlp()
    module: Any = keras
    if saver == "kcompile":
        first.save(tmp_path / "new.keras")
        first, module = kcompile.load_model(tmp_path / "new.keras"), kcompile
    optimizer = getattr(module.optimizers, name)(**arguments)
    first.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    steps_of(first, batches[:4])
    first.save(path)
    theirs, ours = keras.models.load_model(path), kcompile.load_model(path)
    assert_same_state(ours, theirs)
    assert_same_config(ours.optimizer.get_config(), theirs.optimizer.get_config())
    assert_equal_training(ours, theirs, batches[4:])


@pytest.mark.parametrize(
    ("name", "arguments"), [("Adam", {"amsgrad": True}), ("SGD", {"momentum": 0.9}), ("Nadam", {}), ("Lion", {})]
)
def test_training_goes_on_from_an_h5_file(
    name: str, arguments: dict[str, Any], rng: np.random.Generator, tmp_path: Path
) -> None:
    """Keras 3.15 writes the optimizer's state to such files, but reads it into an optimizer without slots."""
    keras.utils.set_random_seed(3)
    batches = classes_data(rng)[:8]
    theirs: Any = mlp()
    theirs.compile(getattr(keras.optimizers, name)(**arguments), "sparse_categorical_crossentropy")
    steps_of(theirs, batches[:4])
    theirs.save(tmp_path / "theirs.h5")
    ours = kcompile.load_model(tmp_path / "theirs.h5")
    assert_same_state(ours, theirs)
    ours.save(tmp_path / "ours.h5")
    again = kcompile.load_model(tmp_path / "ours.h5")
    assert_same_state(again, theirs)
    opened = keras.models.load_model(tmp_path / "ours.h5")
    assert_same_config(opened.optimizer.get_config(), theirs.optimizer.get_config())
    np.testing.assert_allclose(opened.test_on_batch(*batches[4]), again.test_on_batch(*batches[4]), rtol=1e-5)
    assert_equal_training(ours, theirs, batches[4:])


SCHEDULES: list[tuple[str, tuple[Any, ...]]] = [
    ("ExponentialDecay", (0.05, 2, 0.5, True)),
    ("PiecewiseConstantDecay", ([2, 5], [0.1, 0.05, 0.01])),
    ("PolynomialDecay", (0.1, 6)),
    ("InverseTimeDecay", (0.1, 2, 0.5)),
    ("CosineDecay", (0.1, 6)),
    ("CosineDecayRestarts", (0.1, 3)),
]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(("name", "arguments"), SCHEDULES, ids=[name for name, _ in SCHEDULES])
def test_schedules_losses_and_metrics_are_kept(
    name: str, arguments: tuple[Any, ...], suffix: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(3)
    path, batches = tmp_path / f"model{suffix}", classes_data(rng, one_hot=True)[:8]
    model: Any = mlp()
    model.save(tmp_path / "new.keras")
    for module, made in ((keras, model), (kcompile, kcompile.load_model(tmp_path / "new.keras"))):
        optimizer = module.optimizers.SGD(getattr(module.optimizers.schedules, name)(*arguments), momentum=0.9)
        loss = module.losses.CategoricalCrossentropy(label_smoothing=0.1)
        metrics = [module.metrics.Precision(thresholds=0.3), "accuracy", module.losses.mean_squared_error]
        made.compile(optimizer, loss, metrics=metrics, weighted_metrics=["mae"], loss_weights=0.5)
        steps_of(made, batches[:4])
        made.save(path)
        theirs, ours = keras.models.load_model(path), kcompile.load_model(path)
        if suffix == ".keras":
            assert_same_state(ours, theirs)
            assert_equal_training(ours, theirs, batches[4:])
        else:
            assert theirs.optimizer.get_config() == ours.optimizer.get_config()


@pytest.mark.parametrize("saver", ["keras", "kcompile"])
def test_weights_files_hold_the_optimizer(saver: str, rng: np.random.Generator, tmp_path: Path) -> None:
    path, batches = tmp_path / "model.weights.h5", classes_data(rng)[:8]
    theirs: Any = mlp()
    theirs.save(tmp_path / "new.keras")
    ours: Any = kcompile.load_model(tmp_path / "new.keras")
    for module, made in ((keras, theirs), (kcompile, ours)):
        made.compile(module.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        steps_of(made, batches[:2])
    first, second = (theirs, ours) if saver == "keras" else (ours, theirs)
    steps_of(first, batches[2:4])
    first.save_weights(path)
    second.load_weights(path)
    assert_same_state(ours, theirs)
    assert_equal_training(ours, theirs, batches[4:])
