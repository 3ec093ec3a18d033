"""Random numbers: functions of a seed operand, the same in every run.

A `stream` tells apart the numbers that one seed gives to several nodes. The generator is Philox, which needs no state
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), with the seed and the stream as its key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from kcompile.ir.dims import Dim, Shape
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values, bind_shape
from kcompile.ir.types import Array, TensorType


@dataclass(frozen=True)
class _Random(Op, operands=("seed",)):
    """Base: ``seed: i[] -> dtype[shape]``."""

    shape: Shape
    stream: int = 0
    dtype: str = "float32"

    def infer(self, types: Types) -> Types:
        integer = types[0].dtype.lstrip("u").startswith("int") and types[0].rank == 0
        self.require(integer, "the seed must be one integer", types)
        result = TensorType(self.dtype, self.shape)
        self.require(result.is_float, "random numbers must be floats", types)
        return (result,)

    def vjp(self, b: Any, xs: Values, ys: Values, dys: Gradients) -> Gradients:
        return (None,)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return replace(self, shape=bind_shape(self.shape, bindings))

    def _generator(self, seed: Array) -> np.random.Generator:
        key = np.array([int(seed) % 2**64, self.stream], np.uint64)
        return np.random.Generator(np.random.Philox(key=key))

    def _extents(self) -> tuple[int, ...]:
        return TensorType(self.dtype, self.shape).static_shape()

    @property
    def _drawn(self) -> Any:
        """The dtype to draw in: halves are rounded from single precision."""
        return np.float64 if self.dtype == "float64" else np.float32


@dataclass(frozen=True)
class RandomUniform(_Random, name="random_uniform"):
    """Numbers evenly distributed over ``[0, 1)``."""

    def kernel(self, args: Arrays) -> Arrays:
        numbers = self._generator(args[0]).random(self._extents(), self._drawn)
        return (np.asarray(numbers, self.dtype),)


@dataclass(frozen=True)
class RandomNormal(_Random, name="random_normal"):
    """Numbers normally distributed around 0 with variance 1."""

    def kernel(self, args: Arrays) -> Arrays:
        numbers = self._generator(args[0]).standard_normal(self._extents(), self._drawn)
        return (np.asarray(numbers, self.dtype),)
