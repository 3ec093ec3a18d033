"""Products of matrices."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcompile.ir import dims, expression
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Elementwise, Gradients, Op, Types, Values, broadcast_shapes
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder


def product(x: Array, y: Array) -> Array:
    """``x @ y``; of halves, summed in float32, for which there is a fast routine."""
    if x.dtype == np.float16:
        return np.matmul(x.astype(np.float32), y.astype(np.float32)).astype(np.float16)
    return np.matmul(x, y)


@dataclass(frozen=True)
class Dense(Op, name="dense", operands=("x", "kernel", "bias?")):
    """``y = x @ kernel + bias``: ``x: T[..., K], kernel: T[K, M], bias: T[M] -> T[..., M]``."""

    def infer(self, types: Types) -> Types:
        x, kernel = types[:2]
        fits = kernel.rank == 2 and x.rank >= 1 and x.dtype == kernel.dtype and x.shape[-1] == kernel.shape[0]
        self.require(fits, "x must be [..., K] and the kernel [K, M]", types)
        self.require(len(types) < 3 or types[2].shape == kernel.shape[1:], "the bias must be [M]", types)
        return (x.with_shape((*x.shape[:-1], kernel.shape[1])),)

    def kernel(self, args: Arrays) -> Arrays:
        x, kernel = args[:2]
        y = product(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[1])
        return (y + args[2] if len(args) > 2 else y,)

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(results[0].size, types[1].shape[0])

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, kernel, dy = expression.lift(b, *xs[:2], *dys)
        samples = dims.mul(*x.shape[:-1])
        rows, columns = x.reshape((samples, kernel.shape[0])), dy.reshape((samples, kernel.shape[1]))
        bias = [dy.sum(range(dy.type.rank - 1)).value] if len(xs) > 2 else []
        return (
            dy.apply(Dense(), kernel.swap_last()).value,
            rows.swap_last().apply(MatMul(), columns).value,
            *bias,
        )


@dataclass(frozen=True)
class MatMul(Op, name="matmul", operands=("x", "y")):
    """``x @ y`` over the last two axes, the others broadcast: ``[..., M, K], [..., K, P] -> [..., M, P]``."""

    def infer(self, types: Types) -> Types:
        x, y = types
        fits = x.rank >= 2 and y.rank >= 2 and x.dtype == y.dtype and x.shape[-1] == y.shape[-2]
        self.require(fits, "operands must be [..., M, K] and [..., K, P]", types)
        lead = broadcast_shapes(self, (x.with_shape(x.shape[:-2]), y.with_shape(y.shape[:-2])))
        return (x.with_shape((*lead, x.shape[-2], y.shape[-1])),)

    def kernel(self, args: Arrays) -> Arrays:
        return (product(args[0], args[1]),)

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(results[0].size, types[0].shape[-1])

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *dys)
        dx, other = dy.apply(MatMul(), y.swap_last()), x.swap_last().apply(MatMul(), dy)
        return expression.unbroadcast(dx, x.type), expression.unbroadcast(other, y.type)


@dataclass(frozen=True)
class ScaledSum(Elementwise, name="scaled_sum", operands=("x", "a", "y", "b")):
    """``a * x + b * y``, BLAS's axpby: ``x, y: T[...], a, b: T[] -> T[...]``."""

    def infer(self, types: Types) -> Types:
        x, a, y, b = types
        fits = x.is_float and x == y and a == b == x.with_shape(())
        self.require(fits, "x and y must be floats of one type, a and b numbers of theirs", types)
        return (x,)

    def kernel(self, args: Arrays) -> Arrays:
        x, a, y, b = args
        return (a * x + b * y,)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, first, y, second, dy = expression.lift(b, *xs, *dys)
        return (dy * first).value, (dy * x).sum().value, (dy * second).value, (dy * y).sum().value
