"""Values known at compile time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from kcompile.ir.dims import Dim, Shape
from kcompile.ir.op import Arrays, Op, Tensor, Types, bind_shape
from kcompile.ir.types import TensorType


@dataclass(frozen=True)
class Constant(Op, name="constant", operands=()):
    """The array `value`; `name` is its weight path and takes no part in comparisons."""

    value: Tensor
    name: str = field(default="", compare=False)

    def infer(self, types: Types) -> Types:
        return (self.value.type,)

    def kernel(self, args: Arrays) -> Arrays:
        return (self.value.array,)


@dataclass(frozen=True)
class Full(Op, name="full", operands=()):
    """A tensor of `shape`, which may hold symbols, with every element `value`."""

    shape: Shape
    value: float = 0.0
    dtype: str = "float32"

    def infer(self, types: Types) -> Types:
        return (TensorType(self.dtype, self.shape),)

    def kernel(self, args: Arrays) -> Arrays:
        return (np.full(TensorType(self.dtype, self.shape).static_shape(), self.value, self.dtype),)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        return type(self)(bind_shape(self.shape, bindings), self.value, self.dtype)
