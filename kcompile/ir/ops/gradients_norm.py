"""Normalization as training does it, and the gradients of normalizations and of resampling."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from kcompile.ir import expression
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values, bind_shape, normalize_axis
from kcompile.ir.ops.conv import activation_shape, channels_of
from kcompile.ir.ops.image import Resize
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder


def _rows(x: Array, axis: int) -> Array:
    """``x: T[..., C, ...] -> T[R, C]`` where C is the extent of `axis`."""
    moved = np.moveaxis(x, axis, -1)
    return moved.reshape(moved.size // max(moved.shape[-1], 1), moved.shape[-1])


def _unrowed(rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    moved = (*shape[:axis], *shape[axis + 1 :], shape[axis])
    return np.moveaxis(rows.reshape(moved), -1, axis)


@dataclass(frozen=True)
class BatchNormTraining(Op, name="batch_norm_training", operands=("x", "gamma", "beta")):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` with the statistics of the batch, which follow.

    ``x: T[..., C, ...], gamma: T[C], beta: T[C] -> T[..., C, ...], mean: T[C], variance: T[C]`` with C at `axis`; the
    variance is the mean of ``(x - mean) ** 2``. Ioffe and Szegedy 2015, arXiv:1502.03167.
    """

    epsilon: float
    axis: int = -1

    def infer(self, types: Types) -> Types:
        axis = normalize_axis(self, self.axis, types)
        channels = types[0].with_shape((types[0].shape[axis],))
        self.require(types[1:] == (channels, channels), "gamma and beta must hold one number per channel", types)
        return types[0], channels, channels

    def kernel(self, args: Arrays) -> Arrays:
        x, gamma, beta = args
        axis = self.axis % x.ndim
        rows = _rows(x, axis)
        mean = rows.mean(axis=0, dtype=x.dtype)
        centred = rows - mean
        variance = np.square(centred).mean(axis=0, dtype=x.dtype)
        centred *= gamma / np.sqrt(variance + x.dtype.type(self.epsilon))
        centred += beta
        return _unrowed(centred, x.shape, axis), mean, variance

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        dy = expression.given(b, dys[:1], ys[:1])[0]
        gradient = BatchNormTrainingGradient(self.epsilon, self.axis)
        found, dgamma, dbeta = b.multi(gradient, xs[0], xs[1], ys[1], ys[2], dy)
        x, dx = expression.lift(b, xs[0], found)
        axis = self.axis % x.type.rank
        others = [other for other in range(x.type.rank) if other != axis]
        size = expression.count(b, [x.shape[other] for other in others], x.type.dtype)
        if dys[1] is not None:
            (dmean,) = expression.lift(b, dys[1])
            dx = dx + (dmean / size).keep(others, x.type.rank)
        if dys[2] is not None:
            mean, dvariance = expression.lift(b, ys[1], dys[2])
            dx = dx + (x - mean.keep(others, x.type.rank)) * (dvariance * 2.0 / size).keep(others, x.type.rank)
        return dx.value, dgamma, dbeta


@dataclass(frozen=True)
class BatchNormTrainingGradient(
    Op, name="batch_norm_training_gradient", operands=("x", "gamma", "mean", "variance", "dy")
):
    """The gradients of `BatchNormTraining` by ``x``, gamma and beta, from the gradient by its first result.

    With ``n = (x - mean) / sqrt(variance + epsilon)`` and means over the batch,
    ``dx = gamma / sqrt(variance + epsilon) * (dy - mean(dy) - n * mean(dy * n))``.
    """

    epsilon: float
    axis: int = -1

    def infer(self, types: Types) -> Types:
        x, gamma = types[:2]
        channels = x.with_shape((x.shape[normalize_axis(self, self.axis, types)],))
        self.require(types[1:] == (channels, channels, channels, x), "the operands must fit x", types)
        return x, gamma, gamma

    def kernel(self, args: Arrays) -> Arrays:
        x, gamma, mean, variance, dy = args
        axis = self.axis % x.ndim
        rows, drows = _rows(x, axis), _rows(dy, axis)
        scale = 1 / np.sqrt(variance + x.dtype.type(self.epsilon))
        normal = (rows - mean) * scale
        dbeta = drows.sum(axis=0, dtype=x.dtype)
        dgamma = np.einsum("rc,rc->c", drows, normal)
        size = x.dtype.type(max(rows.shape[0], 1))
        normal *= -dgamma / size
        normal += drows
        normal -= dbeta / size
        normal *= gamma * scale
        return _unrowed(normal, x.shape, axis), dgamma, dbeta


@dataclass(frozen=True)
class LayerNormGradient(Op, name="layer_norm_gradient", operands=("x", "gamma", "dy")):
    """The gradients of `LayerNorm` by ``x``, gamma and beta.

    With ``n = (x - mean) / sqrt(variance + epsilon)``, ``d = dy * gamma`` and means over each sample,
    ``dx = (d - mean(d) - n * mean(d * n)) / sqrt(variance + epsilon)``.
    """

    epsilon: float

    def infer(self, types: Types) -> Types:
        x, gamma, dy = types
        fits = x == dy and gamma.shape == x.shape[x.rank - gamma.rank :] and gamma.rank > 0
        self.require(fits, "dy must have x's type, and gamma the shape of its last axes", types)
        return x, gamma, gamma

    def kernel(self, args: Arrays) -> Arrays:
        x, gamma, dy = args
        width = max(gamma.size, 1)
        rows, drows = (a.reshape(a.size // width, gamma.size) for a in (x, dy))
        normal = rows - rows.mean(axis=1, keepdims=True, dtype=x.dtype)
        variance = np.einsum("rc,rc->r", normal, normal)[:, None] / x.dtype.type(width)
        scale = 1 / np.sqrt(variance + x.dtype.type(self.epsilon))
        normal *= scale
        dgamma = np.einsum("rc,rc->c", drows, normal)
        scaled = drows * gamma.reshape(-1)
        normal *= np.einsum("rc,rc->r", scaled, normal)[:, None] / -x.dtype.type(width)
        normal += scaled
        normal -= scaled.mean(axis=1, keepdims=True, dtype=x.dtype)
        normal *= scale
        dbeta = drows.sum(axis=0, dtype=x.dtype)
        return normal.reshape(x.shape), dgamma.reshape(gamma.shape), dbeta.reshape(gamma.shape)


@dataclass(frozen=True)
class ResizeGradient(Op, name="resize_gradient", operands=("dy",)):
    """The gradient of the resampling `of` by its input, whose spatial extents are `spatial`."""

    of: Resize
    spatial: Shape

    def infer(self, types: Types) -> Types:
        dy, data_format = types[0], self.of.data_format
        channels = channels_of(dy.shape, data_format)
        x = dy.with_shape(activation_shape(dy.shape[0], list(self.spatial), channels, data_format))
        self.require(self.of.infer((x,)) == types, "dy must be what the resampling gives", types)
        return (x,)

    def kernel(self, args: Arrays) -> Arrays:
        dx, first = args[0], 1 if self.of.data_format == "channels_last" else 2
        for axis, extent in enumerate(map(int, self.spatial), first):
            dx = np.moveaxis(np.moveaxis(dx, axis, -1) @ self._weights(dx.shape[axis], extent, dx.dtype), -1, axis)
        return (dx,)

    def _weights(self, size: int, extent: int, dtype: np.dtype) -> Array:
        """How much of each input element each result holds, along one axis: the resampling of unit vectors."""
        alone = replace(self.of, size=(size,), data_format="channels_last")
        return alone.kernel((np.eye(extent, dtype=dtype)[None],))[0][0]

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, of=self.of.bind(bindings), spatial=bind_shape(self.spatial, bindings))
