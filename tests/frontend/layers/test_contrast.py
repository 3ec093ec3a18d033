"""Layers that stretch contrast, against loops over tiles and pixels, and on both targets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile.errors import ModelError
from kcompile.frontend import layers
from tests.frontend.layers.support import run

CLAHE = layers.ContrastLimitedAdaptiveHistogramEqualization


def test_auto_contrast_stretches_each_channel_and_leaves_constant_ones(rng: np.random.Generator) -> None:
    x = rng.uniform(40, 90, (2, 4, 5, 2)).astype(np.float32)
    x[1, ..., 0] = 7
    expected = x.copy()
    for sample, channel in ((0, 0), (0, 1), (1, 1)):
        plane = x[sample, ..., channel].astype(np.float64)
        expected[sample, ..., channel] = (plane - plane.min()) / (plane.max() - plane.min()) * 255
    np.testing.assert_allclose(run(layers.AutoContrast(), x), expected, rtol=1e-4, atol=1e-3)


def equalized(plane: np.ndarray, limit: float) -> np.ndarray:
    """One tile: each level's place among all, from 0 to 255."""
    counts = np.zeros(256)
    for level in plane.reshape(-1):
        counts[int(level)] += 1
    bound = limit * plane.size / 256
    excess = sum(max(count - bound, 0) for count in counts)
    running = np.cumsum([min(count, bound) + excess / 256 for count in counts])
    return np.array([[(running[int(v)] - running[0]) * 255 / (plane.size - running[0]) for v in row] for row in plane])


def test_a_single_tile_is_equalized_as_a_whole(rng: np.random.Generator) -> None:
    x = rng.uniform(0, 255, (2, 6, 8, 2)).astype(np.float32)
    got = run(CLAHE(clip_limit=20.0, tile_grid_size=(1, 1)), x)
    for sample in range(2):
        for channel in range(2):
            expected = equalized(x[sample, ..., channel], 20.0)
            np.testing.assert_allclose(got[sample, ..., channel], expected, rtol=1e-4, atol=1e-2)


def test_images_of_bytes_stay_bytes(rng: np.random.Generator) -> None:
    x = rng.integers(0, 256, (1, 5, 7, 3)).astype(np.uint8)
    assert run(CLAHE(tile_grid_size=(2, 2)), x).dtype == np.uint8


def test_open_images_are_refused() -> None:
    with pytest.raises(ModelError, match="needs images of known extents"):
        CLAHE(name="clahe")(kcompile.Input((None, 8, 3)))


@pytest.mark.parametrize("target", ["onnx", "tvm"])
@pytest.mark.parametrize("layer", [layers.AutoContrast, CLAHE])
def test_both_targets_stretch_contrast(layer: Any, target: str, tmp_path: Path) -> None:
    inputs = kcompile.Input((10, 9, 3))
    model = kcompile.Model(inputs, layer()(inputs))
    path = tmp_path / ("model.onnx" if target == "onnx" else "model.kcb")
    kcompile.compile(model, target=target, output=path)
    x = np.random.default_rng(3).uniform(0, 255, (3, 10, 9, 3)).astype(np.float32)
    np.testing.assert_allclose(kcompile.load(path).predict(x), model.predict(x), rtol=1e-3, atol=1e-2)
