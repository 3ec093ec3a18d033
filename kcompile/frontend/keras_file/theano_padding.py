"""Padding "same" as Theano put it: half a window at the start, whatever the strides, where others put less.

Sources: `conv2d`, `deconv2d`, `_postprocess_conv2d_output` and `pool2d` in keras/backend/theano_backend.py of 1.2.2 and
2.2.4 (`conv2d_transpose` there).
"""

from functools import cache
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer
from kcompile.frontend.layers import convolution, pooling
from kcompile.frontend.layers.writing import in_channels_last
from kcompile.frontend.tracing import Trace
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Value
from kcompile.ir.ops.conv import Padding


def _unsaved(layer: Layer) -> dict[str, Any]:
    law = (
        f'layer `{layer.name}` pads "same" as Theano did, which kcompile reads and compiles but Keras 3 cannot express'
    )
    raise ModelError(f'{law}. Put a ZeroPadding layer before it, with padding "valid".')


class _HalfPadded(Layer):
    """A convolution with half of each window, as far as it reaches, before the axis."""

    kernel_size: Any
    dilation_rate: Any

    def ir_padding(self) -> Padding:
        """As pairs that make a result ``ceil(extent / stride)`` long."""
        reaches = [(w - 1) * rate + 1 for w, rate in zip(self.kernel_size, self.dilation_rate, strict=True)]
        return tuple((reach // 2, reach - 1 - reach // 2) for reach in reaches)

    def get_config(self) -> dict[str, Any]:
        return _unsaved(self)


class _WidePadded(Layer):
    """A pooling with nearly a window before the axis: ``w - 2`` for odd windows from 3 on, else ``w - 1``."""

    pool_size: Any
    strides: Any
    data_format: str | None
    op: Any

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        lows = [w - 2 if w > 2 and w % 2 else w - 1 for w in self.pool_size]
        pairs = tuple((low, w - 1 - low) for low, w in zip(lows, self.pool_size, strict=True))
        op = self.op(self.pool_size, self.strides, pairs)
        return in_channels_last(t, args[0], str(self.data_format), lambda x: t(op, x))

    def get_config(self) -> dict[str, Any]:
        return _unsaved(self)


class _HalfCut(_HalfPadded):
    """A transposed convolution: the gradient of one with half of each window, which must be odd, before the axis."""

    strides: Any
    declared_shape: Any
    data_format: str | None

    def _cuts(self, shape: Shape) -> list[tuple[tuple[int, int], int]]:
        """What is cut and added at the ends of each axis, for results ``extent * stride`` long, or as declared."""
        first = 1 if self.data_format == "channels_last" else 2
        declared = (self.declared_shape or (None,) * 4)[first : first + 2]
        reaches = [(w - 1) * rate + 1 for w, rate in zip(self.kernel_size, self.dilation_rate, strict=True)]
        axes = zip(shape[first : first + 2], declared, reaches, self.strides, strict=True)
        return [_cut(*axis) for axis in axes]


def _cut(extent: Dim, wanted: int | None, reach: int, stride: int) -> tuple[tuple[int, int], int]:
    """The cut of one axis."""
    surplus = reach - stride
    if wanted is not None and isinstance(extent, int):
        surplus = (extent - 1) * stride + reach - wanted
    after = surplus - reach // 2
    return (reach // 2, max(after, 0)), max(-after, 0)


_MIXINS: dict[type[Layer], type[Layer]] = {
    convolution.Conv1D: _HalfPadded,
    convolution.Conv2D: _HalfPadded,
    convolution.Conv3D: _HalfPadded,
    convolution.Conv2DTranspose: _HalfCut,
    convolution.DepthwiseConv2D: _HalfPadded,
    convolution.SeparableConv1D: _HalfPadded,
    convolution.SeparableConv2D: _HalfPadded,
    pooling.MaxPooling1D: _WidePadded,
    pooling.MaxPooling2D: _WidePadded,
    pooling.MaxPooling3D: _WidePadded,
    pooling.AveragePooling1D: _WidePadded,
    pooling.AveragePooling2D: _WidePadded,
    pooling.AveragePooling3D: _WidePadded,
}
THEANO_NAMES = frozenset(cls.__name__ for cls in _MIXINS)


@cache
def theano_layer(cls: type[Layer]) -> type[Layer]:
    """The class that pads as Theano did; `cls` itself, where it does not pad. Made when a file needs it."""
    mixin = _MIXINS.get(cls)
    return type(cls.__name__, (mixin, cls), {"__doc__": mixin.__doc__}) if mixin else cls
