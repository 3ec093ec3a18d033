"""Normalizations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcompile.ir import expression
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values, normalize_axis

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Value


@dataclass(frozen=True)
class BatchNorm(Op, name="batch_norm", operands=("x", "gamma", "beta", "mean", "variance")):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, one number each per element of `axis`.

    Ioffe and Szegedy 2015, arXiv:1502.03167, at inference.
    """

    epsilon: float
    axis: int = -1

    def infer(self, types: Types) -> Types:
        axis = normalize_axis(self, self.axis, types)
        fits = all(t.shape == (types[0].shape[axis],) and t.dtype == types[0].dtype for t in types[1:])
        self.require(fits, "gamma, beta, mean and variance must hold one number per channel", types)
        return types[:1]

    def _aligned(self, rank: int, extent: Dim) -> list[Dim]:
        shape: list[Dim] = [1] * rank
        shape[self.axis] = extent
        return shape

    def kernel(self, args: Arrays) -> Arrays:
        x = args[0]
        gamma, beta, mean, variance = (a.reshape([*map(int, self._aligned(x.ndim, a.size))]) for a in args[1:])
        scale = gamma / np.sqrt(variance + x.dtype.type(self.epsilon))
        y = x - mean
        y *= scale
        y += beta
        return (y,)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        from kcompile.ir.ops import arithmetic as a
        from kcompile.ir.ops.activation import scalar_like
        from kcompile.ir.ops.shape import Reshape

        x, shape = xs[0], tuple(self._aligned(xs[0].type.rank, xs[1].type.shape[0]))
        deviation = b(a.Sqrt(), b(a.Add(), xs[4], scalar_like(b, x, self.epsilon)))
        scale = b(a.Div(), xs[1], deviation)
        shift = b(a.Sub(), xs[2], b(a.Mul(), xs[3], scale))
        scale, shift = (b(Reshape(shape), v) for v in (scale, shift))
        return (b(a.Add(), b(a.Mul(), x, scale), shift),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, gamma, mean, variance, dy = expression.lift(b, xs[0], xs[1], xs[3], xs[4], *dys)
        aligned = self._aligned(x.type.rank, gamma.shape[0])
        others = [axis for axis, dim in enumerate(self._aligned(x.type.rank, 0)) if dim]
        scale = 1.0 / (variance + self.epsilon).sqrt()
        dx = dy * (gamma * scale).reshape(aligned)
        dbeta = dy.sum(others)
        dgamma = (dy * (x - mean.reshape(aligned))).sum(others) * scale
        dvariance = dgamma * gamma * scale * scale * -0.5
        return dx.value, dgamma.value, dbeta.value, (-(dbeta * gamma * scale)).value, dvariance.value


@dataclass(frozen=True)
class LayerNorm(Op, name="layer_norm", operands=("x", "gamma", "beta")):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` with mean and variance over the last axes.

    gamma and beta have the extents of the normalized axes: ``x: T[..., *D], gamma: T[*D], beta: T[*D] -> T[..., *D]``.
    Ba et al. 2016, arXiv:1607.06450.
    """

    epsilon: float

    def infer(self, types: Types) -> Types:
        x, gamma, beta = types
        fits = gamma.shape == beta.shape == x.shape[x.rank - gamma.rank :] and gamma.rank > 0
        self.require(fits and gamma.dtype == x.dtype, "gamma and beta must have the shape of x's last axes", types)
        return (x,)

    def kernel(self, args: Arrays) -> Arrays:
        x, gamma, beta = args
        axes = tuple(range(-gamma.ndim, 0))
        centred = x - x.mean(axis=axes, keepdims=True, dtype=x.dtype)
        variance = np.square(centred).mean(axis=axes, keepdims=True, dtype=x.dtype)
        return (centred / np.sqrt(variance + x.dtype.type(self.epsilon)) * gamma + beta,)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        from kcompile.ir.ops import arithmetic as a
        from kcompile.ir.ops.activation import scalar_like
        from kcompile.ir.ops.reduction import ReduceMean

        x, gamma, beta = xs
        mean = ReduceMean(tuple(range(-gamma.type.rank, 0)), keepdims=True)
        centred = b(a.Sub(), x, b(mean, x))
        variance = b(mean, b(a.Mul(), centred, centred))
        deviation = b(a.Sqrt(), b(a.Add(), variance, scalar_like(b, x, self.epsilon)))
        return (b(a.Add(), b(a.Mul(), b(a.Div(), centred, deviation), gamma), beta),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients_norm import LayerNormGradient

        (dy,) = expression.lift(b, *dys)
        return b.multi(LayerNormGradient(self.epsilon), xs[0], xs[1], dy.value)
