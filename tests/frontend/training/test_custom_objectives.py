"""Losses, metrics, regularizers, schedules and initializers of users, as functions and as classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import Input, Model, Sequential, layers, ops
from kcompile.errors import ModelError

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = (X[:, :1] * 2).astype("float32")


def linear() -> Model:
    return Sequential([Input((3,)), layers.Dense(1, kernel_initializer="ones")])


@kcompile.saving.register_keras_serializable(package="tests")
def cubic(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.abs(y_true - y_pred) ** 3, axis=-1)


@kcompile.saving.register_keras_serializable(package="tests")
class Weighted(kcompile.losses.Loss):
    def __init__(self, factor: float = 2.0, name: str = "weighted", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.factor = factor

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.factor * cubic(y_true, y_pred) + kcompile.losses.mean_squared_error(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


class Largest(kcompile.metrics.Metric):
    """The largest error, weighted."""

    def __init__(self, name: str = "largest", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.value = self.add_variable(shape=(), initializer="zeros", name="value")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        errors = ops.abs(y_true - y_pred)
        if sample_weight is not None:
            errors = errors * ops.reshape(sample_weight, (-1, 1))
        self.value.assign(ops.maximum(self.value, ops.max(errors)))

    def result(self) -> Any:
        return self.value


class Rounded(kcompile.metrics.Mean):
    """A mean of what the subclass makes of labels and predictions."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(ops.round(y_pred), sample_weight)


def test_functions_and_classes_are_losses() -> None:
    errors = np.abs(Y - X.sum(-1, keepdims=True))
    model = linear()
    model.compile("sgd", cubic)
    assert np.isclose(model.test_on_batch(X, Y), (errors**3).mean(), rtol=1e-5)
    model.compile("sgd", Weighted(3.0))
    assert np.isclose(model.test_on_batch(X, Y), (3 * errors**3 + errors**2).mean(), rtol=1e-5)
    model.fit(X, Y, epochs=3, verbose=0)
    assert np.isclose(Weighted(3.0)(Y, X.sum(-1, keepdims=True)), (3 * errors**3 + errors**2).mean(), rtol=1e-5)


def test_metrics_keep_their_state_over_batches_and_begin_anew() -> None:
    errors = np.abs(Y - X.sum(-1, keepdims=True))
    weights = np.linspace(0, 1, 16)
    model = linear()
    model.compile("sgd", "mse", metrics=[Largest(), Rounded(name="rounded")], weighted_metrics=[Largest(name="heavy")])
    for _ in range(2):
        logs = model.evaluate(X, Y, batch_size=5, sample_weight=weights, return_dict=True, verbose=0)
        assert np.isclose(logs["largest"], errors.max(), rtol=1e-5)
        assert np.isclose(logs["heavy"], (errors[:, 0] * weights).max(), rtol=1e-5)
        assert np.isclose(logs["rounded"], np.round(X.sum(-1)).mean(), atol=1e-5)


def test_metrics_take_arrays() -> None:
    metric = Largest()
    metric.update_state(np.ones((2, 1)), np.zeros((2, 1)))
    metric.update_state(np.ones((2, 1)), np.full((2, 1), 3.0))
    assert float(metric.result()) == 2
    metric.reset_state()
    assert float(metric.result()) == 0
    mean = kcompile.metrics.Mean()
    mean.update_state([1.0, 3.0], [1.0, 0.0])
    assert float(mean.result()) == 1


def test_registered_ones_are_saved_with_the_model(tmp_path: Path) -> None:
    model = linear()
    model.compile("adam", Weighted(3.0), metrics=[cubic])
    model.fit(X, Y, verbose=0)
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        loaded = kcompile.load_model(tmp_path / name)
        assert loaded.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)


def test_functions_are_regularizers_constraints_initializers_and_activations() -> None:
    def cost(w: Any) -> Any:
        return 0.5 * ops.sum(ops.abs(w))

    def rounded(w: Any) -> Any:
        return ops.round(w * 4) / 4

    def filled(shape: Any, dtype: Any = None) -> Any:
        return ops.full(shape, 2.0, dtype)

    inputs = Input((3,))
    dense = layers.Dense(
        2,
        activation=lambda x: ops.minimum(x, 1.0),
        kernel_initializer=filled,
        kernel_regularizer=cost,
        kernel_constraint=rounded,
    )
    model = Model(inputs, dense(inputs))
    model.compile(kcompile.optimizers.SGD(0.3), "mse")
    outputs = np.minimum(X @ np.full((3, 2), 2.0), 1)
    assert np.isclose(model.test_on_batch(X, np.zeros((16, 2))), (outputs**2).mean() + 0.5 * 12, rtol=1e-5)
    model.fit(X, np.zeros((16, 2)), verbose=0)
    kernel = dense.kernel.numpy()
    assert not np.array_equal(kernel, np.full((3, 2), 2.0))
    assert np.array_equal(kernel, np.round(kernel * 4) / 4)


def test_classes_are_regularizers_and_schedules() -> None:
    class Far(kcompile.regularizers.Regularizer):
        def __init__(self, centre: float) -> None:
            self.centre = centre

        def __call__(self, x: Any) -> Any:
            return ops.sum(ops.square(x - self.centre))

        def get_config(self) -> dict[str, Any]:
            return {"centre": self.centre}

    class Falling(kcompile.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return 1.0 / (step + 2.0)

    model = Sequential([Input((3,)), layers.Dense(1, kernel_initializer="zeros", kernel_regularizer=Far(1.0))])
    model.compile(kcompile.optimizers.SGD(Falling()), "mse")
    assert np.isclose(model.train_on_batch(X, X[:, :1] * 0), 3.0)
    assert np.allclose(model.get_weights()[0], 1.0)  # the gradient is -2, the first rate 1 / 2
    assert np.isclose(float(model.optimizer.learning_rate), 1 / 3)


@pytest.mark.parametrize(
    ("loss", "law"),
    [
        (lambda y_true, y_pred: np.mean((y_true - y_pred) ** 2), "elements of a symbolic tensor are not known"),
        (lambda y_true, y_pred: None, "must return a tensor. Received: NoneType"),
        (lambda y_true, y_pred: y_pred.mean(), "must be written with kcompile.ops and the operators of tensors"),
        (lambda y_true, y_pred: ops.matmul(y_true, ops.ones((3, 3))), "kcompile.ops.matmul does not take"),
    ],
    ids=["numpy", "nothing", "methods", "shapes"],
)
def test_losses_that_are_wrong_say_how(loss: Any, law: str) -> None:
    model = linear()
    model.compile("sgd", loss)
    with pytest.raises((ModelError, TypeError), match=law):
        model.fit(X, Y, verbose=0)


def test_random_numbers_are_drawn_anew_in_each_step(tmp_path: Path) -> None:
    class Sampling(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seeds = kcompile.random.SeedGenerator(7)

        def call(self, x: Any, training: Any = None) -> Any:
            if not training:
                return x
            return x + kcompile.random.normal(ops.shape(x), stddev=0.1, seed=self.seeds)

    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1)(Sampling()(inputs)))
    model.compile(kcompile.optimizers.SGD(0.0), "mse")
    losses = [model.train_on_batch(X, Y) for _ in range(3)]
    assert len(set(losses)) == 3
    assert np.ptp(losses) < 2
    kcompile.compile(model, output=tmp_path / "m.onnx")
