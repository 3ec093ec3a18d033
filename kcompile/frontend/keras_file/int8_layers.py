"""Layers whose weights Keras 3 quantised to 8 bits, as `model.quantize("int8")` leaves them.

A weight is ``q / scale`` with q: int8 and one scale per output feature. Unless the config leaves it out, the input is
quantised too, at run time and for each row by itself: ``round(x * s)`` with ``s = 127 / (max|x| + 1e-7)``, which never
leaves [-127, 127]. Products are sums of integers, computed in floats, which are exact up to 2 ** 24. Source:
`_int8_call` in keras/src/layers/core and `abs_max_quantize` in keras/src/quantizers/quantizers.py of Keras 3.15.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import activations
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers.core import Dense, Embedding
from kcompile.frontend.layers.einsum import EinsumDense, einsum
from kcompile.frontend.layers.writing import cast, expand_dims, like, reshape, transpose
from kcompile.frontend.tracing import Trace
from kcompile.frontend.weight import Weight
from kcompile.ir import ops
from kcompile.ir.graph import Value


@dataclass(frozen=True)
class InputQuantizer:
    """How inputs are quantised: to ``[-largest, largest]`` by the largest magnitude plus `epsilon`."""

    largest: float = 127.0
    epsilon: float = 1e-7

    def __call__(self, t: Trace, x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
        """The integers, in floats, and their scales, with `axes` of extent 1."""
        magnitude = t(ops.ReduceMax(tuple(axes), True), t(ops.Abs(), x))
        scale = t(ops.Div(), like(t, x, self.largest), t(ops.Add(), magnitude, like(t, x, self.epsilon)))
        return t(ops.Round(), t(ops.Mul(), x, scale)), scale


def _input_quantizer(layer: Layer, config: Any, default: InputQuantizer | None) -> InputQuantizer | None:
    match config:
        case None:
            return default
        case {"config": {"activation_quantizer": None}}:
            return None
        case {
            "config": {
                "activation_quantizer": {
                    "class_name": "AbsMaxQuantizer",
                    "config": {"value_range": [low, high], "epsilon": epsilon},
                }
            }
        } if low == -high:
            return InputQuantizer(float(high), float(epsilon))
        case _:
            law = f"`quantization_config` of layer `{layer.name}` must quantise inputs by AbsMaxQuantizer or not"
            raise ModelError(f"{law}. Received: {config!r}.")


class QuantizedLayer(Layer):
    """What the layers share: their arrays, and that no file is written of them."""

    # How inputs are quantised where the config does not say it.
    default_quantizer: ClassVar[InputQuantizer | None] = InputQuantizer()

    quantization_config: Any

    def __post_init__(self) -> None:
        self.input_quantizer = _input_quantizer(self, self.quantization_config, self.default_quantizer)
        self.quantization_config = None
        super().__post_init__()

    def keep(self, name: str, shape: Sequence[Any], dtype: str) -> None:
        """Create an array that the file will fill."""
        self.own_weights.append(Weight(name, np.zeros(tuple(shape), dtype), trainable=False))

    def get_config(self) -> dict[str, Any]:
        law = f"layer `{self.name}` is quantised, which kcompile reads and compiles but does not save"
        raise ModelError(f"{law}. Save the model before `quantize`.")


@register_layer("kcompile.int8>Dense")
@dataclass(eq=False)
class Int8Dense(QuantizedLayer, Dense):
    """``activation(round(x * s) @ q / (s * scale) + bias)``: ``x: T[..., K], q: i8[K, units] -> T[..., units]``."""

    def build(self, *input_shapes: Any) -> None:
        self.keep("kernel", (input_shapes[0][-1], self.units), "int8")
        if self.use_bias:
            self.keep("bias", (self.units,), self.variable_dtype)
        self.keep("kernel_scale", (self.units,), self.variable_dtype)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, scale = args[0], t.weight("kernel_scale")
        if self.input_quantizer:
            x, input_scale = self.input_quantizer(t, x, (x.type.rank - 1,))
            scale = t(ops.Mul(), scale, input_scale)
        y = t(ops.Div(), t(ops.Dense(), x, cast(t, t.weight("kernel"), x.type.dtype)), scale)
        y = t(ops.Add(), y, t.weight("bias")) if self.use_bias else y
        return activations.apply(t, self.activation, y)


@register_layer("kcompile.int8>Embedding")
@dataclass(eq=False)
class Int8Embedding(QuantizedLayer, Embedding):
    """Row x of a table over the row's scale: ``x: i[...], q: i8[input_dim, output_dim] -> T[..., output_dim]``."""

    def build(self, *input_shapes: Any) -> None:
        self.keep("embeddings", (self.input_dim, self.output_dim), "int8")
        self.keep("embeddings_scale", (self.input_dim,), self.variable_dtype)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        indices = x if x.type.dtype in ("int32", "int64") else cast(t, x, "int32")
        scale = t(ops.Gather(), t.weight("embeddings_scale"), indices)
        row = cast(t, t(ops.Gather(), t.weight("embeddings"), indices), scale.type.dtype)
        return t(ops.Div(), row, expand_dims(t, scale, -1))


@register_layer("kcompile.int8>EinsumDense")
@dataclass(eq=False)
class Int8EinsumDense(QuantizedLayer, EinsumDense):
    """`EinsumDense` of a quantised kernel, with a scale for each element of the result's axes that the kernel has."""

    def build(self, *input_shapes: Any) -> None:
        equation = self.analyzed(input_shapes[0])
        self.keep("kernel", equation.kernel_shape, "int8")
        if equation.bias_shape is not None:
            self.keep("bias", equation.bias_shape, self.variable_dtype)
        extents = dict(zip(equation.kernel, equation.kernel_shape, strict=True))
        self.keep("kernel_scale", [extents.get(letter, 1) for letter in equation.y], self.variable_dtype)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        equation = self.analyzed(x.type.shape)
        scale = t.weight("kernel_scale")
        if self.input_quantizer:
            summed = [axis for axis, letter in enumerate(equation.x) if letter not in equation.y]
            x, input_scale = self.input_quantizer(t, x, summed)
            scale = t(ops.Mul(), scale, beside(t, input_scale, equation.x, equation.y))
        kernel = cast(t, t.weight("kernel"), x.type.dtype)
        y = t(ops.Div(), einsum(t, equation.x, equation.kernel, equation.y, x, kernel), scale)
        y = t(ops.Add(), y, t.weight("bias")) if equation.bias_shape is not None else y
        return activations.apply(t, self.activation, y)


def beside(t: Trace, x: Value, letters: str, wanted: str) -> Value:
    """`x` with the axes `wanted`: those that it lacks have extent 1, as those have that `wanted` lacks."""
    order = sorted(range(len(letters)), key=lambda axis: wanted.find(letters[axis]))
    extents = dict(zip(letters, x.type.shape, strict=True))
    return reshape(t, transpose(t, x, order), [extents.get(letter, 1) for letter in wanted])


# By the layer that is quantised.
INT8_LAYERS: dict[str, type[Layer]] = {
    "Dense": Int8Dense,
    "EinsumDense": Int8EinsumDense,
    "Embedding": Int8Embedding,
}


def become_int8(layer: Layer, shapes: Sequence[tuple[int, ...]]) -> None:
    """Make `layer` the quantised one, for arrays of these shapes.

    The config of a layer such as MultiHeadAttention does not tell how those inside are quantised; their arrays do.
    """
    names = [weight.name for weight in layer.own_weights]
    dtypes = ["int8", *[layer.variable_dtype] * len(names)]
    layer.__class__ = INT8_LAYERS[type(layer).__name__]
    assert isinstance(layer, QuantizedLayer)
    layer.input_quantizer = layer.default_quantizer
    layer.own_weights.clear()
    for name, shape, dtype in zip([*names, f"{names[0]}_scale"], shapes, dtypes, strict=True):
        layer.keep(name, shape, dtype)
