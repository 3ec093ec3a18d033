"""Activations as layers, for those with arguments or weights."""

from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend import activations
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.writing import like
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value
from kcompile.ir.op import Elementwise


@register_layer("keras>Activation")
@dataclass(eq=False)
class Activation(Layer):
    """The activation that `activation` names."""

    supports_masking = True

    activation: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        self.activation = activations.get(self.activation, f"`activation` of layer `{self.name}`")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return activations.apply(t, self.activation, args[0])


class _Elementwise(Layer):
    """Base of layers that are one elementwise op."""

    supports_masking = True

    @property
    def elementwise(self) -> Elementwise | None:
        """The op; None where the arguments need more than one."""
        raise NotImplementedError

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        op = self.elementwise
        assert op is not None
        return t(op, args[0])


def _number(layer: Layer, argument: str) -> None:
    value = getattr(layer, argument)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    layer.require(fits, argument, "a number from 0 on")


@register_layer("keras>ReLU")
@dataclass(eq=False)
class ReLU(_Elementwise):
    """``x`` above `threshold`, up to `max_value`, and ``negative_slope * (x - threshold)`` below."""

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _number(self, "negative_slope")
        _number(self, "threshold")
        if self.max_value is not None:
            _number(self, "max_value")

    @property
    def elementwise(self) -> Elementwise | None:
        if self.threshold != 0:
            return None
        if self.negative_slope == 0:
            return ops.Relu() if self.max_value is None else ops.Clip(0.0, float(self.max_value))
        return ops.LeakyRelu(float(self.negative_slope)) if self.max_value is None else None

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        if self.elementwise is not None:
            return super().call(t, *args, **kwargs)
        x: Value = args[0]
        above = t(ops.Compare(">"), x, like(t, x, self.threshold))
        y = t(ops.Where(), above, x, like(t, x, 0.0))
        if self.max_value is not None:
            y = t(ops.Clip(0.0, float(self.max_value)), y)
        if self.negative_slope == 0:
            return y
        below = t(ops.Relu(), t(ops.Sub(), like(t, x, self.threshold), x))
        return t(ops.Sub(), y, t(ops.Mul(), below, like(t, x, self.negative_slope)))


@register_layer("keras>LeakyReLU")
@dataclass(eq=False)
class LeakyReLU(_Elementwise):
    """``x`` from 0 on, ``negative_slope * x`` below."""

    negative_slope: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        _number(self, "negative_slope")

    @property
    def elementwise(self) -> Elementwise:
        return ops.LeakyRelu(float(self.negative_slope))


@register_layer("keras>ELU")
@dataclass(eq=False)
class ELU(_Elementwise):
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below."""

    alpha: float = 1.0

    @property
    def elementwise(self) -> Elementwise:
        return ops.Elu(float(self.alpha))


@register_layer("keras>ThresholdedReLU")
@dataclass(eq=False)
class ThresholdedReLU(Layer):
    """``x`` above `theta`, else 0; a layer of Keras 1 and 2."""

    supports_masking = True

    theta: float = 1.0

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        return t(ops.Where(), t(ops.Compare(">"), x, like(t, x, self.theta)), x, like(t, x, 0.0))


@register_layer("keras>PReLU")
@dataclass(eq=False)
class PReLU(Layer):
    """``x`` from 0 on, ``alpha * x`` below, with an alpha per element; one along each of `shared_axes`."""

    supports_masking = True

    alpha_initializer: Any = "Zeros"
    alpha_regularizer: Any = None
    alpha_constraint: Any = None
    shared_axes: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shared_axes is not None:
            given: Any = [self.shared_axes] if isinstance(self.shared_axes, int) else self.shared_axes
            self.shared_axes = list(given)
            fits = all(arguments.is_int(axis, 1) for axis in self.shared_axes)
            self.require(fits, "shared_axes", "integers from 1 on")

    def build(self, *input_shapes: Any) -> None:
        shape = list(input_shapes[0][1:])
        for axis in self.shared_axes or ():
            self.require(axis <= len(shape), "shared_axes", f"at most {len(shape)} for its input")
            shape[axis - 1] = 1
        self.add_weight("alpha", shape, self.alpha_initializer)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return t(ops.PRelu(), args[0], t.weight("alpha"))


@register_layer("keras>Softmax")
@dataclass(eq=False)
class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` along `axis`, over all of several axes at once; 0 where a mask is False."""

    supports_masking = True

    axis: Any = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = [self.axis] if isinstance(self.axis, int) else self.axis
        fits = isinstance(given, list | tuple) and all(isinstance(a, int) for a in given)  # pyright: ignore[reportUnknownVariableType]
        self.require(fits and bool(given), "axis", "an integer or a list of integers")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        mask: Value | None = kwargs.get("mask", args[1] if len(args) > 1 else t.masks[0])
        if mask is None:
            return softmax(t, x, self.axis)
        fits = mask.type.rank <= x.type.rank and all(
            m in (1, d) for m, d in zip(reversed(mask.type.shape), reversed(x.type.shape), strict=False)
        )
        if not fits:
            law = f"the mask of layer `{self.name}` must broadcast to its input {x.type}"
            raise ModelError(f"{law}. Received: {mask.type}.")
        if mask.type.dtype != "bool":
            mask = t(ops.Compare(">"), mask, like(t, mask, 0.5))
        y = softmax(t, t(ops.Where(), mask, x, like(t, x, MASKED[x.type.dtype])), self.axis)
        return t(ops.Where(), mask, y, like(t, x, 0.0))


# What `keras.layers.Softmax` puts in the place of masked elements.
MASKED = {"float16": -3e4, "float32": -1e9, "float64": -1e9}


def softmax(t: Trace, x: Value, axis: int | list[int] | tuple[int, ...]) -> Value:
    """The softmax over one axis, or over all elements of several."""
    axes = [axis] if isinstance(axis, int) else list(axis)
    if len(axes) == 1:
        return t(ops.Softmax(axes[0]), x)
    highest = t(ops.ReduceMax(tuple(axes), keepdims=True), x)
    powers = t(ops.Exp(), t(ops.Sub(), x, highest))
    return t(ops.Div(), powers, t(ops.ReduceSum(tuple(axes), keepdims=True), powers))
