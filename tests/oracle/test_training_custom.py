"""Programs with code of their own, run by Keras and here: each is a function of the module that is called Keras."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import kcompile

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.normal(size=(32, 2)).astype("float32")
WORDS = RNG.integers(0, 20, size=(32, 5))


def layer_with_loss_and_metric(k: Any) -> tuple[Any, Any, Any]:  # noqa: C901 - one whole program
    @k.saving.register_keras_serializable(package="tests")
    class Gated(k.layers.Layer):
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units
            self.gate = k.layers.Dense(units, activation="sigmoid")

        def build(self, input_shape: Any) -> None:
            self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")
            self.w = self.add_weight(
                shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="w", regularizer="l2"
            )
            super().build(input_shape)

        def call(self, x: Any, training: Any = None) -> Any:
            if training:
                self.steps.assign_add(1.0)
            y = k.ops.tanh(k.ops.matmul(x, self.w))
            self.add_loss(0.01 * k.ops.mean(k.ops.square(y)))
            return y * self.gate(x) / (1.0 + k.ops.abs(y))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units}

    @k.saving.register_keras_serializable(package="tests")
    class Weighted(k.losses.Loss):
        def __init__(self, factor: float = 2.0, name: str = "weighted", **kwargs: Any) -> None:
            super().__init__(name=name, **kwargs)
            self.factor = factor

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return self.factor * k.ops.mean(k.ops.abs(y_true - y_pred) ** 3, axis=-1)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "factor": self.factor}

    @k.saving.register_keras_serializable(package="tests")
    class Span(k.metrics.Metric):
        def __init__(self, name: str = "span", **kwargs: Any) -> None:
            super().__init__(name=name, **kwargs)
            self.low = self.add_weight(shape=(), initializer="zeros", name="low")
            self.high = self.add_weight(shape=(), initializer="zeros", name="high")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.low.assign(k.ops.minimum(self.low, k.ops.min(y_pred)))
            self.high.assign(k.ops.maximum(self.high, k.ops.max(y_pred - y_true)))

        def result(self) -> Any:
            return self.high - self.low

    def first(y_true: Any, y_pred: Any) -> Any:
        return k.ops.abs(y_true[:, 0] - y_pred[:, 0])

    inputs = k.Input((6,))
    model = k.Model(inputs, k.layers.Dense(2)(Gated(5, name="gated")(inputs)))
    model.compile("adam", Weighted(1.5), metrics=[Span(), first, "mae"])
    return model, X, Y


def subclass(k: Any) -> tuple[Any, Any, Any]:
    @k.saving.register_keras_serializable(package="tests")
    class Net(k.Model):
        def __init__(self, units: int = 4, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units
            self.first = k.layers.Dense(units, activation="gelu")
            self.blocks = [k.layers.Dense(units), k.layers.Dense(units, activation="tanh")]
            self.norms = {"a": k.layers.LayerNormalization(), "b": k.layers.BatchNormalization()}
            self.out = k.layers.Dense(2)
            self.shift = self.add_weight(shape=(2,), initializer="ones", name="shift")

        def call(self, x: Any, training: bool = False) -> Any:
            x = self.first(x)
            for block in self.blocks:
                x = x + block(x)
            # Keras on JAX tells layers inside a subclass that it trains only where the code does.
            x = self.norms["b"](self.norms["a"](x), training=training)
            if training:
                x = x * 0.5
            return self.out(x) + self.shift

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units}

    model = Net()
    model.compile(k.optimizers.SGD(0.05, momentum=0.9), "mse", metrics=["mae"])
    model(X[:4])
    return model, X, Y


def attention_in_operations(k: Any) -> tuple[Any, Any, Any]:
    words = k.Input((5,), dtype="int32")
    x = k.layers.Embedding(20, 8)(words)
    q, v = k.layers.Dense(8)(x), k.layers.Dense(8)(x)
    scores = k.ops.softmax(q @ k.ops.transpose(x, (0, 2, 1)) / 8**0.5, axis=-1)
    mixed = k.ops.concatenate([k.ops.matmul(scores, v), x * 2.0 - 1.0], axis=-1)
    pooled = k.ops.mean(mixed, axis=1) + k.ops.max(mixed[:, 1:, :], axis=1)
    model = k.Model(words, k.layers.Dense(2)(k.ops.where(pooled > 0, pooled, 0.1 * pooled)))
    model.compile("adam", "mse")
    return model, WORDS, Y


def two_outputs(k: Any) -> tuple[Any, Any, Any]:
    left, right = k.Input((6,), name="left"), k.Input((6,), name="right")
    shared = k.layers.Dense(5, activation="relu", kernel_regularizer=k.regularizers.L1L2(0.01, 0.02))
    both = k.layers.Concatenate()([shared(left), shared(right)])
    outputs = {
        "p": k.layers.Dense(2, name="p")(both),
        "q": k.layers.Dense(1, name="q", kernel_constraint="unit_norm")(both),
    }
    model = k.Model({"left": left, "right": right}, outputs)
    model.compile(
        k.optimizers.Adam(k.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)),
        loss={"p": "mse", "q": k.losses.Huber(0.5)},
        loss_weights={"p": 1.0, "q": 0.3},
        metrics={"p": ["mae"], "q": ["mse"]},
        weighted_metrics={"q": ["mae"]},
    )
    return model, {"left": X, "right": X[::-1].copy()}, {"p": Y, "q": Y[:, :1]}


Program = Callable[[Any], tuple[Any, Any, Any]]
PROGRAMS: list[Program] = [layer_with_loss_and_metric, subclass, attention_in_operations, two_outputs]


def pair(program: Program) -> tuple[Any, Any, Any, Any]:
    """The model of a program in Keras and here, with the same weights, and its data."""
    theirs, x, y = program(keras)
    ours, _, _ = program(kcompile)
    ours.set_weights([np.asarray(weight) for weight in theirs.get_weights()])
    return theirs, ours, x, y


def assert_same_logs(theirs: Any, ours: Any) -> None:
    assert sorted(theirs) == sorted(ours)
    for name in theirs:
        assert np.allclose(theirs[name], ours[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_trains_to_the_same_numbers(program: Program) -> None:
    theirs, ours, x, y = pair(program)
    options: dict[str, Any] = {"epochs": 4, "batch_size": 8, "shuffle": False, "verbose": 0}
    assert_same_logs(theirs.fit(x, y, **options).history, ours.fit(x, y, **options).history)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        assert np.allclose(a, b, rtol=1e-3, atol=1e-5)
    found, expected = ours.predict(x), theirs.predict(x, verbose=0)
    for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        assert np.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_files_go_both_ways(program: Program, tmp_path: Path) -> None:
    theirs, ours, x, y = pair(program)
    options: dict[str, Any] = {"batch_size": 8, "shuffle": False, "verbose": 0}
    theirs.fit(x, y, **options)
    custom = {} if program is not layer_with_loss_and_metric else {"first": lambda a, b: abs(a[:, 0] - b[:, 0])}
    theirs.save(tmp_path / "theirs.keras")
    loaded = kcompile.load_model(tmp_path / "theirs.keras", custom_objects=custom)
    assert_close(loaded.predict(x), theirs.predict(x, verbose=0))
    loaded.save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
    ours.fit(x, y, **options)
    if not custom:
        ours.save(tmp_path / "ours.keras")
        again = keras.models.load_model(tmp_path / "ours.keras")
        assert_close(ours.predict(x), again.predict(x, verbose=0))
        assert_same_logs(again.fit(x, y, **options).history, ours.fit(x, y, **options).history)


def assert_close(found: Any, expected: Any) -> None:
    for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        assert np.allclose(a, b, atol=1e-5)


def classifier(k: Any) -> Any:
    model = k.Sequential([k.Input((6,)), k.layers.Dense(8, activation="relu"), k.layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
    return model


LABELS = RNG.integers(0, 3, size=32)
WEIGHTS = RNG.random(32).astype("float32")


def batches(size: int) -> Any:
    while True:
        for i in range(0, 32, size):
            yield X[i : i + size], LABELS[i : i + size]


def weighted_batches(size: int) -> Any:
    for _, i in enumerate(range(0, 32, size)):
        yield X[i : i + size], LABELS[i : i + size], WEIGHTS[i : i + size]


def dataset(k: Any) -> Any:
    class Rows(k.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return X[index * 8 : index * 8 + 8], LABELS[index * 8 : index * 8 + 8]

    return Rows()


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "validation_split": lambda k, m: m.fit(X, LABELS, validation_split=0.25, epochs=2, shuffle=False, verbose=0),
    "validation_data": lambda k, m: m.fit(
        X, LABELS, validation_data=(X[:8], LABELS[:8], WEIGHTS[:8]), epochs=2, shuffle=False, verbose=0
    ),
    "class_weight": lambda k, m: m.fit(X, LABELS, class_weight={0: 1.0, 1: 2.0, 2: 0.5}, shuffle=False, verbose=0),
    "sample_weight": lambda k, m: m.fit(X, LABELS, sample_weight=WEIGHTS, epochs=2, shuffle=False, verbose=0),
    "initial_epoch": lambda k, m: m.fit(X, LABELS, initial_epoch=2, epochs=5, shuffle=False, verbose=0),
    "steps_per_epoch": lambda k, m: m.fit(batches(8), steps_per_epoch=3, epochs=3, verbose=0),
    "generator with weights": lambda k, m: m.fit(weighted_batches(8), verbose=0),
    "dataset": lambda k, m: m.fit(dataset(k), epochs=2, shuffle=False, validation_data=dataset(k), verbose=0),
    "column of labels": lambda k, m: m.fit(X, LABELS[:, None], shuffle=False, verbose=0),
    "validation_freq": lambda k, m: m.fit(
        X, LABELS, validation_split=0.5, validation_freq=2, epochs=4, shuffle=False, verbose=0
    ),
    "validation_steps": lambda k, m: m.fit(
        X, LABELS, validation_data=batches(4), validation_steps=2, shuffle=False, verbose=0
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_give_data_gives_the_same_logs(way: str) -> None:
    theirs, ours = classifier(keras), classifier(kcompile)
    ours.set_weights(theirs.get_weights())
    found, expected = WAYS[way](kcompile, ours), WAYS[way](keras, theirs)
    assert_same_logs(expected.history, found.history)
    assert expected.epoch == found.epoch


def test_single_batches_give_the_same_numbers() -> None:
    theirs, ours = classifier(keras), classifier(kcompile)
    ours.set_weights(theirs.get_weights())
    for model in (theirs, ours):
        model.reset_metrics()
    for options in ({}, {"sample_weight": WEIGHTS}, {"class_weight": {0: 2.0}}):
        found = ours.train_on_batch(X, LABELS, **options, return_dict=True)
        expected = theirs.train_on_batch(X, LABELS, **options, return_dict=True)
        assert np.isclose(found["loss"], expected["loss"], rtol=1e-4), options
    assert np.allclose(ours.predict_on_batch(X), theirs.predict_on_batch(X), atol=1e-5)
    found = ours.evaluate(X, LABELS, sample_weight=WEIGHTS, verbose=0)
    assert np.allclose(found, theirs.evaluate(X, LABELS, sample_weight=WEIGHTS, verbose=0), rtol=1e-4)


def accuracy_on_digits(k: Any, seed: int) -> float:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16).reshape(-1, 8, 8, 1).astype("float32"), labels[order]
    k.utils.set_random_seed(seed)
    model = k.Sequential(
        [
            k.Input((8, 8, 1)),
            k.layers.Conv2D(16, 3, activation="relu"),
            k.layers.MaxPooling2D(),
            k.layers.Flatten(),
            k.layers.Dropout(0.2),
            k.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images[:1400], labels[:1400], epochs=6, verbose=0)
    return float(model.evaluate(images[1400:], labels[1400:], verbose=0)[1])


def test_digits_are_learnt_as_well_as_by_keras() -> None:
    theirs = [accuracy_on_digits(keras, seed) for seed in range(5)]
    ours = [accuracy_on_digits(kcompile, seed) for seed in range(5)]
    noise = np.sqrt((np.var(theirs, ddof=1) + np.var(ours, ddof=1)) / 5)
    assert abs(np.mean(ours) - np.mean(theirs)) < 3 * noise + 0.005, (theirs, ours)
    assert min(ours) > 0.8
