"""Layers that act while a model trains; at inference they return their input."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.tracing import Trace
from kcompile.ir.dims import Dim
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Value
from kcompile.ir.ops import Selu


def kept(t: Trace, shape: Sequence[Dim], rate: float, dtype: str) -> Expression:
    """Which elements stay where a share `rate` of them is dropped: ``bool[shape]``."""
    assert t.effects is not None
    return t.effects.uniform(shape, dtype) >= rate


def dropped(t: Trace, x: Value, rate: float, shape: Sequence[Dim] | None = None) -> Value:
    """``x`` with a share `rate` of its elements zeroed and the rest scaled up, while training.

    Args:
        shape: of what is dropped as one; extents of 1 are shared. By default that of ``x``.
    """
    if not t.training or not rate:
        return x
    whole = Expression(t.b, x)
    if rate >= 1:
        return (whole * 0.0).value
    stays = kept(t, x.type.shape if shape is None else shape, rate, x.type.dtype)
    return (whole / (1.0 - rate)).where(stays, 0.0).value


class _AtTraining(Layer):
    """Base: ``x`` at inference."""

    supports_masking = True

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return self.train(t, args[0]) if t.training else args[0]

    @abstractmethod
    def train(self, t: Trace, x: Value) -> Value:
        """The result while training."""


def _require_rate(layer: Layer, rate: Any) -> None:
    is_rate = isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate <= 1
    layer.require(is_rate, "rate", "a number from 0 to 1")


def _noise_shape(layer: Layer, x: Value, noise_shape: Any) -> tuple[Dim, ...]:
    """`noise_shape` with the extents of ``x`` for Nones."""
    given: tuple[Any, ...] = tuple(noise_shape) if noise_shape is not None else (None,) * x.type.rank
    layer.require(len(given) == x.type.rank, "noise_shape", f"{x.type.rank} extents or Nones, one per axis")
    return tuple(extent if own is None else own for own, extent in zip(given, x.type.shape, strict=True))


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

    def train(self, t: Trace, x: Value) -> Value:
        return dropped(t, x, self.rate, _noise_shape(self, x, self.noise_shape))


class _ChannelDropout(_AtTraining):
    """Base: drops whole channels; Tompson et al. 2014, arXiv:1411.4280."""

    # Keras 3 leaves it out of these configs.
    hidden_fields = frozenset({"trainable"})

    rate: float
    data_format: str | None = None

    def train(self, t: Trace, x: Value) -> Value:
        channels = 1 if self.data_format == "channels_first" else x.type.rank - 1
        shape = [extent if axis in (0, channels) else 1 for axis, extent in enumerate(x.type.shape)]
        return dropped(t, x, self.rate, shape)


@dataclass(eq=False)
class _SpatialDropout(_ChannelDropout):
    """Drops whole feature maps while training; Tompson et al. 2014, arXiv:1411.4280."""

    rate: float
    data_format: str | None = None
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_rate(self, self.rate)
        self.data_format = arguments.data_format(self)


@register_layer("keras>SpatialDropout1D")
@dataclass(eq=False)
class SpatialDropout1D(_ChannelDropout):
    """Drops whole channels of sequences while training; Tompson et al. 2014, arXiv:1411.4280."""

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
    """Multiplies by noise around 1, of variance ``rate / (1 - rate)``, while training; Srivastava et al. 2014."""

    rate: float
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_rate(self, self.rate)

    def train(self, t: Trace, x: Value) -> Value:
        self.require(self.rate < 1, "rate", "below 1 while training")
        assert t.effects is not None
        noise = t.effects.normal(x.type.shape, x.type.dtype)
        return (Expression(t.b, x) * (1.0 + math.sqrt(self.rate / (1.0 - self.rate)) * noise)).value


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

    def train(self, t: Trace, x: Value) -> Value:
        if not self.rate:
            return x
        self.require(self.rate < 1, "rate", "below 1 while training")
        floor = -Selu.ALPHA * Selu.SCALE
        scale = ((1 - self.rate) * (1 + self.rate * floor**2)) ** -0.5
        stays = kept(t, _noise_shape(self, x, self.noise_shape), self.rate, x.type.dtype)
        return (Expression(t.b, x).where(stays, floor) * scale - scale * floor * self.rate).value


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

    def train(self, t: Trace, x: Value) -> Value:
        assert t.effects is not None
        return (Expression(t.b, x) + t.effects.normal(x.type.shape, x.type.dtype) * self.stddev).value


@register_layer("keras>ActivityRegularization")
@dataclass(eq=False)
class ActivityRegularization(Layer):
    """Adds a cost on the activations while training."""

    supports_masking = True

    l1: float = 0.0
    l2: float = 0.0

    @property
    def activity_regularizer(self) -> dict[str, Any]:
        """The cost."""
        return {"class_name": "L1L2", "config": {"l1": self.l1, "l2": self.l2}}

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return args[0]
