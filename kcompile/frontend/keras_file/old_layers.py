"""Layers that Keras 3 dropped, from the code of Keras 1.2.2 and of Keras 2."""

from dataclasses import dataclass
from typing import Any, ClassVar

from kcompile.frontend import activations
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.dims import Shape
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value


@register_layer("keras>MaxoutDense")
@dataclass(eq=False)
class MaxoutDense(Layer):
    """The largest of `nb_feature` products: ``x: T[N, K], kernel: T[F, K, units], bias: T[F, units] -> T[N, units]``.

    Goodfellow et al. 2013, arXiv:1302.4389.
    """

    units: int
    nb_feature: int = 4
    use_bias: bool = True
    activity_regularizer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "units", "nb_feature")

    def build(self, *input_shapes: Any) -> None:
        self.add_weight("kernel", (self.nb_feature, input_shapes[0][-1], self.units))
        if self.use_bias:
            self.add_weight("bias", (self.nb_feature, self.units), "zeros")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, kernel = lift(t.b, args[0], t.weight("kernel"))
        products = x.expand(0).apply(ops.MatMul(), kernel)
        if self.use_bias:
            products = products + lift(t.b, t.weight("bias"))[0].expand(1)
        return products.max((0,)).value


@register_layer("keras>Highway")
@dataclass(eq=False)
class Highway(Layer):
    """``g * activation(x @ kernel + bias) + (1 - g) * x`` with ``g = sigmoid(x @ carry + carry_bias)``.

    Srivastava et al. 2015, arXiv:1505.00387.
    """

    activation: Any = None
    use_bias: bool = True
    activity_regularizer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.activation = activations.get(self.activation, f"`activation` of layer `{self.name}`")

    def build(self, *input_shapes: Any) -> None:
        units = input_shapes[0][-1]
        for name in ("kernel", "carry"):
            self.add_weight(name, (units, units))
        for name in ("bias", "carry_bias") if self.use_bias else ():
            self.add_weight(name, (units,), "zeros")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        def product(name: str, bias: str) -> Value:
            added = [t.weight(bias)] if self.use_bias else []
            return t(ops.Dense(), args[0], t.weight(name), *added)

        gate = t(ops.Sigmoid(), product("carry", "carry_bias"))
        made = activations.apply(t, self.activation, product("kernel", "bias"))
        x, g, y = lift(t.b, args[0], gate, made)
        return (g * y + (1.0 - g) * x).value


class _Parametric(Layer):
    """Base of activations with parameters for each element of a sample, or shared along axes."""

    supports_masking = True
    parameters: ClassVar[tuple[str, ...]]

    shared_axes: Any

    def build(self, *input_shapes: Any) -> None:
        shared = [self.shared_axes] if isinstance(self.shared_axes, int) else list(self.shared_axes or ())
        shape = [1 if axis in shared else extent for axis, extent in enumerate(input_shapes[0][1:], 1)]
        for name in self.parameters:
            self.add_weight(name, shape, "zeros")

    def lifted(self, t: Trace, x: Value) -> tuple[Expression, ...]:
        """The input and the parameters."""
        return lift(t.b, x, *(t.weight(name) for name in self.parameters))


@register_layer("keras>SReLU")
@dataclass(eq=False)
class SReLU(_Parametric):
    """`x` between two bounds, and lines of other slopes beyond them; Jin et al. 2016, arXiv:1512.07030.

    The right bound is ``t_left + |t_right|``.
    """

    parameters = ("t_left", "a_left", "t_right", "a_right")

    shared_axes: Any = None

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, left, a_left, right, a_right = self.lifted(t, args[0])
        bound = left + right.abs()
        below, above = (x - left).minimum(0.0), (x - bound).maximum(0.0)
        return (x.maximum(left).minimum(bound) + a_left * below + a_right * above).value


@register_layer("keras>ParametricSoftplus")
@dataclass(eq=False)
class ParametricSoftplus(_Parametric):
    """``alpha * log(1 + exp(beta * x))``."""

    parameters = ("alpha", "beta")

    shared_axes: Any = None

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, alpha, beta = self.lifted(t, args[0])
        return (alpha * (beta * x).apply(ops.Softplus())).value


@register_layer("kcompile>UnaveragedNormalization")
@dataclass(eq=False)
class UnaveragedNormalization(Layer):
    """BatchNormalization of Keras 1 by what training did not average: mode 1 or 2.

    Mode 1 divides each sample by its own deviation along `axis`: ``(x - mean) / (sqrt(var + epsilon) + epsilon)``; mode
    2 takes mean and variance of the batch at hand, in prediction as well.
    """

    supports_masking = True

    mode: int
    axis: int = -1
    epsilon: float = 1e-3
    momentum: float = 0.99

    def build(self, *input_shapes: Any) -> None:
        shape: Shape = (input_shapes[0][self.axis],)
        for name, initializer in (("gamma", "ones"), ("beta", "zeros")):
            self.add_weight(name, shape, initializer)
        for name, initializer in (("moving_mean", "zeros"), ("moving_variance", "ones")):
            self.add_weight(name, shape, initializer, trainable=False)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, gamma, beta = lift(t.b, args[0], t.weight("gamma"), t.weight("beta"))
        axis = self.axis % x.type.rank
        axes = (axis,) if self.mode == 1 else tuple(a for a in range(x.type.rank) if a != axis)
        centred = x - x.mean(axes, keepdims=True)
        deviation = (centred.square().mean(axes, keepdims=True) + self.epsilon).sqrt()
        if self.mode == 1:
            return (centred / (deviation + self.epsilon) * gamma + beta).value
        beside = [extent if a == axis else 1 for a, extent in enumerate(x.shape)]
        return (centred / deviation * gamma.reshape(beside) + beta.reshape(beside)).value


@register_layer("keras>RandomFourierFeatures")
@dataclass(eq=False)
class RandomFourierFeatures(Layer):
    """``cos(x @ unscaled_kernel / kernel_scale + bias)``; Rahimi and Recht 2007. Of tf.keras's experimental layers."""

    output_dim: int
    scale: float | None = None

    def build(self, *input_shapes: Any) -> None:
        self.add_weight("kernel_scale", (1,), "ones")
        self.add_weight("unscaled_kernel", (input_shapes[0][-1], self.output_dim), "random_normal", trainable=False)
        self.add_weight("bias", (self.output_dim,), "zeros", trainable=False)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, kernel, scale, bias = lift(t.b, args[0], *(t.weight(n) for n in ("unscaled_kernel", "kernel_scale", "bias")))
        return (x.cast(kernel.type.dtype).apply(ops.Dense(), kernel / scale) + bias).cos().value
