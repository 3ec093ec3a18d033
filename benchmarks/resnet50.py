"""ResNet50 with random weights, as `keras.applications.ResNet50(weights=None)` builds it: 25.6 million parameters.

He et al. 2015, arXiv:1512.03385.
"""

from typing import Any

import numpy as np

import kcompile
from kcompile import layers

# Filters and numbers of blocks of the four stages.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def build(seed: int = 0) -> kcompile.Model:
    """The model; normalizations have statistics and weights other than those they start with."""
    image = kcompile.Input((224, 224, 3), name="image")
    x = layers.ZeroPadding2D(3)(image)
    x = _normalized(layers.Conv2D(64, 7, strides=2)(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage, (filters, blocks) in enumerate(STAGES):
        x = _block(x, filters, strides=1 if stage == 0 else 2, projects=True)
        for _ in range(blocks - 1):
            x = _block(x, filters, strides=1, projects=False)
    x = layers.GlobalAveragePooling2D()(x)
    model = kcompile.Model(image, layers.Dense(1000, activation="softmax", name="probabilities")(x), name="resnet50")
    _spread(model, np.random.default_rng(seed))
    return model


def _normalized(x: Any, activation: str = "relu") -> Any:
    x = layers.BatchNormalization(epsilon=1.001e-5)(x)
    return layers.Activation(activation)(x) if activation else x


def _block(x: Any, filters: int, strides: int, projects: bool) -> Any:
    shortcut = _normalized(layers.Conv2D(4 * filters, 1, strides=strides)(x), "") if projects else x
    y = _normalized(layers.Conv2D(filters, 1, strides=strides)(x))
    y = _normalized(layers.Conv2D(filters, 3, padding="same")(y))
    y = _normalized(layers.Conv2D(4 * filters, 1)(y), "")
    return layers.Activation("relu")(layers.Add()([shortcut, y]))


def _spread(model: kcompile.Model, rng: np.random.Generator) -> None:
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(rng.uniform(0.5, 1.0, weight.shape))
