"""Small models of every family that the edge tests run on every machine, with weights that never change."""

from collections.abc import Callable
from typing import Any

import numpy as np

import kcompile
from kcompile import layers


def mlp() -> Any:
    return kcompile.Sequential(
        [
            kcompile.Input((784,), name="image"),
            layers.Dense(64, activation="relu", name="first"),
            layers.Dense(64, activation="relu", name="second"),
            layers.Dense(10, activation="softmax", name="scores"),
        ],
        name="mlp",
    )


def cnn() -> Any:
    return kcompile.Sequential(
        [
            kcompile.Input((16, 16, 3), name="image"),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="scores"),
        ],
        name="cnn",
    )


def mobilenet_block() -> Any:
    image = kcompile.Input((12, 12, 8), name="image")
    x = layers.Conv2D(24, 1, use_bias=False)(image)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(x))
    x = layers.Add()([image, x])
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    return kcompile.Model(image, layers.GlobalAveragePooling2D(name="scores")(x), name="mobilenet_block")


def lstm() -> Any:
    return kcompile.Sequential(
        [
            kcompile.Input((10, 6), name="steps"),
            layers.LSTM(16, return_sequences=True),
            layers.LSTM(12),
            layers.Dense(3, activation="sigmoid", name="scores"),
        ],
        name="lstm",
    )


def gru() -> Any:
    tokens = kcompile.Input((12,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 8)(tokens)
    return kcompile.Model(tokens, layers.Dense(4, name="scores")(layers.GRU(20)(x)), name="gru")


def transformer() -> Any:
    x = tokens = kcompile.Input((16, 24), name="tokens")
    attended = layers.MultiHeadAttention(num_heads=2, key_dim=12)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    hidden = layers.Dense(24)(layers.Dense(48, activation="gelu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, hidden]))
    return kcompile.Model(
        tokens, layers.Dense(3, name="scores")(layers.GlobalAveragePooling1D()(x)), name="transformer"
    )


def vgg() -> Any:
    """First layers of which only bands fit into little memory."""
    wide = [kcompile.Input((32, 32, 3), name="image")]
    for filters in (16, 24):
        wide += [layers.Conv2D(filters, 3, padding="same", activation="relu")]
        wide += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    return kcompile.Sequential([*wide, layers.Flatten(), layers.Dense(10, name="scores")], name="vgg")


def mobilenet() -> Any:
    """Inverted residuals, the first of them in bands."""
    image = kcompile.Input((48, 48, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    for filters, strides in ((8, 1), (12, 2), (12, 1), (16, 2)):
        y = layers.Conv2D(4 * int(x.shape[-1]), 1, activation="relu6")(x)
        y = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(y)
        y = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(y))
        x = layers.Add()([x, y]) if x.shape == y.shape else y
    return kcompile.Model(image, layers.Dense(5, name="scores")(layers.GlobalAveragePooling2D()(x)), name="mobilenet")


MODELS: dict[str, Callable[[], Any]] = {
    make.__name__: make for make in (mlp, cnn, mobilenet_block, lstm, gru, transformer)
}

# Models whose first layers run in bands where memory is scarce.
IN_BANDS: dict[str, Callable[[], Any]] = {make.__name__: make for make in (vgg, mobilenet)}


def build(name: str) -> Any:
    """The model called `name`, with seeded weights; none is zero or one throughout, as biases and norms would be."""
    model = (MODELS | IN_BANDS)[name]()
    rng = np.random.default_rng(7)
    model.set_weights([_weights(rng, w) for w in model.get_weights()])
    return model


def _weights(rng: np.random.Generator, like: Any) -> Any:
    scale = 1.0 / np.sqrt(max(like.shape[0], 1)) if like.ndim > 1 else 0.3
    drawn = rng.standard_normal(like.shape) * scale
    # Variances must be positive, and it does a scale no harm.
    return (np.abs(drawn) + 0.5 if like.ndim == 1 else drawn).astype(like.dtype)
