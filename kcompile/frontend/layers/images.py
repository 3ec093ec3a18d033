"""Layers that prepare images inside a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Any, ClassVar

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.resampling import INTERPOLATIONS, resize
from kcompile.frontend.layers.writing import cast, full, in_channels_last
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value


class _Sized(Layer):
    """Base of the layers that give images a height and a width: ``x: T[N, H, W, C] -> T[N, height, width, C]``."""

    height: int
    width: int
    data_format: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "height", "width")
        self.data_format = arguments.data_format(self)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], 4)

    def extents(self, x: Value) -> tuple[int, int]:
        """The height and width of an image.

        Raises:
            ModelError: they are open.
        """
        height, width = x.type.shape[1:3]
        if isinstance(height, int) and isinstance(width, int):
            return height, width
        law = f"layer `{self.name}` needs images of known height and width"
        raise ModelError(f"{law}. Received: {x.type}. Compile with `shapes`.")

    def cropped_to_ratio(self, t: Trace, x: Value) -> Value:
        """The largest part in the middle with the proportions of the result."""
        height, width = self.extents(x)
        crop_height = max(min(height, int(width * self.height / self.width)), 1)
        crop_width = max(min(width, int(height * self.width / self.height)), 1)
        x = cut(t, x, 1, int((height - crop_height) / 2), crop_height)
        return cut(t, x, 2, int((width - crop_width) / 2), crop_width)


def cut(t: Trace, x: Value, axis: int, start: Dim, length: int) -> Value:
    """`length` elements along `axis` from `start` on."""
    return t(ops.Slice(axis, start, dims.add(start, length)), x)


@register_layer("keras>Resizing")
@dataclass(eq=False)
class Resizing(_Sized):
    """Images at another size; integers are rounded and stay integers."""

    height: int
    width: int
    interpolation: str = "bilinear"
    crop_to_aspect_ratio: bool = False
    pad_to_aspect_ratio: bool = False
    fill_mode: str = "constant"
    fill_value: float = 0.0
    antialias: bool = False
    data_format: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.interpolation = self.interpolation.lower()
        arguments.choice(self, "interpolation", INTERPOLATIONS)
        self.require(self.fill_mode == "constant", "fill_mode", '"constant"')
        both = self.crop_to_aspect_ratio and self.pad_to_aspect_ratio
        self.require(not both, "pad_to_aspect_ratio", "False where crop_to_aspect_ratio is True")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        image: Value = args[0]
        x = image if image.type.is_float else cast(t, image, self.compute_dtype)
        y = in_channels_last(t, x, str(self.data_format), lambda x: self._resized(t, x))
        if image.type.is_float:
            return y
        limits = np.iinfo(image.type.dtype)
        return cast(t, t(ops.Clip(float(limits.min), float(limits.max)), t(ops.Round(), y)), image.type.dtype)

    def _resized(self, t: Trace, x: Value) -> Value:
        if t.for_shapes and not x.type.with_shape(x.type.shape[1:3]).is_static:
            return full(t, (x.type.shape[0], self.height, self.width, x.type.shape[3]), 0, x.type.dtype)
        if self.crop_to_aspect_ratio:
            x = self.cropped_to_ratio(t, x)
        if self.pad_to_aspect_ratio:
            x = self._padded_to_ratio(t, x)
        return resize(t, x, (self.height, self.width), self.interpolation, self.antialias)

    def _padded_to_ratio(self, t: Trace, x: Value) -> Value:
        height, width = self.extents(x)
        above = int((max(height, int(width * self.height / self.width)) - height) / 2)
        beside = int((max(width, int(height * self.width / self.height)) - width) / 2)
        widths = (0, above, 0, 0) if above else (0, 0, beside, 0)
        return t(ops.Pad(widths, widths, value=float(self.fill_value)), x)


@register_layer("keras>CenterCrop")
@dataclass(eq=False)
class CenterCrop(_Sized):
    """The middle of images; of smaller ones, the largest part with the proportions of the result, resized."""

    height: int
    width: int
    data_format: str | None = None

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = cast(t, args[0], self.compute_dtype)
        return in_channels_last(t, x, str(self.data_format), lambda x: self._cropped(t, x))

    def _cropped(self, t: Trace, x: Value) -> Value:
        height, width = x.type.shape[1:3]
        fits = [not isinstance(d, int) or d >= n for d, n in ((height, self.height), (width, self.width))]
        if not all(fits):
            x = self.cropped_to_ratio(t, x)
            return resize(t, x, (self.height, self.width), "bilinear")
        x = cut(t, x, 1, dims.floor_div(dims.sub(height, self.height), 2), self.height)
        return cut(t, x, 2, dims.floor_div(dims.sub(width, self.width), 2), self.width)


class RandomImageLayer(Layer):
    """Changes images at random while training; at inference it returns them, as floats.

    Of a dict, which Keras lets stand for images and what belongs to them, the images are ``data["images"]``.
    """

    # Whether images become floats.
    gives_floats: ClassVar[bool] = True

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        if t.training:
            law = f"layer `{self.name}` ({type(self).__name__}) cannot change images while training"
            raise ModelError(f"{law}. Change them before `fit`, and leave the layer out.")
        data: Any = args[0]
        if not isinstance(data, Mapping):
            return self._at_inference(t, data)
        if "bounding_boxes" in data:
            law = f"layer `{self.name}` ({type(self).__name__}) takes no bounding boxes in a graph, as in Keras"
            raise ModelError(f"{law}. Hand them around the layer.")
        return {**data, "images": self._at_inference(t, data["images"])}

    def _at_inference(self, t: Trace, x: Value) -> Value:
        return cast(t, x, self.compute_dtype) if self.gives_floats else x


# Those that do not even cast what they leave as it is.
_KEEP_DTYPE = ("Equalization", "MaxNumBoundingBoxes", "RandomCrop", "RandomGrayscale")


def _at_random(name: str, required: Sequence[str] = (), **defaults: Any) -> type[RandomImageLayer]:
    """A layer class of that name with arguments in Keras's order; all have a seed and a data format."""
    gives_floats = name not in _KEEP_DTYPE
    items: dict[str, Any] = {**defaults, "seed": None, "data_format": None}
    fields = [(n, Any) for n in required] + [(n, Any, field(default=value)) for n, value in items.items()]
    members = {"gives_floats": gives_floats, "autocast": gives_floats}
    cls = make_dataclass(name, fields, bases=(RandomImageLayer,), eq=False, namespace=members)
    cls.__module__ = __name__
    return register_layer(f"keras>{name}")(cls)


_RANGE = (0, 255)
_WARP = {"fill_mode": "reflect", "interpolation": "bilinear"}

AugMix = _at_random(
    "AugMix",
    value_range=_RANGE,
    num_chains=3,
    chain_depth=3,
    factor=0.3,
    alpha=1.0,
    all_ops=True,
    interpolation="bilinear",
)
CutMix = _at_random("CutMix", factor=1.0)
Equalization = _at_random("Equalization", value_range=_RANGE, bins=256)
MaxNumBoundingBoxes = _at_random("MaxNumBoundingBoxes", ["max_number"], fill_value=-1)
MixUp = _at_random("MixUp", alpha=0.2)
RandAugment = _at_random("RandAugment", value_range=_RANGE, num_ops=2, factor=0.5, interpolation="bilinear")
RandomBrightness = _at_random("RandomBrightness", ["factor"], value_range=_RANGE)
RandomColorDegeneration = _at_random("RandomColorDegeneration", ["factor"], value_range=_RANGE)
RandomColorJitter = _at_random(
    "RandomColorJitter",
    value_range=_RANGE,
    brightness_factor=None,
    contrast_factor=None,
    saturation_factor=None,
    hue_factor=None,
)
RandomContrast = _at_random("RandomContrast", ["factor"], value_range=_RANGE)
RandomCrop = _at_random("RandomCrop", ["height", "width"])
RandomElasticTransform = _at_random(
    "RandomElasticTransform",
    factor=1.0,
    scale=1.0,
    interpolation="bilinear",
    fill_mode="reflect",
    fill_value=0.0,
    value_range=_RANGE,
)
RandomErasing = _at_random("RandomErasing", factor=1.0, scale=(0.02, 0.33), fill_value=None, value_range=_RANGE)
RandomFlip = _at_random("RandomFlip", mode="horizontal_and_vertical")
RandomGaussianBlur = _at_random("RandomGaussianBlur", factor=1.0, kernel_size=3, sigma=1.0, value_range=_RANGE)
RandomGrayscale = _at_random("RandomGrayscale", factor=0.5)
RandomHue = _at_random("RandomHue", ["factor"], value_range=_RANGE)
RandomInvert = _at_random("RandomInvert", factor=1.0, value_range=_RANGE)
RandomPerspective = _at_random("RandomPerspective", factor=1.0, scale=1.0, interpolation="bilinear", fill_value=0.0)
RandomPosterization = _at_random("RandomPosterization", ["factor"], value_range=_RANGE)
RandomRotation = _at_random("RandomRotation", ["factor"], **_WARP, fill_value=0.0)
RandomSaturation = _at_random("RandomSaturation", ["factor"], value_range=_RANGE)
RandomSharpness = _at_random("RandomSharpness", ["factor"], value_range=_RANGE)
RandomShear = _at_random(
    "RandomShear", x_factor=0.0, y_factor=0.0, interpolation="bilinear", fill_mode="reflect", fill_value=0.0
)
RandomTranslation = _at_random("RandomTranslation", ["height_factor", "width_factor"], **_WARP, fill_value=0.0)
RandomZoom = _at_random("RandomZoom", ["height_factor"], width_factor=None, **_WARP, fill_value=0.0)
Solarization = _at_random("Solarization", addition_factor=0.0, threshold_factor=0.0, value_range=_RANGE)
