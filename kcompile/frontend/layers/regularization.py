"""Layers that act while a model trains; at inference they return their input."""

from dataclasses import dataclass
from typing import Any

from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.tracing import Trace
from kcompile.ir.graph import Value


class _AtTraining(Layer):
    """Base: ``x`` at inference."""

    supports_masking = True

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return args[0]


def _require_rate(layer: Layer, rate: Any) -> None:
    is_rate = isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate <= 1
    layer.require(is_rate, "rate", "a number from 0 to 1")


@register_layer("keras>Dropout")
@dataclass(eq=False)
class Dropout(_AtTraining):
    """Zeroes a share `rate` of the elements while training and scales up the rest; Srivastava et al. 2014."""

    rate: float
    noise_shape: Any = None
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_rate(self, self.rate)


@dataclass(eq=False)
class _SpatialDropout(_AtTraining):
    """Drops whole feature maps while training; Tompson et al. 2014, arXiv:1411.4280."""

    hidden_fields = frozenset({"trainable"})

    rate: float
    data_format: str | None = None
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_rate(self, self.rate)
        self.data_format = arguments.data_format(self)


@register_layer("keras>SpatialDropout1D")
@dataclass(eq=False)
class SpatialDropout1D(_AtTraining):
    """Drops whole channels of sequences while training; Tompson et al. 2014, arXiv:1411.4280."""

    hidden_fields = frozenset({"trainable"})

    rate: float
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_rate(self, self.rate)


@register_layer("keras>SpatialDropout2D")
@dataclass(eq=False)
class SpatialDropout2D(_SpatialDropout):
    """Drops whole channels of images while training."""


@register_layer("keras>SpatialDropout3D")
@dataclass(eq=False)
class SpatialDropout3D(_SpatialDropout):
    """Drops whole channels of volumes while training."""


@register_layer("keras>GaussianDropout")
@dataclass(eq=False)
class GaussianDropout(_AtTraining):
    """Multiplies by noise around 1 while training."""

    rate: float
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_rate(self, self.rate)


@register_layer("keras>AlphaDropout")
@dataclass(eq=False)
class AlphaDropout(_AtTraining):
    """Dropout that keeps mean and variance while training; Klambauer et al. 2017, arXiv:1706.02515."""

    rate: float
    noise_shape: Any = None
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_rate(self, self.rate)


@register_layer("keras>GaussianNoise")
@dataclass(eq=False)
class GaussianNoise(_AtTraining):
    """Adds noise around 0 while training."""

    stddev: float
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = isinstance(self.stddev, int | float) and self.stddev >= 0
        self.require(fits, "stddev", "a number from 0 on")


@register_layer("keras>ActivityRegularization")
@dataclass(eq=False)
class ActivityRegularization(_AtTraining):
    """Adds a cost on the activations while training."""

    l1: float = 0.0
    l2: float = 0.0
