"""Convolution layers against loops over positions, windows and channels."""

from typing import Any

import numpy as np
import pytest

from kcompile.frontend import Input, layers
from kcompile.frontend.layers.convolution import transposed_padding
from tests.frontend.layers.support import run


def built(layer: Any, x: np.ndarray, rng: np.random.Generator) -> Any:
    layer(Input(x.shape[1:]))
    layer.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in layer.weights])
    return layer


def conv1d_loop(x: np.ndarray, kernel: np.ndarray, before: int, stride: int, dilation: int, length: int) -> np.ndarray:
    """Position o sees x at ``o * stride + w * dilation - before``, zeros outside."""
    y = np.zeros((len(x), length, kernel.shape[2]))
    for n, o, w in np.ndindex(len(x), length, len(kernel)):
        at = o * stride + w * dilation - before
        if 0 <= at < x.shape[1]:
            y[n, o] += x[n, at].astype(float) @ kernel[w]
    return y


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 3)])
def test_causal_padding_looks_back_only(stride: int, dilation: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 9, 3)).astype(np.float32)
    layer = built(layers.Conv1D(4, 3, stride, "causal", dilation_rate=dilation), x, rng)
    kernel, bias = layer.get_weights()
    expected = conv1d_loop(x, kernel, 2 * dilation, stride, dilation, -(-9 // stride)) + bias
    np.testing.assert_allclose(run(layer, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "stride", "before"), [(3, 1, 1), (4, 1, 1), (3, 2, 1), (2, 2, 0)])
def test_same_padding_puts_the_odd_element_after(size: int, stride: int, before: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 9, 3)).astype(np.float32)
    layer = built(layers.Conv1D(4, size, stride, "same", use_bias=False), x, rng)
    expected = conv1d_loop(x, layer.get_weights()[0], before, stride, 1, -(-9 // stride))
    np.testing.assert_allclose(run(layer, x), expected, rtol=1e-5, atol=1e-5)


def test_channels_first_is_the_same_convolution(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 6, 7, 3)).astype(np.float32)
    for make in (
        lambda **k: layers.Conv2D(4, 3, 2, "same", **k),
        lambda **k: layers.DepthwiseConv2D(3, **k),
        lambda **k: layers.SeparableConv2D(4, 3, **k),
        lambda **k: layers.Conv2DTranspose(4, 3, 2, **k),
        lambda **k: layers.MaxPooling2D(2, **k),
        lambda **k: layers.ZeroPadding2D((1, 2), **k),
        lambda **k: layers.UpSampling2D(2, **k),
    ):
        last = built(make(), x, rng)
        first = make(data_format="channels_first")
        moved = np.moveaxis(x, -1, 1).copy()
        first(Input(moved.shape[1:]))
        first.set_weights(last.get_weights())
        np.testing.assert_allclose(np.moveaxis(run(first, moved), 1, -1), run(last, x), rtol=1e-5, atol=1e-5)


def test_a_depthwise_convolution_keeps_channels_apart(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 9, 3)).astype(np.float32)
    layer = built(layers.DepthwiseConv1D(3, depth_multiplier=2), x, rng)
    kernel, bias = layer.get_weights()
    parts = [conv1d_loop(x[..., c : c + 1], kernel[:, c : c + 1], 0, 1, 1, 7) for c in range(3)]
    np.testing.assert_allclose(run(layer, x), np.concatenate(parts, axis=-1) + bias, rtol=1e-5, atol=1e-5)


def test_a_separable_convolution_is_a_depthwise_and_a_pointwise_one(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 9, 3)).astype(np.float32)
    layer = built(layers.SeparableConv1D(4, 3, 2, depth_multiplier=2), x, rng)
    depth, point, bias = layer.get_weights()
    parts = [conv1d_loop(x[..., c : c + 1], depth[:, c : c + 1], 0, 2, 1, 4) for c in range(3)]
    expected = np.concatenate(parts, axis=-1) @ point[0] + bias
    np.testing.assert_allclose(run(layer, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("size", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (4, 2, 1), (2, 3, 1), (3, 1, 2), (5, 3, 1)]
)
def test_a_transposed_convolution_undoes_the_places_of_a_convolution(
    padding: str, size: int, stride: int, dilation: int, rng: np.random.Generator
) -> None:
    """It is the gradient of a convolution from its result's length to its input's: x of y is spread over windows."""
    x = rng.normal(size=(2, 6, 3)).astype(np.float32)
    layer = built(layers.Conv1DTranspose(4, size, stride, padding, dilation_rate=dilation), x, rng)
    kernel, bias = layer.get_weights()
    reach = (size - 1) * dilation + 1
    length = 6 * stride if padding == "same" else 5 * stride + max(reach, stride)
    before = max((5 * stride + reach - length), 0) // 2
    expected = np.zeros((2, length, 4))
    for n, i, w in np.ndindex(2, 6, size):
        at = i * stride + w * dilation - before
        if 0 <= at < length:
            expected[n, at] += kernel[w].astype(float) @ x[n, i]
    np.testing.assert_allclose(run(layer, x), expected + bias, rtol=1e-5, atol=1e-5)


def test_output_padding_sets_the_length() -> None:
    for window in range(1, 6):
        for stride in range(2, 4):
            for extra in range(stride):
                for padding, kept in (("valid", window), ("same", window % 2)):
                    cut, added = transposed_padding(padding, window, stride, 1, extra)
                    assert 4 * stride + window + added - sum(cut) == 4 * stride + kept + extra


def test_a_depthwise_convolution_takes_strides_beside_a_dilation(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 9, 1)).astype(np.float32)
    layer = built(layers.DepthwiseConv1D(3, 2, depth_multiplier=4, dilation_rate=2), x, rng)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(run(layer, x), conv1d_loop(x, kernel, 0, 2, 2, 3) + bias, rtol=1e-5, atol=1e-5)
