"""The same model in Keras and here, trained by the same steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kcompile

RELATIVE = 1e-5
STEPS = 20
CLASSES = 4

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"learning_rate": 0.01, "amsgrad": True, "beta_1": 0.8}),
    ("AdamW", {"weight_decay": 0.05}),
    ("Adamax", {"learning_rate": 0.01}),
    ("Nadam", {"learning_rate": 0.01}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "learning_rate": 0.002}),
    ("Adagrad", {"learning_rate": 0.05}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Ftrl", {"learning_rate": 0.05}),
    (
        "Ftrl",
        {
            "learning_rate": 0.05,
            "l1_regularization_strength": 0.01,
            "l2_regularization_strength": 0.02,
            "l2_shrinkage_regularization_strength": 0.01,
            "beta": 0.1,
        },
    ),
    ("Lion", {"learning_rate": 0.003}),
    ("Adafactor", {"learning_rate": 0.01}),
    ("Lamb", {"learning_rate": 0.01}),
    ("Muon", {"learning_rate": 0.01}),
    ("Muon", {"nesterov": False, "rms_rate": None, "adam_weight_decay": None, "exclude_layers": ["kernel"]}),
    ("Muon", {"nesterov": False, "rms_rate": None, "weight_decay": None, "ns_steps": 2, "adam_lr_ratio": 0.5}),
    ("ScheduleFreeAdamW", {"learning_rate": 0.01}),
    ("ScheduleFreeAdamW", {"learning_rate": 0.02, "warmup_steps": 6, "weight_decay": 0.05, "beta_1": 0.8}),
    ("Adam", {"clipnorm": 0.1}),
    ("Adam", {"global_clipnorm": 0.1}),
    ("Adam", {"clipvalue": 0.01}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"use_ema": True, "ema_momentum": 0.9}),
    ("SGD", {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3}),
    ("Adam", {"gradient_accumulation_steps": 3}),
    ("SGD", {"gradient_accumulation_steps": 2, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"loss_scale_factor": 128.0}),
]


def mlp() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="tanh"),
            layers.Dense(12, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def classes_data(rng: np.random.Generator, shape: tuple[int, ...] = (8,), one_hot: bool = False) -> list[Any]:
    labels = rng.integers(0, CLASSES, (STEPS, 16))
    y = np.eye(CLASSES, dtype=np.float32)[labels] if one_hot else labels
    return [(rng.standard_normal((16, *shape)).astype(np.float32), each) for each in y]


def twin(model: Any, folder: Path) -> Any:
    """The model of Keras as one of ours, with the same weights, by way of a file."""
    path = folder / "twin.keras"
    model.save(path)
    return kcompile.load_model(path)


def steps_of(model: Any, batches: list[tuple[Any, ...]]) -> list[np.ndarray]:
    """The logs of one step on each batch."""
    return [np.asarray(model.train_on_batch(*batch), dtype=np.float64) for batch in batches]


def weights_of(model: Any) -> list[np.ndarray]:
    """The weights as arrays, trainable ones first: Keras lists layers' weights in another order than models do."""
    groups = (model.trainable_weights, model.non_trainable_weights)
    return [np.asarray(weight.value) for group in groups for weight in group]


def compare_training(
    build: Callable[[], Any],
    compile_with: Callable[[Any], dict[str, Any]],
    batches: list[tuple[Any, ...]],
    folder: Path,
    relative: float = RELATIVE,
) -> None:
    """Train both on `batches`: losses, metrics and weights must agree.

    Args:
        compile_with: the arguments of `compile` from the module ``keras`` or ``kcompile``'s equivalent.
    """
    keras.utils.set_random_seed(7)
    theirs = build()
    ours = twin(theirs, folder)
    theirs.compile(**compile_with(keras))
    ours.compile(**compile_with(kcompile))
    expected, found = steps_of(theirs, batches), steps_of(ours, batches)
    np.testing.assert_allclose(np.stack(found), np.stack(expected), rtol=relative, atol=relative)
    for mine, their in zip(weights_of(ours), weights_of(theirs), strict=True):
        # Biases that cancel have no gradient but noise, which Adam makes steps of.
        scale = max(float(np.abs(their).max(initial=0.0)), 0.1)
        np.testing.assert_allclose(mine, their, rtol=0, atol=relative * scale)
