"""Shapes of results, known and open, and masks that pass or stop."""

from typing import Any

import numpy as np
import pytest

from kcompile.api import trace
from kcompile.errors import ModelError
from kcompile.frontend import Functional, Input, layers
from kcompile.frontend.layers.resampling import filter_matrix
from kcompile.ir.evaluate import evaluate
from tests.frontend.errors import error_of
from tests.frontend.layers.support import run, run_with_mask

SHAPES: list[tuple[Any, tuple[int | None, ...], tuple[int | None, ...]]] = [
    (layers.Conv2D(8, 3), (32, 30, 3), (30, 28, 8)),
    (layers.Conv2D(8, 3, 2, "same"), (None, None, 3), (None, None, 8)),
    (layers.Conv2D(8, 3, data_format="channels_first"), (3, 32, 30), (8, 30, 28)),
    (layers.Conv1D(8, 3, padding="causal", dilation_rate=4), (7, 3), (7, 8)),
    (layers.Conv2DTranspose(8, 3, 2, "same"), (5, 7, 3), (10, 14, 8)),
    (layers.Conv2DTranspose(8, 2, 3), (5, 7, 3), (15, 21, 8)),
    (layers.MaxPooling2D(), (7, 8, 3), (3, 4, 3)),
    (layers.AveragePooling1D(2, padding="same"), (7, 3), (4, 3)),
    (layers.GlobalMaxPooling2D(keepdims=True), (7, 8, 3), (1, 1, 3)),
    (layers.ZeroPadding2D(((1, 0), (2, 3))), (7, None, 3), (8, None, 3)),
    (layers.Cropping2D(((1, 0), (2, 3))), (7, 8, 3), (6, 3, 3)),
    (layers.UpSampling2D((2, 3)), (7, 8, 3), (14, 24, 3)),
    (layers.Flatten(), (7, 8, 3), (168,)),
    (layers.Flatten(), (None, 3), (None,)),
    (layers.Reshape((-1, 2)), (7, 8, 3), (84, 2)),
    (layers.Permute((2, 1)), (7, 3), (3, 7)),
    (layers.RepeatVector(4), (3,), (4, 3)),
    (layers.LSTM(5, return_sequences=True), (None, 3), (None, 5)),
    (layers.Bidirectional(layers.GRU(5)), (None, 3), (10,)),
    (layers.TimeDistributed(layers.Conv2D(4, 3)), (None, 8, 8, 3), (None, 6, 6, 4)),
    (layers.Embedding(10, 4), (7,), (7, 4)),
    (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (7, 4), (7, 2, 3)),
    (layers.AdaptiveAveragePooling2D(3), (7, 8, 2), (3, 3, 2)),
]


@pytest.mark.parametrize(("layer", "shape", "expected"), SHAPES, ids=lambda v: type(v).__name__)
def test_results_have_the_shapes_that_keras_prints(layer: Any, shape: Any, expected: Any) -> None:
    assert layer(Input(shape)).shape == (None, *expected)


# Layers that pass their input's mask on, and layers that end it.
PASSING = [
    layers.Activation("relu"), layers.ReLU(), layers.LeakyReLU(), layers.ELU(), layers.PReLU(), layers.Dense(3),
    layers.Dropout(0.5), layers.GaussianNoise(0.5), layers.SpatialDropout1D(0.5), layers.BatchNormalization(),
    layers.LayerNormalization(), layers.UnitNormalization(), layers.Rescaling(2.0), layers.Identity(),
    layers.TimeDistributed(layers.Dense(3)), layers.LSTM(3, return_sequences=True), layers.GroupNormalization(2),
]  # fmt: skip
ENDING = [
    layers.Conv1D(3, 3), layers.MaxPooling1D(), layers.Flatten(), layers.Reshape((10,)), layers.Permute((2, 1)),
    layers.GlobalAveragePooling1D(), layers.GlobalMaxPooling1D(), layers.LSTM(3), layers.ZeroPadding1D(),
    layers.Cropping1D(), layers.UpSampling1D(), layers.EinsumDense("abc,cd->abd", (None, 3)),
    layers.RMSNormalization(),
]  # fmt: skip


@pytest.mark.parametrize("layer", [*PASSING, *ENDING], ids=lambda layer: type(layer).__name__)
def test_masks_pass_where_keras_passes_them(layer: Any, rng: np.random.Generator) -> None:
    x, mask = rng.normal(size=(2, 5, 2)).astype(np.float32), rng.random((2, 5)) > 0.5
    _, received = run_with_mask(layer, x, masks=[mask])
    if layer in PASSING:
        np.testing.assert_array_equal(received, mask)
    else:
        assert received is None


def test_embedding_and_masking_make_masks(rng: np.random.Generator) -> None:
    tokens = np.array([[1, 0, 2], [0, 0, 3]], np.int32)
    vectors, mask = run_with_mask(layers.Embedding(4, 2, mask_zero=True), tokens)
    np.testing.assert_array_equal(mask, tokens != 0)
    assert vectors.shape == (2, 3, 2)
    assert run_with_mask(layers.Embedding(4, 2), tokens)[1] is None
    x = np.array([[[1, 7], [7, 7], [7, 1]]], np.float32)
    y, mask = run_with_mask(layers.Masking(7.0), x)
    np.testing.assert_array_equal(mask, [[True, False, True]])
    np.testing.assert_array_equal(y, [[[1, 7], [0, 0], [7, 1]]])


def test_a_masked_step_of_nan_counts_as_zero() -> None:
    x = np.array([[[np.nan], [2.0]]], np.float32)
    np.testing.assert_array_equal(run(layers.Masking(2.0), x)[0, 1], [0.0])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3", "lanczos5"])
@pytest.mark.parametrize(("extent", "size"), [(5, 9), (9, 5), (7, 7), (1, 4)])
def test_resampling_keeps_constants_and_sizes(interpolation: str, extent: int, size: int) -> None:
    for antialias in (False, True):
        matrix = filter_matrix(extent, size, interpolation, antialias)
        np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-12)
        if extent == size:
            np.testing.assert_allclose(matrix, np.eye(extent), atol=1e-12)


def test_antialiasing_widens_the_filter_of_a_smaller_result_only() -> None:
    assert (filter_matrix(9, 3, "bilinear", False) > 0).sum() == 3
    assert (filter_matrix(9, 3, "bilinear", True) > 0).sum() > 9
    np.testing.assert_array_equal(filter_matrix(3, 9, "bicubic", True), filter_matrix(3, 9, "bicubic", False))


OPEN = [
    layers.UpSampling2D(2, None, "bicubic"),
    layers.UpSampling2D((3, 1), None, "lanczos3"),
    layers.Resizing(5, 4, "bicubic"),
    layers.Resizing(5, 4, "bilinear", antialias=True),
    layers.Resizing(9, 4, "lanczos5", antialias=True, data_format="channels_first"),
    layers.AdaptiveAveragePooling2D((3, 2)),
    layers.AdaptiveMaxPooling2D((3, 2), data_format="channels_first"),
]


@pytest.mark.parametrize("layer", OPEN, ids=lambda layer: type(layer).__name__)
def test_windows_and_filters_follow_open_extents(layer: Any, rng: np.random.Generator) -> None:
    x = Input((None, None, 3) if layer.data_format == "channels_last" else (3, None, None))
    graph = Functional(x, layer(x)).trace()
    for height, width in ((7, 8), (2, 5), (11, 3)):
        shape = (2, height, width, 3) if layer.data_format == "channels_last" else (2, 3, height, width)
        data = rng.normal(size=shape).astype(np.float32)
        (result,) = evaluate(graph, {graph.inputs[0].name: data}).values()
        np.testing.assert_allclose(result, run(layer, data), rtol=1e-5, atol=1e-5)


def test_an_aspect_ratio_needs_extents_that_are_fixed_before_the_graph_is_written() -> None:
    x = Input((None, None, 3), name="x")
    model = Functional(x, layers.Resizing(4, 4, crop_to_aspect_ratio=True, name="r")(x))
    text = error_of(ModelError, lambda: trace(model))
    assert text == "layer `r` needs images of known height and width. Received: f32[N, H, W, 3]. Compile with `shapes`."
    assert trace(model, {"x": (None, 6, 8, 3)}).outputs[0].type.shape == ("N", 4, 4, 3)


def test_adaptive_windows_cover_every_element(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 7, 2)).astype(np.float32)
    for count in range(1, 8):
        windows = [(i * 7 // count, -(-(i + 1) * 7 // count)) for i in range(count)]
        means = np.stack([x[:, a:b].mean(axis=1) for a, b in windows], axis=1)
        np.testing.assert_allclose(run(layers.AdaptiveAveragePooling1D(count), x), means, rtol=1e-5, atol=1e-6)
        highest = np.stack([x[:, a:b].max(axis=1) for a, b in windows], axis=1)
        np.testing.assert_array_equal(run(layers.AdaptiveMaxPooling1D(count), x), highest)


@pytest.mark.parametrize(
    "layer", [layers.AveragePooling1D(2), layers.GlobalAveragePooling1D(), layers.AdaptiveAveragePooling1D(2)]
)
def test_means_of_integers_are_floats(layer: Any) -> None:
    x = np.array([[[1], [2], [2], [6]]], np.int32)
    received = run(layer, x)
    assert received.dtype == np.float32
    np.testing.assert_array_equal(received.ravel(), [2.75] if received.ndim == 2 else [1.5, 4.0])


def test_dot_sums_over_the_named_axes(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 3, 4)).astype(np.float32), rng.normal(size=(2, 5, 3)).astype(np.float32)
    expected = np.einsum("nka,nbk->nab", x, y)
    np.testing.assert_allclose(run(layers.Dot((1, 2)), x, y), expected, rtol=1e-5, atol=1e-6)
    unit = [v / np.linalg.norm(v, axis=axis, keepdims=True) for v, axis in ((x, 1), (y, 2))]
    expected = np.einsum("nka,nbk->nab", *unit)
    np.testing.assert_allclose(run(layers.Dot((1, 2), normalize=True), x, y), expected, rtol=1e-5, atol=1e-6)
