"""Layers that keras.applications defines for its own networks."""

from dataclasses import dataclass
from typing import Any

from kcompile.frontend.initializers import Constant
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers.regularization import dropped
from kcompile.frontend.layers.writing import like
from kcompile.frontend.tracing import Trace, flatten
from kcompile.ir import ops
from kcompile.ir.graph import Value

_CONVNEXT = "keras.src.applications.convnext"


@register_layer("keras>CustomScaleLayer")
@dataclass(eq=False)
class CustomScaleLayer(Layer):
    """``x + scale * y`` for the list ``[x, y]``, the residual of Inception-ResNet; Szegedy et al. 2016."""

    keras_module = "keras.src.applications.inception_resnet_v2"

    scale: float

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, y = flatten(args)
        return t(ops.Add(), x, t(ops.Mul(), y, like(t, y, self.scale)))


@register_layer("keras>LayerScale")
@dataclass(eq=False)
class LayerScale(Layer):
    """``x: T[..., C] -> T[..., C]``, a learned factor for each of `projection_dim` channels; Touvron et al. 2021."""

    keras_module = _CONVNEXT

    init_values: float
    projection_dim: int

    def build(self, *input_shapes: Any) -> None:
        self.add_weight("variable", (self.projection_dim,), Constant(self.init_values))

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return t(ops.Mul(), args[0], t.weight("variable"))


@register_layer("keras>StochasticDepth")
@dataclass(eq=False)
class StochasticDepth(Layer):
    """Drops whole rows of a batch while training; Huang et al. 2016."""

    keras_module = _CONVNEXT

    drop_path_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        is_rate = isinstance(self.drop_path_rate, int | float) and 0 <= self.drop_path_rate < 1
        self.require(is_rate, "drop_path_rate", "a number from 0 to 1, without 1")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        return dropped(t, x, self.drop_path_rate, (x.type.shape[0], *(1,) * (x.type.rank - 1)))
