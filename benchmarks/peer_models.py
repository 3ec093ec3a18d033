"""Keras models that compilers are compared on, and tf2onnx's files of them.

Runs in the peers' environment, which has TensorFlow. ``python benchmarks/peer_models.py FOLDER [NAME ...]`` writes
``NAME.keras`` and ``NAME.onnx`` for each, and why it could not to ``failures.json``.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers

# The newest that tf2onnx 1.17 writes.
OPSET = 18


def dense() -> keras.Model:
    """A classifier of 64 numbers."""
    hidden = [layers.Dense(256, activation="relu"), layers.Dense(256, activation="relu")]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10, activation="softmax")])


def small_cnn() -> keras.Model:
    """Digits: convolutions, batch normalization, pooling."""
    blocks: list[Any] = []
    for filters in (32, 64):
        blocks += [layers.Conv2D(filters, 3, padding="same", use_bias=False), layers.BatchNormalization()]
        blocks += [layers.Activation("relu"), layers.MaxPooling2D()]
    return keras.Sequential(
        [keras.Input((28, 28, 1)), *blocks, layers.Flatten(), layers.Dense(10, activation="softmax")]
    )


def residual() -> keras.Model:
    """Four residual blocks on 32 x 32 images."""
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(32, 3, padding="same")(x)
    for _ in range(4):
        y = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(x))
        y = layers.Conv2D(32, 3, padding="same")(layers.Activation("relu")(y))
        x = layers.Activation("relu")(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def conv_gru() -> keras.Model:
    """Signals: strided convolutions, then a GRU."""
    first = [layers.Conv1D(32, 7, strides=2, padding="same", activation="relu"), layers.MaxPooling1D(2)]
    second = [layers.Conv1D(64, 5, padding="same", activation="relu"), layers.GRU(64), layers.Dense(5)]
    return keras.Sequential([keras.Input((256, 6)), *first, *second])


def lstm_stack() -> keras.Model:
    """Two LSTMs over 64 steps."""
    first, second = layers.LSTM(128, return_sequences=True), layers.LSTM(128)
    return keras.Sequential([keras.Input((64, 64)), first, second, layers.Dense(10)])


def bidirectional() -> keras.Model:
    """A bidirectional LSTM and a bidirectional GRU."""
    first = layers.Bidirectional(layers.LSTM(64, return_sequences=True))
    second = layers.Bidirectional(layers.GRU(32))
    return keras.Sequential([keras.Input((64, 32)), first, second, layers.Dense(10)])


def masked_lstm() -> keras.Model:
    """Token numbers, 0 for padding, through an embedding into an LSTM."""
    tokens = keras.Input((64,), dtype="int32")
    x = layers.Embedding(1000, 64, mask_zero=True)(tokens)
    return keras.Model(tokens, layers.Dense(2, activation="softmax")(layers.LSTM(64)(x)))


def encoder(activation: str = "relu") -> keras.Model:
    """Two transformer encoder blocks: 64 tokens of 128 features, 4 heads."""
    x = inputs = keras.Input((64, 128))
    for _ in range(2):
        attended = layers.MultiHeadAttention(4, 32)(x, x)
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, attended]))
        hidden = layers.Dense(128)(layers.Dense(512, activation=activation)(x))
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, hidden]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def encoder_gelu() -> keras.Model:
    """The same with Keras's exact gelu."""
    return encoder("gelu")


def mobilenet_v2() -> keras.Model:
    """MobileNetV2 at 224 x 224, untrained."""
    return keras.applications.MobileNetV2(weights=None)


def resnet50() -> keras.Model:
    """ResNet50 at 224 x 224, untrained."""
    return keras.applications.ResNet50(weights=None)


def efficientnet_b0() -> keras.Model:
    """EfficientNetB0 at 224 x 224, untrained."""
    return keras.applications.EfficientNetB0(weights=None)


MODELS: tuple[Callable[[], keras.Model], ...] = (
    *(dense, small_cnn, residual, conv_gru, lstm_stack, bidirectional, masked_lstm, encoder, encoder_gelu),
    *(mobilenet_v2, resnet50, efficientnet_b0),
)


def export(model: keras.Model, path: Path) -> None:
    """Write tf2onnx's file of a model; `from_keras` does not know Keras 3, `from_function` needs not to."""
    signature = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in model.inputs]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    onnx.save(converted, path)


def fill(model: keras.Model) -> None:
    """Give weights that start at zero, biases and moving means, numbers; else a compiler could leave them out."""
    for weight in model.weights:
        if not np.any(weight.numpy()):
            weight.assign(np.random.uniform(-0.1, 0.1, weight.shape))
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
            # tf2onnx makes inputs of tensors that a function captures.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)


def main(folder: Path, names: list[str]) -> None:
    """Write the models that are asked for and not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    failures: dict[str, str] = {}
    for build in MODELS:
        name = build.__name__
        if (names and name not in names) or (folder / f"{name}.onnx").exists():
            continue
        keras.utils.set_random_seed(1)
        model = build()
        fill(model)
        model.save(folder / f"{name}.keras")
        try:
            export(model, folder / f"{name}.onnx")
        except Exception as error:  # noqa: BLE001 -- whatever the peer raises is its result
            failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        print(f"{name}: {failures.get(name, 'written')}")
    (folder / "failures.json").write_text(json.dumps(failures, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
