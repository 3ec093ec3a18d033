"""Reductions over axes, and ops that run along one axis."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from kcompile.ir import expression
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values, normalize_axis

if TYPE_CHECKING:
    from kcompile.ir.expression import Expression
    from kcompile.ir.graph import Builder


@dataclass(frozen=True)
class _Reduce(Op, operands=("x",)):
    """Base: ``x: T[d0, d1, ...] -> T`` without `axes`, or with extent 1 there where `keepdims`."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def infer(self, types: Types) -> Types:
        axes = [normalize_axis(self, axis, types) for axis in self.axes]
        self.require(len(set(axes)) == len(axes), "`axes` must differ", types)
        shape: list[Dim] = []
        for axis, dim in enumerate(types[0].shape):
            if axis not in axes:
                shape.append(dim)
            elif self.keepdims:
                shape.append(1)
        return (types[0].with_shape(shape),)

    def _kept(self, y: "Expression", x: "Expression") -> "Expression":
        """A result, or its gradient, with the reduced axes as extents of 1."""
        return y if self.keepdims else y.keep(self.axes, x.type.rank)


@dataclass(frozen=True)
class ReduceSum(_Reduce, name="reduce_sum"):
    """The sum over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].sum(axis=self.axes, keepdims=self.keepdims, dtype=args[0].dtype),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        return (self._kept(dy, x).broadcast_to(x.shape).value,)


@dataclass(frozen=True)
class ReduceMean(_Reduce, name="reduce_mean"):
    """The mean over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].mean(axis=self.axes, keepdims=self.keepdims, dtype=args[0].dtype),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, dy = expression.lift(b, *xs, *dys)
        elements = expression.count(b, [x.shape[axis] for axis in self.axes], x.type.dtype)
        return (self._kept(dy / elements, x).broadcast_to(x.shape).value,)


class _Extremum(_Reduce):
    """Base: elements that equal the extremum share its gradient evenly."""

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        x, y, dy = expression.lift(b, *xs, *ys, *dys)
        chosen = x.equals(self._kept(y, x))
        number = chosen.cast(x.type.dtype).sum(self.axes, keepdims=True)
        share = self._kept(dy, x) / number
        return (share.broadcast_to(x.shape).where(chosen, 0.0).value,)


@dataclass(frozen=True)
class ReduceMax(_Extremum, name="reduce_max"):
    """The largest element over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.max(args[0], axis=self.axes, keepdims=self.keepdims),)


@dataclass(frozen=True)
class ReduceMin(_Extremum, name="reduce_min"):
    """The smallest element over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.min(args[0], axis=self.axes, keepdims=self.keepdims),)


@dataclass(frozen=True)
class ReduceProd(_Reduce, name="reduce_prod"):
    """The product over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].prod(axis=self.axes, keepdims=self.keepdims, dtype=args[0].dtype),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients import ReduceProdGradient

        x, dy = expression.lift(b, *xs, *dys)
        return ((x.apply(ReduceProdGradient(self.axes)) * self._kept(dy, x)).value,)


@dataclass(frozen=True)
class ArgReduce(Op, name="arg_reduce", operands=("x",)):
    """The first index of the largest or smallest element along `axis`, as int32; the axis goes."""

    axis: int
    which: Literal["max", "min"] = "max"

    def infer(self, types: Types) -> Types:
        axis = normalize_axis(self, self.axis, types)
        shape = types[0].shape
        return (types[0].with_shape(shape[:axis] + shape[axis + 1 :]).with_dtype("int32"),)

    def kernel(self, args: Arrays) -> Arrays:
        find = np.argmax if self.which == "max" else np.argmin
        return (find(args[0], axis=self.axis).astype(np.int32),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return (None,)


@dataclass(frozen=True)
class CumSum(Op, name="cumsum", operands=("x",)):
    """The running sum along `axis`."""

    axis: int

    def infer(self, types: Types) -> Types:
        normalize_axis(self, self.axis, types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        return (np.cumsum(args[0], axis=self.axis, dtype=args[0].dtype),)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.shape import Reverse

        (dy,) = expression.lift(b, *dys)
        return (dy.apply(Reverse((self.axis,))).apply(self).apply(Reverse((self.axis,))).value,)


@dataclass(frozen=True)
class Sort(Op, name="sort", operands=("x",)):
    """The elements along `axis` in rising order, or falling where `descending`."""

    axis: int = -1
    descending: bool = False

    def infer(self, types: Types) -> Types:
        normalize_axis(self, self.axis, types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        rising = np.sort(args[0], axis=self.axis)
        return (np.flip(rising, self.axis) if self.descending else rising,)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients import SortGradient

        x, dy = expression.lift(b, *xs, *dys)
        return (x.apply(SortGradient(self.axis, self.descending), dy).value,)
