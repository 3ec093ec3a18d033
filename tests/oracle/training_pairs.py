"""The same model in Keras and here, trained by the same steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kcompile

RELATIVE = 1e-5
STEPS = 20


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
