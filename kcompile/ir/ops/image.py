"""Resampling of images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from kcompile.ir import expression
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values, bind_shape
from kcompile.ir.ops.conv import activation_shape, channels_of, spatial_of
from kcompile.ir.ops.windows import DataFormat
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder


@dataclass(frozen=True)
class Resize(Op, name="resize", operands=("x",)):
    """The spatial axes at another `size`, sampled at half-pixel centres: position ``(i + 0.5) * d / size - 0.5``.

    "nearest" takes element ``floor((i + 0.5) * d / size)``, "bilinear" weighs the two neighbours by distance, positions
    clamped to the axis. As ``keras.layers.UpSampling2D`` and ``tf.image.resize(antialias=False)`` sample.
    """

    size: Shape
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    data_format: DataFormat = "channels_last"

    def infer(self, types: Types) -> Types:
        x = types[0]
        self.require(x.rank == len(self.size) + 2, "`size` must hold one extent per spatial axis", types)
        channels = channels_of(x.shape, self.data_format)
        return (x.with_shape(activation_shape(x.shape[0], list(self.size), channels, self.data_format)),)

    def kernel(self, args: Arrays) -> Arrays:
        y, first = args[0], 1 if self.data_format == "channels_last" else 2
        for axis, size in enumerate(self.size, first):
            y = self._along(y, axis, int(size))
        return (y,)

    def _along(self, x: Array, axis: int, size: int) -> Array:
        extent = x.shape[axis]
        position = (np.arange(size) + 0.5) * (extent / max(size, 1))
        if self.interpolation == "nearest":
            return x.take(np.minimum(np.floor(position).astype(np.int64), extent - 1), axis=axis)
        clamped = np.clip(position - 0.5, 0, extent - 1)
        low = np.floor(clamped).astype(np.int64)
        high = np.minimum(low + 1, extent - 1)
        weight = (clamped - low).astype(x.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        return x.take(low, axis=axis) * (1 - weight) + x.take(high, axis=axis) * weight

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, size=bind_shape(self.size, bindings))

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients_norm import ResizeGradient

        (dy,) = expression.lift(b, *dys)
        return (dy.apply(ResizeGradient(self, spatial_of(xs[0].type.shape, self.data_format))).value,)
