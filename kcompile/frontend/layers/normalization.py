"""Normalizations of activations."""

import math
from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layer_configs import deserialize_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.writing import cast, full, inverse, last_axes, like, reshape, transpose
from kcompile.frontend.tracing import Trace, ensure_built
from kcompile.frontend.training.losses.functions import EPSILON
from kcompile.frontend.training.losses.functions import unit as unit_vector
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Value


def axes_of(layer: Layer, rank: int | None = None) -> list[int]:
    """The argument `axis` as a list; of numbers from 0 on where the input's `rank` is given."""
    value: Any = getattr(layer, "axis")  # noqa: B009 - the base has no such field
    axes: Any = [value] if isinstance(value, int) else value
    fits = isinstance(axes, list | tuple) and bool(axes) and all(isinstance(a, int) for a in axes)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    layer.require(fits, "axis", "an integer or a list of integers")
    if rank is None:
        return list(axes)
    layer.require(all(-rank <= a < rank for a in axes), "axis", f"from {-rank} to {rank - 1} for its input")
    return [a % rank for a in axes]


def wide(t: Trace, x: Value) -> Value:
    """`x` as float32 at least, in which Keras normalizes whatever the policy."""
    return x if x.type.dtype == "float64" else cast(t, x, "float32")


class _Affine(Layer):
    """Base of layers with a scale gamma and an offset beta that can be left out."""

    epsilon: float
    center: bool
    scale: bool
    beta_initializer: Any
    gamma_initializer: Any

    def add_affine(self, shape: Shape) -> None:
        """Create gamma and beta, where the layer has them."""
        if self.scale:
            self.add_weight("gamma", shape, self.gamma_initializer)
        if self.center:
            self.add_weight("beta", shape, self.beta_initializer)

    def affine(self, t: Trace, shape: Shape, dtype: str) -> tuple[Value, Value]:
        """gamma and beta, ones and zeros in place of missing ones."""
        gamma = t.weight("gamma", dtype) if self.scale else full(t, shape, 1.0, dtype)
        beta = t.weight("beta", dtype) if self.center else full(t, shape, 0.0, dtype)
        return reshape(t, gamma, shape), reshape(t, beta, shape)


@register_layer("keras>BatchNormalization")
@dataclass(eq=False)
class BatchNormalization(_Affine):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` per element of `axis`, with the moving statistics.

    Training uses the statistics of the batch in their place, unless the layer is frozen. Ioffe and Szegedy 2015,
    arXiv:1502.03167.
    """

    supports_masking = True

    axis: Any = -1
    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Any = "zeros"
    gamma_initializer: Any = "ones"
    moving_mean_initializer: Any = "zeros"
    moving_variance_initializer: Any = "ones"
    beta_regularizer: Any = None
    gamma_regularizer: Any = None
    beta_constraint: Any = None
    gamma_constraint: Any = None
    renorm: bool = False
    renorm_clipping: Any = None
    renorm_momentum: float = 0.99
    synchronized: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(len(axes_of(self)) == 1, "axis", "one integer")
        self.axis = axes_of(self)[0]
        if self.renorm:
            self.renorm_clipping = self.renorm_clipping or {}

    def build(self, *input_shapes: Any) -> None:
        (axis,) = axes_of(self, len(input_shapes[0]))
        shape = (input_shapes[0][axis],)
        self.add_affine(shape)
        self.add_weight("moving_mean", shape, self.moving_mean_initializer, trainable=False)
        self.add_weight("moving_variance", shape, self.moving_variance_initializer, trainable=False)
        if self.renorm:
            for name, initializer in (("moving_stddev", "ones"), ("renorm_mean", "zeros"), ("renorm_stddev", "ones")):
                self.add_weight(name, shape, initializer, trainable=False)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = wide(t, args[0])
        axis = self.axis % x.type.rank
        gamma, beta = self.affine(t, (x.type.shape[axis],), x.type.dtype)
        position = -1 if axis == x.type.rank - 1 else axis
        if t.training and t.trainable:
            return cast(t, self._trained(t, x, gamma, beta, position), self.compute_dtype)
        mean, variance = (t.weight(f"moving_{name}", x.type.dtype) for name in ("mean", "variance"))
        y = t(ops.BatchNorm(float(self.epsilon), position), x, gamma, beta, mean, variance)
        return cast(t, y, self.compute_dtype)

    def _trained(self, t: Trace, x: Value, gamma: Value, beta: Value, axis: int) -> Value:
        """The result with the statistics of the batch, which move the averages."""
        self.require(not self.renorm, "renorm", "False while training")
        mask = t.masks[0] if t.masks else None
        if mask is None:
            y, mean, variance = t.multi(ops.BatchNormTraining(float(self.epsilon), axis), x, gamma, beta)
        else:
            mean, variance = self._masked_moments(Expression(t.b, x), Expression(t.b, mask), axis)
            y = t(ops.BatchNorm(float(self.epsilon), axis), x, gamma, beta, mean, variance)
        for name, value in (("moving_mean", mean), ("moving_variance", variance)):
            before = Expression(t.b, t.weight(name, x.type.dtype))
            moved = before * self.momentum + Expression(t.b, value) * (1.0 - self.momentum)
            t.update(name, moved.value)
        return y

    def _masked_moments(self, x: Expression, mask: Expression, axis: int) -> tuple[Value, Value]:
        """Mean and variance of what the mask marks, with the epsilon of Keras in the denominators."""
        axes = [a for a in range(x.type.rank) if a != axis % x.type.rank]
        seen = mask.expand(-1).broadcast_to(x.shape)
        count = seen.cast(x.type.dtype).sum(axes) + EPSILON
        mean = x.where(seen, 0.0).sum(axes) / count
        apart = (x - mean.keep(axes, x.type.rank)).where(seen, 0.0)
        return mean.value, (apart.square().sum(axes) / count).value


@register_layer("keras>LayerNormalization")
@dataclass(eq=False)
class LayerNormalization(_Affine):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` with the statistics of each sample over `axis`.

    Ba et al. 2016, arXiv:1607.06450. `rms_scaling` (deprecated in Keras) scales by the deviation without centring.
    """

    supports_masking = True
    autocast = False

    axis: Any = -1
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Any = "zeros"
    gamma_initializer: Any = "ones"
    beta_regularizer: Any = None
    gamma_regularizer: Any = None
    beta_constraint: Any = None
    gamma_constraint: Any = None
    rms_scaling: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        axes_of(self)
        if self.rms_scaling:
            self.scale, self.center = True, False

    def build(self, *input_shapes: Any) -> None:
        axes_of(self, len(input_shapes[0]))
        self.add_affine(tuple(input_shapes[0][axis] for axis in sorted(axes_of(self))))

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = wide(t, args[0])
        perm = last_axes(x.type.rank, sorted(axes_of(self, x.type.rank)))
        y = transpose(t, x, perm)
        shape = y.type.shape[-len(axes_of(self)) :]
        gamma, beta = self.affine(t, shape, x.type.dtype)
        if self.rms_scaling:
            y = t(ops.Mul(), self._scaled(t, y, len(shape)), gamma)
        else:
            y = t(ops.LayerNorm(float(self.epsilon)), y, gamma, beta)
        return cast(t, transpose(t, y, inverse(perm)), self.compute_dtype)

    def _scaled(self, t: Trace, x: Value, count: int) -> Value:
        mean = ops.ReduceMean(tuple(range(-count, 0)), keepdims=True)
        centred = t(ops.Sub(), x, t(mean, x))
        variance = t(mean, t(ops.Mul(), centred, centred))
        return t(ops.Div(), x, t(ops.Sqrt(), t(ops.Add(), variance, like(t, x, self.epsilon))))


@register_layer("keras>GroupNormalization")
@dataclass(eq=False)
class GroupNormalization(_Affine):
    """Normalizes each sample over blocks of ``C / groups`` channels of `axis`; -1 groups: each channel by itself.

    Wu and He 2018, arXiv:1803.08494.
    """

    supports_masking = True
    autocast = False

    groups: int = 32
    axis: int = -1
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Any = "zeros"
    gamma_initializer: Any = "ones"
    beta_regularizer: Any = None
    gamma_regularizer: Any = None
    beta_constraint: Any = None
    gamma_constraint: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.groups == -1 or arguments.is_int(self.groups, 1), "groups", "a positive integer or -1")
        self.require(len(axes_of(self)) == 1, "axis", "one integer")

    def build(self, *input_shapes: Any) -> None:
        (axis,) = axes_of(self, len(input_shapes[0]))
        channels = input_shapes[0][axis]
        self.add_affine((channels,))
        fits = isinstance(channels, int) and (self.groups == -1 or channels % self.groups == 0)
        self.require(fits, "groups", f"a divisor of the {channels} channels of its input")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = wide(t, args[0])
        (axis,) = axes_of(self, x.type.rank)
        others = [a for a in range(1, x.type.rank) if a != axis]
        perm = (0, axis, *others)
        y = transpose(t, x, perm)
        shape = y.type.shape
        channels = shape[1]
        assert isinstance(channels, int)
        groups = channels if self.groups == -1 else self.groups
        block: Dim = dims.mul(channels // groups, *shape[2:])
        y = self._normalized(t, t(ops.Reshape((shape[0], groups, block)), y))
        y = transpose(t, reshape(t, y, shape), inverse(perm))
        gamma, beta = self.affine(t, tuple(channels if a == axis else 1 for a in range(x.type.rank)), x.type.dtype)
        return cast(t, t(ops.Add(), t(ops.Mul(), y, gamma), beta), self.compute_dtype)

    def _normalized(self, t: Trace, x: Value) -> Value:
        mean = ops.ReduceMean((-1,), keepdims=True)
        centred = t(ops.Sub(), x, t(mean, x))
        variance = t(mean, t(ops.Mul(), centred, centred))
        return t(ops.Div(), centred, t(ops.Sqrt(), t(ops.Add(), variance, like(t, x, self.epsilon))))


@register_layer("keras>RMSNormalization")
@dataclass(eq=False)
class RMSNormalization(Layer):
    """``scale * x / sqrt(mean(x^2) + epsilon)`` over `axis`; Zhang and Sennrich 2019, arXiv:1910.07467."""

    axis: Any = -1
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        axes_of(self)

    def build(self, *input_shapes: Any) -> None:
        axes_of(self, len(input_shapes[0]))
        self.add_weight("scale", tuple(input_shapes[0][axis] for axis in sorted(axes_of(self))), "ones")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = wide(t, args[0])
        square = t(ops.ReduceMean(tuple(axes_of(self)), keepdims=True), t(ops.Mul(), x, x))
        y = t(ops.Div(), x, t(ops.Sqrt(), t(ops.Add(), square, like(t, x, self.epsilon))))
        return cast(t, t(ops.Mul(), y, t.weight("scale", x.type.dtype)), args[0].type.dtype)


def unit(t: Trace, x: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    """``x`` divided by its Euclidean norm over `axes`, which counts as `epsilon` at least."""
    norm = t(ops.Sqrt(), t(ops.ReduceSum(axes, keepdims=True), t(ops.Mul(), x, x)))
    return t(ops.Div(), x, t(ops.Maximum(), norm, like(t, x, epsilon)))


@register_layer("keras>UnitNormalization")
@dataclass(eq=False)
class UnitNormalization(Layer):
    """``x`` divided by its Euclidean norm over `axis`."""

    supports_masking = True

    axis: Any = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        axes_of(self)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return unit(t, args[0], tuple(axes_of(self)), 1e-12)


@register_layer("keras>SpectralNormalization")
@dataclass(eq=False)
class SpectralNormalization(Layer):
    """`layer` as it is; in training, with its kernel divided by the largest singular value.

    Miyato et al. 2018, arXiv:1802.05957.
    """

    layer: Any
    power_iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layer = deserialize_layer(self.layer)
        arguments.positive(self, "power_iterations")

    @property
    def sublayers(self) -> dict[str, Layer]:
        return {"layer": self.layer}

    def build(self, *input_shapes: Any) -> None:
        ensure_built(self.layer, input_shapes)
        kernels = [w for w in self.layer.own_weights if w.name in ("kernel", "embeddings")]
        if not kernels:
            law = f"layer `{self.name}` wraps layers with a kernel or embeddings"
            raise ModelError(f"{law}. Received: {type(self.layer).__name__}.")
        # As in Keras, the kernel is a weight of both layers, and comes first.
        self.own_weights.append(kernels[0])
        self.add_weight("vector_u", (1, kernels[0].shape[-1]), "truncated_normal", trainable=False)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        inside = t
        if t.training:
            u, kernel = self._normalized(t)
            t.update("vector_u", u)
            inside = t.with_weights({self.own_weights[0]: kernel})
        # Keras gives the result the input's dtype, even that of indices.
        return cast(t, inside.run(self.layer, *args, **kwargs), args[0].type.dtype)

    def _normalized(self, t: Trace) -> tuple[Value, Value]:
        """The vector after iterations of the power method, and the kernel by its largest singular value.

        A step of training computes with that kernel, and changes the one that it is made from; a kernel of zeros stays.
        """
        kernel, old = (Expression(t.b, t.read(weight)) for weight in self.own_weights)
        extent = kernel.type.static_shape()[-1]
        w, u = kernel.reshape((math.prod(kernel.type.static_shape()) // extent, extent)), old
        v = u
        for _ in range(self.power_iterations):
            v = unit_vector(u.apply(ops.MatMul(), w.swap_last()), (1,))
            u = unit_vector(v.apply(ops.MatMul(), w), (1,))
        u, v = u.apply(ops.StopGradient()), v.apply(ops.StopGradient())
        sigma = v.apply(ops.MatMul(), w).apply(ops.MatMul(), u.swap_last()).reshape(())
        is_zero = kernel.equals(0.0).all()
        return old.where(is_zero, u).value, (kernel / sigma.like(1.0).where(is_zero, sigma)).value
