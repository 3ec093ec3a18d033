"""Layers that bring inputs into a range."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.writing import cast, like, reshape
from kcompile.frontend.tracing import Trace
from kcompile.frontend.weight import Weight
from kcompile.ir import ops
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value
from kcompile.ir.types import Array

# The least standard deviation that an input is divided by: `keras.config.epsilon()`.
_EPSILON = 1e-7


def numbers(layer: Layer, argument: str) -> Array:
    """An argument as an array: a number, nested lists, an array, or the config of an array.

    Raises:
        ModelError: it is none of these.
    """
    value: Any = getattr(layer, argument)
    while isinstance(value, dict):
        inner: Any = value.get("config")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        value = inner.get("value") if isinstance(inner, dict) else inner  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    try:
        array: Array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.asarray(np.nan)
    layer.require(bool(np.isfinite(array).all()), argument, "a number or an array of numbers")
    return array


@register_layer("keras>Rescaling")
@dataclass(eq=False)
class Rescaling(Layer):
    """``x * scale + offset`` as floats; scale and offset broadcast against the last axes."""

    supports_masking = True

    scale: Any
    offset: Any = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("scale", "offset"):
            array = numbers(self, argument)
            setattr(self, argument, array.tolist())

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = cast(t, args[0], self.compute_dtype)
        scale, offset = (t.constant(numbers(self, n).astype(x.type.dtype)) for n in ("scale", "offset"))
        return t(ops.Add(), t(ops.Mul(), x, scale), offset)


@register_layer("keras>Normalization")
@dataclass(eq=False)
class Normalization(Layer):
    """``(x - mean) / max(sqrt(variance), 1e-7)`` per element of `axis`; the other way round where `invert`.

    Mean and variance are arguments, or weights that `adapt` has found.
    """

    supports_masking = True

    axis: Any = -1
    mean: Any = None
    variance: Any = None
    invert: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = () if self.axis is None else self.axis
        self.axis = (given,) if isinstance(given, int) else tuple(given)
        if (self.mean is None) != (self.variance is None):
            received = f"mean={self.mean}, variance={self.variance}"
            raise ModelError(f"layer `{self.name}` takes both `mean` and `variance`, or neither. Received: {received}.")
        if self.mean is not None:
            self.mean, self.variance = (numbers(self, n).tolist() for n in ("mean", "variance"))

    def _kept(self, shape: Shape) -> list[int]:
        rank = len(shape)
        fits = all(arguments.is_int(a, -rank) and a < rank and a % rank != 0 for a in self.axis)
        self.require(fits, "axis", f"axes from 1 to {rank - 1} for its input")
        return sorted(a % rank for a in self.axis)

    def build(self, *input_shapes: Any) -> None:
        shape = input_shapes[0]
        kept = tuple(shape[a] for a in self._kept(shape))
        if self.mean is None:
            self.add_weight("mean", kept, "zeros", trainable=False)
            self.add_weight("variance", kept, "ones", trainable=False)
            self.own_weights.append(Weight("count", np.zeros((), np.int32), trainable=False))

    def _statistic(self, t: Trace, name: str, x: Value) -> Value:
        shape, kept = x.type.shape, self._kept(x.type.shape)
        if self.mean is None:
            return reshape(t, t.weight(name), [d if a in kept else 1 for a, d in enumerate(shape)])
        array = numbers(self, name)
        self.require(array.ndim <= len(kept), name, f"an array of at most {len(kept)} axes")
        aligned = [1] * len(shape)
        for i in range(1, array.ndim + 1):
            aligned[kept[-i]] = array.shape[-i]
        return t.constant(array.reshape(aligned).astype(x.type.dtype))

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = cast(t, args[0], self.compute_dtype)
        mean = self._statistic(t, "mean", x)
        deviation = t(ops.Sqrt(), self._statistic(t, "variance", x))
        deviation = t(ops.Maximum(), deviation, like(t, x, _EPSILON))
        if self.invert:
            return t(ops.Add(), mean, t(ops.Mul(), x, deviation))
        return t(ops.Div(), t(ops.Sub(), x, mean), deviation)
