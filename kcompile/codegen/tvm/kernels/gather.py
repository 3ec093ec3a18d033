"""Rows picked by index."""

from dataclasses import dataclass

from kcompile.codegen.tvm.expr import index, maximum, minimum
from kcompile.codegen.tvm.kernels.move import carrier
from kcompile.codegen.tvm.kernels.nest import shared_nest
from kcompile.codegen.tvm.kernels.reduction import lanes_of
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node


@dataclass(frozen=True)
class Gather(Kernel, family="gather"):
    """``y[o, i] = x[o, clamp(indices[i])]``.

    x: T[outer, extent, inner], indices: i[count], y: T[outer, count, inner].
    """

    dtype: str
    index_dtype: str
    outer: Dim
    extent: Dim
    count: Dim
    inner: Dim

    def build(self, f: Function) -> None:
        x, indices = f.pointer("x", self.dtype), f.pointer("indices", self.index_dtype)
        y = f.pointer("y", self.dtype)
        outer, extent, count, inner = (f.extent(d) for d in (self.outer, self.extent, self.count, self.inner))
        last = index(extent).cast("int64") - 1
        # An empty table has nothing to clamp to.
        with f.when(index(extent) > 0), shared_nest(f, [outer, count], inner) as (o, i):
            wanted = f.let(minimum(indices.load(i).cast("int64"), last))
            row = f.let(maximum(wanted, 0).cast("int32"))
            source = f.name_index((o * extent + row) * inner)
            target = f.name_index((o * count + i) * inner)
            for c, width in f.vectors(inner, lanes_of(f, self.dtype)):
                y.store(target + c, x.load(source + c, width))


@TVM.register(ops.Gather)
def gather(plan: Plan, node: Node) -> None:
    """The axes before and behind the gathered one are merged; behind an embedding's is its whole row."""
    op, (x, indices) = node.op, node.inputs
    assert isinstance(op, ops.Gather)
    shape, axis = x.type.shape, op.axis % x.type.rank
    outer, inner = dims.mul(*shape[:axis]), dims.mul(*shape[axis + 1 :])
    # Elements move as integers of their width, but for those that may be stored in half of it.
    halved = plan.machine.half_weights and x.type.dtype == "float32"
    dtype = "float32" if halved else carrier(x.type.itemsize)
    kernel = Gather(dtype, indices.type.dtype, outer, shape[axis], indices.type.size, inner)
    plan.emit(kernel, x, indices, node.outputs[0])
