"""Depthwise convolutions of numbers of few bits: they are widened to float32 where they are read.

What bounds these convolutions is memory, of which they read a quarter or half. Sums of integers are exact in float32:
they stay below 2^24.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kcompile.codegen.tvm.arrays import Pointer
from kcompile.codegen.tvm.epilogue import Epilogue
from kcompile.codegen.tvm.expr import Expr, Index
from kcompile.codegen.tvm.kernels.depthwise import Depthwise, plane_of
from kcompile.codegen.tvm.plan import Plan
from kcompile.codegen.tvm.tir import Function
from kcompile.codegen.tvm.vector import apply
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir import ops
from kcompile.ir.graph import Node, Value
from kcompile.ir.ops.quantization import bfloat16_value
from kcompile.ir.types import Array


class Widened(Pointer):
    """An array of uint8 or, as uint16, of bfloat16 that is read and, if of bfloat16, written as float32."""

    def __init__(self, f: Function, narrow: Pointer) -> None:
        self._f = f
        self._narrow = narrow
        self.dtype = "float32"

    def load(self, offset: Index, lanes: int = 1) -> Expr:
        """The numbers from `offset` on."""
        value = self._narrow.load(offset, lanes)
        if self._narrow.dtype == "uint16":
            return apply(self._f, ops.FromBfloat16(), [value])
        return self._f.let(value.cast("int32").cast("float32"))

    def store(self, offset: Index, value: Expr) -> None:
        """Write numbers, rounded."""
        self._narrow.store(offset, apply(self._f, ops.ToBfloat16(), [value]))


@dataclass(frozen=True)
class NarrowDepthwise(Depthwise, family="narrow_depthwise"):
    """A `Depthwise` of float32 whose x holds uint8, or the bits of bfloat16.

    Sums of integers, and the bias of int32 if `offset`, go to the epilogue as int32.
    """

    stored: str = "uint8"
    offset: bool = False

    @property
    def overwritable(self) -> tuple[int, ...]:
        return ()

    def source(self, f: Function) -> Pointer:
        return Widened(f, f.pointer("x", self.stored))

    def ending(self, f: Function) -> Callable[[Expr, Sequence[Index]], Expr]:
        offset = f.pointer("offset", "int32") if self.offset else None
        epilogue = Epilogue(f, self.epilogue)
        if self.stored == "uint16":
            return epilogue

        def finish(value: Expr, position: Sequence[Index]) -> Expr:
            total = value.cast("int32")
            return epilogue(f.let(total + offset.load(position[-1], value.lanes) if offset else total), position)

        return finish


def emit_narrow_depthwise(plan: Plan, node: Node, windows: Windows, weights: Array, bias: Value | None) -> None:
    """Weights are ``[*window, 1, C]``."""
    x, tail = node.inputs[0], plan.tail(node)
    integers = x.type.dtype == "uint8"
    wide = weights.astype(np.float32) if integers else bfloat16_value(weights)
    added, offset = (bias is not None and integers == whole for whole in (False, True))
    plane = plane_of(plan, windows)
    spec = NarrowDepthwise("float32", windows, added, tail.chain, plane, x.type.dtype, offset)
    plan.emit(spec, x, wide, *([bias] if bias else []), *tail.operands, tail.result)
