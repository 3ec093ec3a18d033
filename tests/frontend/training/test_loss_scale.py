"""A loss scale that finds itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.errors import ModelError
from kcompile.optimizers import SGD, Adam, LossScaleOptimizer

X, Y = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")


def compiled(optimizer: Any) -> kcompile.Sequential:
    kcompile.utils.set_random_seed(0)
    model = kcompile.Sequential([kcompile.Input((3,)), layers.Dense(3)])
    model.compile(optimizer, "mse")
    return model


def test_scaled_steps_are_those_of_the_inner_optimizer() -> None:
    optimizer = LossScaleOptimizer(Adam(0.1), 64.0, 2)
    plain, scaled = compiled(Adam(0.1)), compiled(optimizer)
    for _ in range(5):
        assert plain.train_on_batch(X, Y) == pytest.approx(scaled.train_on_batch(X, Y), rel=1e-6)
    for a, b in zip(plain.get_weights(), scaled.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert optimizer.dynamic_scale.value == 64.0 * 4
    assert (optimizer.iterations, optimizer.learning_rate) == (5, pytest.approx(0.1))


def test_a_step_of_infinite_gradients_changes_no_weight_and_halves_the_scale() -> None:
    optimizer = LossScaleOptimizer(SGD(0.1, momentum=0.9), 64.0, 3)
    model = compiled(optimizer)
    model.train_on_batch(X, Y)
    before = [variable.value.copy() for variable in optimizer.inner_optimizer.variables], model.get_weights()
    model.train_on_batch(X * np.float32(1e30), Y)
    after = [variable.value.copy() for variable in optimizer.inner_optimizer.variables], model.get_weights()
    for old, new in zip((*before[0], *before[1]), (*after[0], *after[1]), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (optimizer.dynamic_scale.value, optimizer.step_counter.value) == (32.0, 0)


def test_a_saved_model_keeps_its_scale(tmp_path: Path) -> None:
    model = compiled(LossScaleOptimizer(Adam(0.1), 64.0, 2))
    model.fit(X, Y, batch_size=2, verbose=0)
    model.save(tmp_path / "m.keras")
    again = kcompile.load_model(tmp_path / "m.keras")
    assert isinstance(again.optimizer, LossScaleOptimizer)
    assert again.optimizer.dynamic_scale.value == 256.0
    assert again.train_on_batch(X, Y) == model.train_on_batch(X, Y)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((Adam(),), {"clipnorm": 1.0}, "LossScaleOptimizer takes no clipnorm. Give them to the inner optimizer."),
        (("adam",), {}, "must be another optimizer. Received: str."),
        ((LossScaleOptimizer(Adam()),), {}, "must be another optimizer. Received: LossScaleOptimizer."),
    ],
)
def test_bad_arguments(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        LossScaleOptimizer(*arguments, **options)
    assert str(caught.value).endswith(message)
