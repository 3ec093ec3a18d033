"""Image and category layers against Keras."""

from typing import Any

import numpy as np
import pytest

from tests.oracle.layer_oracle import check

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
    "MixUp": (),
    "RandAugment": (),
    "RandomBrightness": (0.2,),
    "RandomColorDegeneration": (0.2,),
    "RandomColorJitter": (),
    "RandomElasticTransform": (),
    "RandomErasing": (),
    "RandomGaussianBlur": (),
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
}


@pytest.mark.parametrize("name", list(RANDOM))
def test_random_layers_do_nothing_at_inference(name: str) -> None:
    check(lambda L, x: getattr(L, name)(*RANDOM[name])(x), images(2, 9, 10, 3), configs=False)


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
