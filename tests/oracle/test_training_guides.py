"""Programs as Keras's guides and examples have them, run by Keras and here: the same losses, predictions and files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kcompile

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(1)
IMAGES = RNG.normal(size=(16, 16, 16, 3)).astype("float32")
WORDS = RNG.integers(0, 30, (16, 12))
SERIES = RNG.normal(size=(16, 24, 2)).astype("float32")
LABELS = RNG.integers(0, 4, 16)
SIGNS = RNG.integers(0, 2, (16, 1)).astype("float32")
STEPS = np.eye(6, dtype="float32")[RNG.integers(0, 6, (16, 5))]
LETTERS = RNG.integers(1, 6, (16, 3))


def tickets(k: Any) -> tuple[Any, Any, Any]:
    title, tags = k.Input((None,), name="title"), k.Input((2,), name="tags")
    x = k.layers.concatenate([k.layers.LSTM(6)(k.layers.Embedding(30, 5)(title)), tags])
    outputs = {"priority": k.layers.Dense(1, name="priority")(x), "department": k.layers.Dense(4, name="department")(x)}
    model = k.Model([title, tags], outputs)
    model.compile(
        k.optimizers.RMSprop(1e-3),
        loss={
            "priority": k.losses.BinaryCrossentropy(from_logits=True),
            "department": k.losses.SparseCategoricalCrossentropy(from_logits=True),
        },
        loss_weights={"priority": 1.0, "department": 0.2},
    )
    return model, {"title": WORDS.astype("float32"), "tags": SERIES[:, 0]}, {"priority": SIGNS, "department": LABELS}


def transformer(k: Any) -> tuple[Any, Any, Any]:
    @k.saving.register_keras_serializable(package="guides")
    class Block(k.layers.Layer):
        def __init__(self, width: int, heads: int, **options: Any) -> None:
            super().__init__(**options)
            self.width, self.heads = width, heads
            self.attend = k.layers.MultiHeadAttention(num_heads=heads, key_dim=width)
            self.inner = k.Sequential([k.layers.Dense(8, activation="relu"), k.layers.Dense(width)])
            self.norms = [k.layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]

        def call(self, x: Any) -> Any:
            x = self.norms[0](x + self.attend(x, x))
            return self.norms[1](x + self.inner(x))

        def get_config(self) -> dict[str, Any]:
            return super().get_config() | {"width": self.width, "heads": self.heads}

    @k.saving.register_keras_serializable(package="guides")
    class Positions(k.layers.Layer):
        def __init__(self, length: int, words: int, width: int, **options: Any) -> None:
            super().__init__(**options)
            self.sizes = {"length": length, "words": words, "width": width}
            self.tokens, self.places = k.layers.Embedding(words, width), k.layers.Embedding(length, width)

        def call(self, x: Any) -> Any:
            places = k.ops.arange(start=0, stop=k.ops.shape(x)[-1], step=1)
            return self.tokens(x) + self.places(places)

        def get_config(self) -> dict[str, Any]:
            return super().get_config() | self.sizes

    words = k.Input((12,))
    x = k.layers.GlobalAveragePooling1D()(Block(6, 2)(Positions(12, 30, 6)(words)))
    model = k.Model(words, k.layers.Dense(4, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, WORDS.astype("float32"), LABELS


def u_net(k: Any) -> tuple[Any, Any, Any]:
    inputs = k.Input((16, 16, 3))
    x = previous = k.layers.Activation("relu")(k.layers.Conv2D(4, 3, strides=2, padding="same")(inputs))
    x = k.layers.SeparableConv2D(6, 3, padding="same")(k.layers.Activation("relu")(x))
    x = k.layers.MaxPooling2D(3, strides=2, padding="same")(k.layers.LayerNormalization()(x))
    x = previous = k.layers.add([x, k.layers.Conv2D(6, 1, strides=2, padding="same")(previous)])
    for filters in (6, 4):
        x = k.layers.Conv2DTranspose(filters, 3, padding="same")(k.layers.Activation("relu")(x))
        x = k.layers.UpSampling2D(2)(x)
        side = k.layers.Conv2D(filters, 1, padding="same")(k.layers.UpSampling2D(2)(previous))
        x = previous = k.layers.add([x, side])
    model = k.Model(inputs, k.layers.Conv2D(4, 3, activation="softmax", padding="same")(x))
    model.compile(k.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    return model, IMAGES, (IMAGES[..., :1] > 0).astype("int32")


def siamese(k: Any) -> tuple[Any, Any, Any]:
    @k.saving.register_keras_serializable(package="guides")
    def distance(vectors: Any) -> Any:
        a, b = vectors
        squares = k.ops.sum(k.ops.square(a - b), axis=1, keepdims=True)
        return k.ops.sqrt(k.ops.maximum(squares, k.backend.epsilon()))

    @k.saving.register_keras_serializable(package="guides")
    def contrastive(y_true: Any, y_pred: Any) -> Any:
        apart = k.ops.square(k.ops.maximum(1 - y_pred, 0))
        return k.ops.mean((1 - y_true) * k.ops.square(y_pred) + y_true * apart)

    inputs = k.Input((16, 16, 3))
    x = k.layers.AveragePooling2D(2)(k.layers.Conv2D(3, 5, activation="tanh")(inputs))
    tower = k.Model(inputs, k.layers.Dense(5, activation="tanh")(k.layers.Flatten()(x)))
    left, right = k.Input((16, 16, 3)), k.Input((16, 16, 3))
    merged = k.layers.Lambda(distance, output_shape=(1,))([tower(left), tower(right)])
    model = k.Model([left, right], k.layers.Dense(1, activation="sigmoid")(merged))
    model.compile("rmsprop", contrastive, metrics=["accuracy"])
    return model, [IMAGES, IMAGES[::-1].copy()], SIGNS


def sequence_to_sequence(k: Any) -> tuple[Any, Any, Any]:
    source, target = k.Input((None, 2)), k.Input((None, 6))
    _, *states = k.layers.LSTM(7, return_state=True)(source)
    steps, _, _ = k.layers.LSTM(7, return_sequences=True, return_state=True)(target, initial_state=states)
    model = k.Model([source, target], k.layers.Dense(6, activation="softmax")(steps))
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    return model, [SERIES, STEPS], STEPS[:, ::-1].copy()


def ctc(k: Any) -> tuple[Any, Any, Any]:
    inputs = k.Input((24, 2))
    x = k.layers.Bidirectional(k.layers.LSTM(5, return_sequences=True))(k.layers.Conv1D(6, 3, padding="same")(inputs))
    model = k.Model(inputs, k.layers.Dense(7)(x))
    model.compile(k.optimizers.Adam(), loss=k.losses.CTC())
    return model, SERIES, LETTERS


def fine_tuning(k: Any) -> tuple[Any, Any, Any]:
    base = k.Sequential([k.Input((16, 16, 3)), k.layers.Conv2D(3, 3), k.layers.BatchNormalization()], name="base")
    base.trainable = False
    inputs = k.Input((16, 16, 3))
    x = base(k.layers.Rescaling(scale=1 / 2.0, offset=-0.1)(inputs), training=False)
    model = k.Model(inputs, k.layers.Dense(1)(k.layers.GlobalMaxPooling2D()(x)))
    base.trainable = True
    loss = k.losses.BinaryCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(1e-2), loss, metrics=[k.metrics.BinaryAccuracy()])
    return model, IMAGES, SIGNS


def true_positives(k: Any) -> tuple[Any, Any, Any]:
    @k.saving.register_keras_serializable(package="guides")
    class TruePositives(k.metrics.Metric):
        def __init__(self, name: str = "true_positives", **options: Any) -> None:
            super().__init__(name=name, **options)
            self.found = self.add_variable(shape=(), name="found", initializer="zeros")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            y_pred = k.ops.reshape(k.ops.argmax(y_pred, axis=1), (-1, 1))
            values = k.ops.cast(y_true, "int32") == k.ops.cast(y_pred, "int32")
            self.found.assign_add(k.ops.sum(k.ops.cast(values, "float32")))

        def result(self) -> Any:
            return self.found.value

        def reset_state(self) -> None:
            self.found.assign(0)

    inputs = k.Input((2,), name="digits")
    model = k.Model(inputs, k.layers.Dense(4, activation="softmax", name="predictions")(inputs))
    model.compile(k.optimizers.RMSprop(1e-3), k.losses.SparseCategoricalCrossentropy(), metrics=[TruePositives()])
    return model, SERIES[:, 0], LABELS


def variational(k: Any) -> tuple[Any, Any, Any]:
    @k.saving.register_keras_serializable(package="guides")
    class Encoder(k.layers.Layer):
        def __init__(self, width: int = 3, **options: Any) -> None:
            super().__init__(**options)
            self.inner = k.layers.Dense(5, activation="relu")
            self.mean, self.log_variance = k.layers.Dense(width), k.layers.Dense(width)

        def call(self, x: Any) -> Any:
            x = self.inner(x)
            return self.mean(x), self.log_variance(x)

    @k.saving.register_keras_serializable(package="guides")
    class AutoEncoder(k.Model):
        def __init__(self, extent: int = 2, name: str = "autoencoder", **options: Any) -> None:
            super().__init__(name=name, **options)
            self.encoder, self.decoder = Encoder(), k.layers.Dense(extent, activation="sigmoid")

        def call(self, inputs: Any) -> Any:
            mean, log_variance = self.encoder(inputs)
            spread = log_variance - k.ops.square(mean) - k.ops.exp(log_variance) + 1
            self.add_loss(-0.5 * k.ops.mean(spread))
            return self.decoder(mean)

    model = AutoEncoder()
    model.compile(k.optimizers.Adam(1e-3), loss=k.losses.MeanSquaredError())
    model(SERIES[:2, 0])
    return model, SERIES[:, 0], np.abs(SERIES[:, 1])


def spectral(k: Any) -> tuple[Any, Any, Any]:
    inputs = k.Input((16, 16, 3))
    x = k.layers.SpectralNormalization(k.layers.Conv2D(3, 3), power_iterations=2)(inputs)
    x = k.layers.SpectralNormalization(k.layers.Dense(4))(k.layers.GlobalMaxPooling2D()(x))
    model = k.Model(inputs, k.layers.Dense(1)(x))
    model.compile(k.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model, IMAGES, SIGNS


Program = Callable[[Any], tuple[Any, Any, Any]]
PROGRAMS: list[Program] = [
    tickets,
    transformer,
    u_net,
    siamese,
    sequence_to_sequence,
    ctc,
    fine_tuning,
    true_positives,
    variational,
    spectral,
]


def assert_close(found: Any, expected: Any, relative: float = 1e-5) -> None:
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=relative, atol=relative)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_of_the_guides_gives_the_same_numbers_and_files(program: Program, tmp_path: Path) -> None:
    theirs, x, y = program(keras)
    ours, _, _ = program(kcompile)
    ours.set_weights(theirs.get_weights())
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "shuffle": False, "verbose": 0}
    expected, found = theirs.fit(x, y, **options).history, ours.fit(x, y, **options).history
    assert list(found) == list(expected)
    assert_close(found, expected)
    assert_close(ours.evaluate(x, y, verbose=0), theirs.evaluate(x, y, verbose=0))
    predicted = theirs.predict(x, verbose=0)
    assert_close(ours.predict(x), predicted, 1e-4)
    theirs.save(tmp_path / "theirs.keras")
    assert_close(kcompile.load_model(tmp_path / "theirs.keras").predict(x), predicted, 1e-4)
    ours.save(tmp_path / "ours.keras")
    assert_close(keras.models.load_model(tmp_path / "ours.keras").predict(x, verbose=0), predicted, 1e-4)


def test_a_model_that_keras_built_from_a_batch_takes_other_numbers_of_samples(tmp_path: Path) -> None:
    theirs = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1)])
    theirs.compile("sgd", "mse")
    theirs.fit(SERIES[:, 0], SIGNS, batch_size=8, verbose=0)
    theirs.save(tmp_path / "m.keras")
    ours = kcompile.load_model(tmp_path / "m.keras")
    assert_close(ours.predict(SERIES[:5, 0]), theirs.predict(SERIES[:5, 0], verbose=0))
    options: dict[str, Any] = {"batch_size": 6, "shuffle": False, "verbose": 0}
    expected = theirs.fit(SERIES[:, 0], SIGNS, **options).history
    assert_close(ours.fit(SERIES[:, 0], SIGNS, **options).history, expected)
