"""Programs as Keras's users write them run with kcompile in the place of Keras, down to both targets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import kcompile as keras
from kcompile import layers, models


def test_the_cnn_of_the_cifar_tutorial() -> None:
    rng = np.random.default_rng(0)
    train_images = rng.integers(0, 256, size=(64, 32, 32, 3)) / 255.0
    train_labels = rng.integers(0, 10, size=(64, 1))

    model = models.Sequential()
    model.add(layers.Conv2D(32, (3, 3), activation="relu", input_shape=(32, 32, 3)))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Conv2D(64, (3, 3), activation="relu"))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Conv2D(64, (3, 3), activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(10))
    model.summary(print_fn=lambda text: None)
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    data = (train_images[48:], train_labels[48:])
    history = model.fit(train_images[:48], train_labels[:48], epochs=2, validation_data=data, verbose=0)
    test_loss, test_acc = model.evaluate(train_images[48:], train_labels[48:], verbose=2)

    assert model.count_params() == 122_570
    assert sorted(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert np.isclose(test_loss, history.history["val_loss"][-1], rtol=1e-5)
    assert 0 <= test_acc <= 1


def test_two_inputs_with_a_shared_layer() -> None:
    rng = np.random.default_rng(0)
    shared = keras.layers.Dense(16, activation="relu", name="shared")
    input_a = keras.layers.Input(shape=(8,), name="a")
    input_b = keras.Input(shape=(8,), name="b")
    merged = keras.layers.Concatenate()([shared(input_a), shared(input_b)])
    merged = keras.layers.concatenate([merged, input_a])
    output = keras.layers.Dense(1, activation="sigmoid")(merged)
    model = keras.models.Model(inputs=[input_a, input_b], outputs=output)
    model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.01), loss="binary_crossentropy", metrics=["accuracy"])

    a, b = rng.normal(size=(2, 128, 8))
    y = (a[:, 0] > b[:, 0]).astype("float32")
    history = model.fit([a, b], y, epochs=30, batch_size=16, verbose=0)
    assert history.history["accuracy"][-1] > 0.9
    assert len(model.trainable_weights) == 4
    assert np.array_equal(model.predict([a, b]), model.predict({"a": a, "b": b}))


def test_the_three_layers_and_their_summary(capsys: pytest.CaptureFixture[str]) -> None:
    from kcompile.models import Sequential
    from kcompile.utils import to_categorical

    keras.utils.set_random_seed(1)
    x_train = np.random.random((100, 20))
    y_train = to_categorical(np.random.randint(10, size=(100, 1)), num_classes=10)
    model = Sequential()
    model.add(layers.Dense(64, activation="relu", input_dim=20, name="first"))
    model.add(layers.Dropout(0.5, name="drop"))
    model.add(layers.Dense(64, activation="relu", name="second"))
    model.add(layers.Dense(10, activation="softmax", name="third"))
    model.summary(line_length=80)
    model.compile(
        loss="categorical_crossentropy",
        optimizer=keras.optimizers.SGD(learning_rate=0.01, momentum=0.9, nesterov=True),
        metrics=["accuracy"],
    )
    model.fit(x_train, y_train, epochs=2, batch_size=32, verbose=0)
    score = model.evaluate(x_train, y_train, batch_size=32, verbose=0)

    printed = capsys.readouterr().out
    assert "│ first (Dense) " in printed
    assert "(None, 64)" in printed
    assert " Total params: 6,154 (24.04 KB)" in printed
    assert len(score) == 2


def digits() -> tuple[Any, Any, Any, Any]:
    """Training and test images of handwritten digits, and their labels."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16).reshape(-1, 8, 8, 1).astype("float32"), labels[order]
    return images[:1400], labels[:1400], images[1400:], labels[1400:]


def test_a_cnn_learns_digits_and_scores_the_same_on_both_targets(tmp_path: Path) -> None:
    x_train, y_train, x_test, y_test = digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=12, verbose=0)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    assert accuracy > 0.9
    expected = model.predict(x_test).argmax(-1)
    for target, name in (("onnx", "m.onnx"), ("tvm", "m.kcb")):
        artifact = keras.compile(model, target, tmp_path / name)
        assert np.array_equal(keras.load(artifact).predict(x_test).argmax(-1), expected)


def test_a_frozen_model_gets_a_new_head(tmp_path: Path) -> None:
    x_train, y_train, _, _ = digits()
    base = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()])
    base.save(tmp_path / "base.keras")

    loaded = keras.models.load_model(tmp_path / "base.keras")
    loaded.trainable = False
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(loaded(inputs, training=False)))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = loaded.get_weights()
    history = model.fit(x_train, y_train, epochs=5, verbose=0)
    assert history.history["accuracy"][-1] > 0.85
    assert all(np.array_equal(a, b) for a, b in zip(before, loaded.get_weights(), strict=True))
    loaded.trainable = True
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, verbose=0)
    assert not any(np.array_equal(a, b) for a, b in zip(before, loaded.get_weights(), strict=True))


def test_an_lstm_learns_a_series() -> None:
    keras.utils.set_random_seed(0)
    series = np.sin(np.arange(600) / 8).astype("float32")[:, None]
    windows = keras.utils.timeseries_dataset_from_array(series[:-1], series[20:], sequence_length=20, batch_size=64)
    model = keras.Sequential([keras.Input((20, 1)), layers.LSTM(16), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    history = model.fit(windows, epochs=12, verbose=0)
    assert history.history["loss"][-1] < 0.02
