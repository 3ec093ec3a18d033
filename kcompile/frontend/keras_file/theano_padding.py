"""Padding "same" as Theano put it: half a window at the start, whatever the strides, where others put less.

Sources: `conv2d`, `_postprocess_conv2d_output` and `pool2d` in keras/backend/theano_backend.py of 1.2.2 and 2.2.4.
"""

from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer
from kcompile.frontend.layers import convolution, pooling
from kcompile.frontend.layers.writing import in_channels_last
from kcompile.frontend.tracing import Trace
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


def _mixed(mixin: type[Layer], *classes: type[Layer]) -> dict[type[Layer], type[Layer]]:
    return {cls: type(cls.__name__, (mixin, cls), {"__doc__": mixin.__doc__}) for cls in classes}


# By the class that pads as other backends do.
THEANO_LAYERS: dict[type[Layer], type[Layer]] = {
    **_mixed(
        _HalfPadded,
        convolution.Conv1D,
        convolution.Conv2D,
        convolution.Conv3D,
        convolution.DepthwiseConv2D,
        convolution.SeparableConv1D,
        convolution.SeparableConv2D,
    ),
    **_mixed(
        _WidePadded,
        pooling.MaxPooling1D,
        pooling.MaxPooling2D,
        pooling.MaxPooling3D,
        pooling.AveragePooling1D,
        pooling.AveragePooling2D,
        pooling.AveragePooling3D,
    ),
}
THEANO_NAMES = frozenset(cls.__name__ for cls in THEANO_LAYERS)
