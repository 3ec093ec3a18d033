"""Image and category layers against Keras."""

from typing import Any

import numpy as np
import pytest

from tests.oracle.layer_oracle import FORMATS, check

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(23)
INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"]


def images(*shape: int) -> np.ndarray:
    return RNG.uniform(0, 255, shape).astype(np.float32)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(5, 14), (12, 7), (9, 10), (3, 2), (20, 30)])
def test_resizing_agrees(interpolation: str, antialias: bool, size: tuple[int, int]) -> None:
    x = images(2, 9, 10, 3)
    check(lambda L, x: L.Resizing(*size, interpolation, antialias=antialias)(x), x, rtol=1e-4)


@pytest.mark.parametrize("size", [(5, 14), (12, 7), (4, 4)])
@pytest.mark.parametrize("option", ["crop_to_aspect_ratio", "pad_to_aspect_ratio"])
def test_resizing_keeps_proportions(size: tuple[int, int], option: str) -> None:
    check(lambda L, x: L.Resizing(*size, **{option: True})(x), images(2, 9, 10, 3), rtol=1e-4)
    if option.startswith("crop"):
        x = images(2, 3, 9, 10)
        check(lambda L, x: L.Resizing(*size, **{option: True}, data_format="channels_first")(x), x, rtol=1e-4)


@pytest.mark.parametrize("size", [(5, 6), (9, 10), (8, 7), (12, 5), (5, 12), (20, 20)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_center_crop_agrees(size: tuple[int, int], data_format: str) -> None:
    x = images(2, 9, 10, 3) if data_format == "channels_last" else images(2, 3, 9, 10)
    check(lambda L, x: L.CenterCrop(*size, data_format)(x), x, rtol=1e-4)


RANDOM: dict[str, tuple[Any, ...]] = {
    "AugMix": (),
    "CutMix": (),
    "MaxNumBoundingBoxes": (3,),
    "MixUp": (),
    "RandAugment": (),
    "RandomBrightness": (0.2,),
    "RandomColorDegeneration": (0.2,),
    "RandomColorJitter": (),
    "RandomCrop": (9, 10),
    "RandomElasticTransform": (),
    "RandomErasing": (),
    "RandomGaussianBlur": (),
    "RandomGrayscale": (),
    "RandomInvert": (),
    "RandomPerspective": (),
    "RandomPosterization": (4,),
    "RandomSharpness": (0.2,),
    "RandomShear": (),
    "RandomContrast": (0.2,),
    "RandomFlip": ("horizontal",),
    "RandomHue": (0.2,),
    "RandomRotation": (0.2,),
    "RandomSaturation": (0.2,),
    "RandomTranslation": (0.2, 0.1),
    "RandomZoom": (0.2,),
    "Solarization": (0.1, 0.2),
}


# Keras itself cannot save these as .h5.
_UNSAVABLE = "Brightness ColorDegeneration Posterization Saturation Sharpness"
UNSAVABLE = ("Solarization", *(f"Random{what}" for what in _UNSAVABLE.split()))


@pytest.mark.parametrize("name", list(RANDOM))
def test_random_layers_do_nothing_at_inference(name: str) -> None:
    formats = [".keras"] if name in UNSAVABLE else FORMATS
    check(lambda L, x: getattr(L, name)(*RANDOM[name])(x), images(2, 9, 10, 3), configs=False, formats=formats)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("value_range", [(0, 255), (0.0, 1.0), (-1.0, 1.0)])
def test_auto_contrast_agrees(value_range: tuple[float, float], data_format: str) -> None:
    low, high = value_range
    x = RNG.uniform(low, high, (2, 5, 6, 3)).astype(np.float32) * 0.7
    x[0, ..., 1] = 0.3
    check(lambda L, x: L.AutoContrast(value_range, data_format=data_format)(x), x, rtol=1e-4, configs=False)
    if high == 255:
        check(lambda L, x: L.AutoContrast()(x), x.astype(np.uint8), rtol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"tile_grid_size": (2, 3), "clip_limit": 1.5},
        {"tile_grid_size": (3, 2), "clip_limit": 0},
        {"value_range": (0.0, 1.0), "tile_grid_size": (1, 1)},
        {"tile_grid_size": (2, 2), "data_format": "channels_first"},
    ],
    ids=str,
)
def test_adaptive_equalization_agrees(arguments: dict[str, Any]) -> None:
    x = images(2, 13, 10, 3) / (255 if "value_range" in arguments else 1)
    layer = "ContrastLimitedAdaptiveHistogramEqualization"
    check(lambda L, x: getattr(L, layer)(**arguments)(x), x, rtol=1e-4)


def test_pipelines_agree() -> None:
    def build(L: Any, x: Any) -> Any:
        return L.Pipeline([L.Rescaling(1 / 255), L.AutoContrast((0, 1)), L.Dense(4), L.Dense(3, "relu")])(x)

    check(build, images(2, 5, 6, 3), rtol=1e-4, configs=False)


@pytest.mark.parametrize("mode", ["multi_hot", "one_hot", "count"])
def test_category_encoding_agrees(mode: str) -> None:
    tokens = RNG.integers(0, 5, (4, 3)).astype(np.int32)
    check(lambda L, x: L.CategoryEncoding(5, mode)(x), tokens)
    check(lambda L, x: L.CategoryEncoding(5, mode)(x), tokens[:, :1])
    if mode == "count":
        check(lambda L, x, w: L.CategoryEncoding(5, mode)(x, count_weights=w), tokens, images(4, 3))


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count"])
def test_discretization_agrees(mode: str) -> None:
    x = RNG.normal(size=(4, 1 if mode == "one_hot" else 3)).astype(np.float32)
    x[0, 0] = 0.5
    check(lambda L, x: L.Discretization([-1.0, 0.0, 0.5, 2.0], output_mode=mode)(x), x, configs=False)
