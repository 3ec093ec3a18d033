"""Reductions over axes, and ops that run along one axis."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Op, Types, normalize_axis


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


@dataclass(frozen=True)
class ReduceSum(_Reduce, name="reduce_sum"):
    """The sum over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].sum(axis=self.axes, keepdims=self.keepdims, dtype=args[0].dtype),)


@dataclass(frozen=True)
class ReduceMean(_Reduce, name="reduce_mean"):
    """The mean over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].mean(axis=self.axes, keepdims=self.keepdims, dtype=args[0].dtype),)


@dataclass(frozen=True)
class ReduceMax(_Reduce, name="reduce_max"):
    """The largest element over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.max(args[0], axis=self.axes, keepdims=self.keepdims),)


@dataclass(frozen=True)
class ReduceMin(_Reduce, name="reduce_min"):
    """The smallest element over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.min(args[0], axis=self.axes, keepdims=self.keepdims),)


@dataclass(frozen=True)
class ReduceProd(_Reduce, name="reduce_prod"):
    """The product over `axes`."""

    def kernel(self, args: Arrays) -> Arrays:
        return (args[0].prod(axis=self.axes, keepdims=self.keepdims, dtype=args[0].dtype),)


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


@dataclass(frozen=True)
class CumSum(Op, name="cumsum", operands=("x",)):
    """The running sum along `axis`."""

    axis: int

    def infer(self, types: Types) -> Types:
        normalize_axis(self, self.axis, types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        return (np.cumsum(args[0], axis=self.axis, dtype=args[0].dtype),)


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
