"""Training loops of users' own: steps that are functions."""

from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers, ops
from kcompile.errors import ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype("float32")
Y = RNG.integers(0, 3, 20)


def made() -> Any:
    kcompile.utils.set_random_seed(2)
    dense = layers.Dense(
        4, activation="relu", kernel_regularizer="l2", kernel_constraint=kcompile.constraints.MaxNorm(1)
    )
    return kcompile.Sequential([kcompile.Input((3,)), dense, layers.BatchNormalization(), layers.Dense(3)])


def test_the_loop_of_keras_guide_gives_the_numbers_of_fit() -> None:
    model, optimizer = made(), kcompile.optimizers.Adam(0.05)
    loss_fn = kcompile.losses.SparseCategoricalCrossentropy(from_logits=True)
    accuracy = kcompile.metrics.SparseCategoricalAccuracy()

    @kcompile.function
    def train_step(x: Any, y: Any) -> Any:
        with kcompile.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_fn(y, logits)
            loss += sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply(gradients, model.trainable_weights)
        accuracy.update_state(y, logits)
        return loss

    @kcompile.function(jit_compile=True)
    def test_step(x: Any, y: Any) -> Any:
        accuracy.update_state(y, model(x, training=False))

    losses: list[Any] = []
    accuracies: list[float] = []
    for _ in range(3):
        accuracy.reset_state()
        losses += [train_step(X[i : i + 8], Y[i : i + 8]) for i in range(0, 20, 8)]
        accuracies.append(float(accuracy.result()))
    accuracy.reset_state()
    test_step(X, Y)

    fitted, seen = made(), []
    fitted.compile(kcompile.optimizers.Adam(0.05), loss_fn, metrics=["accuracy"])
    keep = kcompile.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    history = fitted.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[keep]).history
    np.testing.assert_allclose(accuracies, history["accuracy"], rtol=1e-6)
    np.testing.assert_allclose(float(accuracy.result()), fitted.evaluate(X, Y, verbose=0)[1], rtol=1e-6)
    np.testing.assert_allclose(losses[::3], seen[::3], rtol=1e-4)  # those after it are means within the epoch
    for mine, theirs in zip(model.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert train_step.__name__ == "train_step"
    assert optimizer.iterations == 9


def test_arguments_that_are_no_arrays_are_known_and_results_keep_their_structure() -> None:
    traced: list[Any] = []

    @kcompile.function
    def mixed(x: Any, factor: float, options: Any = None) -> Any:
        traced.append(x.shape)
        return {"scaled": x["a"] * factor if isinstance(x, dict) else x * factor, "n": 3, "none": (None, [options])}

    assert np.array_equal(mixed(X, 2.0)["scaled"], X * 2)
    assert np.array_equal(mixed(X + 1, 2.0)["scaled"], (X + 1) * 2)
    assert np.array_equal(mixed(X, 3.0, options="b")["scaled"], X * 3)
    assert mixed(X[:5], 3.0, "b")["none"] == (None, ["b"])
    assert traced == [(20, 3), (20, 3), (5, 3)]


def test_random_numbers_differ_from_call_to_call() -> None:
    kcompile.utils.set_random_seed(0)

    @kcompile.function
    def noise(x: Any) -> Any:
        return x + kcompile.random.normal(ops.shape(x)) - kcompile.random.normal(ops.shape(x))

    first, second = noise(X * 0), noise(X * 0)
    assert not np.isclose(first, 0).any()
    assert not np.array_equal(first, second)


def test_a_function_within_a_step_is_part_of_it_and_refusals_name_the_function() -> None:
    weight = kcompile.Variable(np.ones(2, "float32"))

    @kcompile.function
    def inner(x: Any) -> Any:
        return x * weight

    @kcompile.function
    def outer(x: Any) -> Any:
        with kcompile.GradientTape() as tape:
            y = ops.sum(inner(x))
        weight.assign(weight * 3.0)
        return tape.gradient(y, weight)

    assert np.array_equal(outer(np.asarray([2.0, 5.0])), [2.0, 5.0])
    assert np.array_equal(np.asarray(weight), [3.0, 3.0])
    assert np.array_equal(inner(np.ones(2)), [3.0, 3.0])

    @kcompile.function
    def deciding(x: Any) -> Any:
        return x.item()

    with pytest.raises(ModelError, match=r"`deciding` must be written with kcompile.ops"):
        deciding(X)
