"""Merging and normalizing layers: masks in values, axes in any order."""

from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import Input, layers
from tests.frontend.errors import error_of
from tests.frontend.layers.support import run, run_with_mask

LEFT = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)
RIGHT = np.array([[1, 0, 1, 0], [1, 0, 0, 1]], bool)


@pytest.fixture
def pair(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(size=(2, 4, 3)).astype(np.float32) for _ in range(2)]


def test_a_masked_factor_counts_as_one_and_a_product_of_none_as_zero(pair: list[np.ndarray]) -> None:
    x, y = pair
    expected = np.where(LEFT[..., None], x, 1) * np.where(RIGHT[..., None], y, 1) * (LEFT | RIGHT)[..., None]
    received, mask = run_with_mask(layers.Multiply(), x, y, masks=[LEFT, RIGHT])
    np.testing.assert_array_equal(received, expected)
    np.testing.assert_array_equal(mask, LEFT | RIGHT)
    received, mask = run_with_mask(layers.Multiply(), x, y, masks=[LEFT, None])
    np.testing.assert_array_equal(received, np.where(LEFT[..., None], x, 1) * y)
    assert mask is None


@pytest.mark.parametrize(("layer", "choose"), [(layers.Maximum(), np.maximum), (layers.Minimum(), np.minimum)])
def test_a_masked_element_is_never_the_extreme_one(layer: Any, choose: Any, pair: list[np.ndarray]) -> None:
    x, y = pair
    received = run(layer, x, y, masks=[LEFT, RIGHT])
    for place in np.argwhere(LEFT | RIGHT):
        n, step = place
        values = [v[n, step] for v, m in ((x, LEFT), (y, RIGHT)) if m[n, step]]
        np.testing.assert_array_equal(received[n, step], choose.reduce(values))


@pytest.mark.parametrize("layer", [layers.Add(), layers.Average(), layers.Subtract()])
def test_sums_ignore_masks(layer: Any, pair: list[np.ndarray]) -> None:
    np.testing.assert_array_equal(run(layer, *pair, masks=[LEFT, RIGHT]), run(layer, *pair))


def test_concatenation_joins_masks(pair: list[np.ndarray]) -> None:
    x, y = pair
    _, mask = run_with_mask(layers.Concatenate(1), x, y, masks=[LEFT, RIGHT])
    np.testing.assert_array_equal(mask, np.concatenate([LEFT, RIGHT], axis=1))
    _, mask = run_with_mask(layers.Concatenate(1), x, y, masks=[None, RIGHT])
    np.testing.assert_array_equal(mask, np.concatenate([np.ones_like(LEFT), RIGHT], axis=1))
    _, mask = run_with_mask(layers.Concatenate(), x, y, masks=[LEFT, RIGHT])
    np.testing.assert_array_equal(mask, LEFT | RIGHT)


def test_fewer_axes_are_filled_behind_the_batch(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 4, 3)).astype(np.float32), rng.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(layers.Add(), x, y), x + y[:, None])


def test_what_does_not_broadcast_is_refused_with_the_layer() -> None:
    text = error_of(ModelError, lambda: layers.Add(name="a")([Input((3,)), Input((4,))]))
    assert text.startswith("layer `a` (Add) does not accept its inputs (f32[N, 3], f32[N, 4]): ")


@pytest.mark.parametrize("axis", [[1, 2], [2, 1], [-1, 1], [3, 1], 2])
def test_layer_normalization_takes_axes_in_any_order(axis: Any, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    axes = tuple(sorted(a % 4 for a in ([axis] if isinstance(axis, int) else axis)))
    received = run(layers.LayerNormalization(axis), x)
    mean, deviation = x.mean(axes, keepdims=True), np.sqrt(x.var(axes, keepdims=True) + 1e-3)
    np.testing.assert_allclose(received, (x - mean) / deviation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4, -1])
def test_group_normalization_takes_blocks_of_channels_together(groups: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    size = 4 // (4 if groups == -1 else groups)
    expected = np.empty_like(x)
    for n in range(2):
        for c in range(0, 4, size):
            block = x[n, :, c : c + size]
            expected[n, :, c : c + size] = (block - block.mean()) / np.sqrt(block.var() + 1e-3)
    np.testing.assert_allclose(run(layers.GroupNormalization(groups), x), expected, rtol=1e-4, atol=1e-5)


def test_batch_normalization_uses_the_moving_statistics(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    for axis, shape in ((-1, (1, 1, 4)), (1, (1, 3, 1))):
        layer = layers.BatchNormalization(axis)
        layer(Input((3, 4)))
        layer.set_weights([np.abs(rng.normal(size=w.shape)).astype(np.float32) for w in layer.weights])
        gamma, beta, mean, variance = (w.reshape(shape) for w in layer.get_weights())
        expected = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
        np.testing.assert_allclose(run(layer, x), expected, rtol=1e-5, atol=1e-5)


def test_a_custom_scale_adds_a_scaled_residual(pair: list[np.ndarray]) -> None:
    x, y = pair
    np.testing.assert_allclose(run(layers.CustomScaleLayer(0.25), x, y), x + 0.25 * y, rtol=1e-6)


def test_spectral_normalization_keeps_the_dtype_of_its_input() -> None:
    layer = layers.SpectralNormalization(layers.Embedding(3, 2))
    layer(Input((2,), dtype="int32"))
    layer.set_weights([np.array([[0, 1], [2.7, -3.2], [4, 5]], np.float32), np.ones((1, 2), np.float32)])
    received = run(layer, np.array([[1, 2]], np.int32))
    assert received.dtype == np.int32
    np.testing.assert_array_equal(received, [[[2, -3], [4, 5]]])
