"""Networks for images of 224 x 224, as `keras.applications` builds them with ``weights=None``."""

from typing import Any

import kcompile
from benchmarks.models.weights import spread
from kcompile import layers


def _divisible(filters: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below `filters`."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * filters else rounded + 8


def _corrected(extent: int, kernel: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding of a strided convolution, as Keras's models have it."""
    half = kernel // 2
    return ((half - (1 - extent % 2), half),) * 2


def _normal(x: Any, activation: str = "", epsilon: float = 1e-3) -> Any:
    x = layers.BatchNormalization(epsilon=epsilon)(x)
    return layers.Activation(activation)(x) if activation else x


def _strided(x: Any, kernel: int, strides: int) -> Any:
    """`x` padded for a strided depthwise convolution, and the convolution's padding."""
    if strides == 1:
        return x, "same"
    return layers.ZeroPadding2D(_corrected(x.shape[1], kernel))(x), "valid"


def mobilenet_v2() -> kcompile.Model:
    """MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""
    # Expansion, filters, blocks and strides of each stage.
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    image = kcompile.Input((224, 224, 3))
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.ReLU(6.0)(_normal(x))
    for expansion, filters, blocks, first in stages:
        for block in range(blocks):
            x = _inverted(x, expansion, filters, first if block == 0 else 1)
    x = layers.ReLU(6.0)(_normal(layers.Conv2D(1280, 1, use_bias=False)(x)))
    x = layers.GlobalAveragePooling2D()(x)
    return spread(kcompile.Model(image, layers.Dense(1000, activation="softmax")(x), name="mobilenet_v2"))


def _inverted(x: Any, expansion: int, filters: int, strides: int) -> Any:
    channels, y = x.shape[-1], x
    if expansion > 1:
        y = layers.ReLU(6.0)(_normal(layers.Conv2D(expansion * channels, 1, use_bias=False)(y)))
    y, padding = _strided(y, 3, strides)
    y = layers.DepthwiseConv2D(3, strides=strides, padding=padding, use_bias=False)(y)
    y = _normal(layers.Conv2D(filters, 1, use_bias=False)(layers.ReLU(6.0)(_normal(y))))
    return layers.Add()([x, y]) if strides == 1 and channels == filters else y


def mobilenet_v3_small() -> kcompile.Model:
    """MobileNetV3-Small (Howard et al. 2019, arXiv:1905.02244)."""
    # Expansion, filters, kernel, strides, squeeze-and-excitation and activation of each block.
    blocks = (
        (1, 16, 3, 2, True, "relu"), (72 / 16, 24, 3, 2, False, "relu"), (88 / 24, 24, 3, 1, False, "relu"),
        (4, 40, 5, 2, True, "hard_silu"), (6, 40, 5, 1, True, "hard_silu"), (6, 40, 5, 1, True, "hard_silu"),
        (3, 48, 5, 1, True, "hard_silu"), (3, 48, 5, 1, True, "hard_silu"), (6, 96, 5, 2, True, "hard_silu"),
        (6, 96, 5, 1, True, "hard_silu"), (6, 96, 5, 1, True, "hard_silu"),
    )  # fmt: skip
    image = kcompile.Input((224, 224, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(layers.Rescaling(1 / 127.5, -1)(image))
    x = _normal(x, "hard_silu")
    for number, (expansion, filters, kernel, strides, excited, activation) in enumerate(blocks):
        channels, y = x.shape[-1], x
        if number:
            y = _normal(layers.Conv2D(_divisible(channels * expansion), 1, use_bias=False)(y), activation)
        y, padding = _strided(y, kernel, strides)
        y = layers.DepthwiseConv2D(kernel, strides=strides, padding=padding, use_bias=False)(y)
        y = _normal(y, activation)
        if excited:
            y = _excited(y, _divisible(y.shape[-1] * 0.25), "relu", "hard_sigmoid")
        y = _normal(layers.Conv2D(filters, 1, use_bias=False)(y))
        x = layers.Add()([x, y]) if strides == 1 and channels == filters else y
    x = _normal(layers.Conv2D(_divisible(x.shape[-1] * 6), 1, use_bias=False)(x), "hard_silu")
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(1000, 1)(layers.Activation("hard_silu")(layers.Conv2D(1024, 1)(x)))
    y = layers.Activation("softmax")(layers.Flatten()(x))
    return spread(kcompile.Model(image, y, name="mobilenet_v3_small"))


def _excited(x: Any, reduced: int, activation: str, gate: str) -> Any:
    """Squeeze-and-excitation (Hu et al. 2017, arXiv:1709.01507)."""
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(reduced, 1, activation=activation)(y)
    return layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation=gate)(y)])


def efficientnet_b0() -> kcompile.Model:
    """EfficientNetB0 (Tan and Le 2019, arXiv:1905.11946)."""
    # Expansion, filters, kernel, blocks and strides of each stage.
    stages = (
        (1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 3, 2), (6, 112, 5, 3, 1),
        (6, 192, 5, 4, 2), (6, 320, 3, 1, 1),
    )  # fmt: skip
    image = kcompile.Input((224, 224, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.ZeroPadding2D(_corrected(224, 3))(x)
    x = _normal(layers.Conv2D(32, 3, strides=2, use_bias=False)(x), "silu")
    for expansion, filters, kernel, blocks, first in stages:
        for block in range(blocks):
            x = _mobile(x, expansion, filters, kernel, first if block == 0 else 1)
    x = _normal(layers.Conv2D(1280, 1, use_bias=False)(x), "silu")
    x = layers.GlobalAveragePooling2D()(x)
    return spread(kcompile.Model(image, layers.Dense(1000, activation="softmax")(x), name="efficientnet_b0"))


def _mobile(x: Any, expansion: int, filters: int, kernel: int, strides: int) -> Any:
    channels, y = x.shape[-1], x
    if expansion > 1:
        y = _normal(layers.Conv2D(expansion * channels, 1, use_bias=False)(y), "silu")
    y, padding = _strided(y, kernel, strides)
    y = layers.DepthwiseConv2D(kernel, strides=strides, padding=padding, use_bias=False)(y)
    y = _excited(_normal(y, "silu"), max(1, channels // 4), "silu", "sigmoid")
    y = _normal(layers.Conv2D(filters, 1, use_bias=False)(y))
    return layers.Add()([x, y]) if strides == 1 and channels == filters else y
