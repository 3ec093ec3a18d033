"""Values that need no computing: reshaped, or copied to where they are wanted."""

from dataclasses import dataclass

from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node

_BLOCK = 4096


@dataclass(frozen=True)
class Copy(Kernel, family="copy"):
    """``y = x``. Arguments: x and y, `size` elements each."""

    dtype: str
    size: Dim

    def build(self, f: Function) -> None:
        x, y = f.pointer("x", self.dtype), f.pointer("y", self.dtype)
        for start, length in f.parallel_tiles(f.extent(self.size), _BLOCK):
            for i, lanes in f.vectors(length):
                y.store(start + i, x.load(start + i, lanes))


@TVM.register(ops.Reshape)
def reshape(plan: Plan, node: Node) -> None:
    """Dense row-major arrays keep their bytes."""
    plan.alias(node.outputs[0], node.inputs[0])


@TVM.register(ops.Constant)
def constant(plan: Plan, node: Node) -> None:
    """Constants lie among the weights where a kernel reads them."""
