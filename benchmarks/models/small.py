"""Small models: a multilayer perceptron, a convolutional network, recurrent networks and a transformer encoder."""

import kcompile
from benchmarks.models.weights import spread
from kcompile import layers


def mlp() -> kcompile.Model:
    """784-64-64-10."""
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")]
    return spread(kcompile.Sequential([kcompile.Input((784,)), *hidden, layers.Dense(10, activation="softmax")]))


def cifar_cnn() -> kcompile.Model:
    """32 x 32 images: two convolutions of 32 filters, two of 64, pooling after each pair."""
    image = x = kcompile.Input((32, 32, 3))
    for filters in (32, 64):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    return spread(kcompile.Model(image, layers.Dense(10, activation="softmax")(x)))


def lstm() -> kcompile.Model:
    """Two layers of 64 units over 50 steps of 32 features."""
    recurrent = [layers.LSTM(64, return_sequences=True), layers.LSTM(64)]
    return spread(kcompile.Sequential([kcompile.Input((50, 32)), *recurrent, layers.Dense(10)]))


def gru() -> kcompile.Model:
    """64 units over 96 steps of 8 features."""
    return spread(kcompile.Sequential([kcompile.Input((96, 8)), layers.GRU(64), layers.Dense(10)]))


def encoder() -> kcompile.Model:
    """Two transformer blocks, normalization after each sum: 64 tokens of 128 features, 4 heads, exact gelu."""
    x = inputs = kcompile.Input((64, 128))
    for _ in range(2):
        attended = layers.MultiHeadAttention(4, 32)(x, x)
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, attended]))
        hidden = layers.Dense(128)(layers.Dense(512, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, hidden]))
    return spread(kcompile.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x))))
