"""Elementwise ops applied to a kernel's result before it is stored."""

from collections.abc import Sequence

from kcompile.codegen.tvm.arrays import Pointer
from kcompile.codegen.tvm.expr import Expr, Index
from kcompile.codegen.tvm.tir import Function
from kcompile.codegen.tvm.vector import Chain
from kcompile.ir import dims
from kcompile.ir.dims import Shape
from kcompile.ir.types import TensorType


class Access:
    """How to read an operand that broadcasts to `result` at a position of `result`."""

    def __init__(self, f: Function, pointer: Pointer, operand: TensorType, result: Shape) -> None:
        self._pointer = pointer
        shape = (1,) * (len(result) - operand.rank) + operand.shape
        self._strides = [f.extent(s) if d != 1 else 0 for d, s in zip(shape, strides(shape), strict=True)]
        self._along = not shape or shape[-1] != 1

    def load(self, position: Sequence[Index], lanes: int) -> Expr:
        """The operand's elements for `lanes` elements of the result from `position` on; one, if they are all equal."""
        offset: Index = 0
        for i, stride in zip(position, self._strides, strict=True):
            # A stride is 0 where the operand is stretched, and int 0 keeps the term out of the code.
            offset = offset + i * stride if stride != 0 else offset
        return self._pointer.load(offset, lanes if self._along else 1)


def overwritable(chain: Chain, first: int) -> tuple[int, ...]:
    """The numbers of an epilogue's pointers, from `first` on, whose elements are read where results are stored."""
    return tuple(i for i, operand in enumerate(chain.operands[1:], first) if operand == chain.result)


class Epilogue:
    """A chain whose operand 0 is the kernel's result in registers; the others are pointers, declared here in order."""

    def __init__(self, f: Function, chain: Chain) -> None:
        self._f = f
        self._chain = chain
        self._operands = [
            Access(f, f.pointer(f"operand{i}", operand.dtype), operand, chain.result.shape)
            for i, operand in enumerate(chain.operands[1:])
        ]

    @property
    def costly(self) -> bool:
        """Whether its code is long."""
        return self._chain.costly

    def __call__(self, value: Expr, position: Sequence[Index]) -> Expr:
        """What to store for `value`, which stands from `position` on (an index per axis of the result)."""
        if not self._chain.steps:
            return value
        others = [operand.load(position, value.lanes) for operand in self._operands]
        return self._chain.apply(self._f, [self._f.let(value), *others])


def strides(shape: Shape) -> list[dims.Dim]:
    """Distances in elements between neighbours along each axis of a dense array."""
    return [dims.mul(*shape[axis + 1 :]) for axis in range(len(shape))]
