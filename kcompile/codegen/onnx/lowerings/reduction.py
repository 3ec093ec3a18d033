"""Reductions over axes, and ops that run along one axis."""

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX, Lowering
from kcompile.ir import ops
from kcompile.ir.graph import Node
from kcompile.ir.op import Op

REDUCTIONS: dict[type[Op], str] = {
    ops.ReduceSum: "ReduceSum",
    ops.ReduceMean: "ReduceMean",
    ops.ReduceMax: "ReduceMax",
    ops.ReduceMin: "ReduceMin",
    ops.ReduceProd: "ReduceProd",
}


def _reduction(op_type: str) -> Lowering:
    def lower(e: Emitter, op: ops.ReduceSum, node: Node) -> str:
        x = e.name(node.inputs[0])
        if not op.axes:
            return x
        axes = e.ints(*sorted(axis % node.inputs[0].type.rank for axis in op.axes))
        dtype = node.inputs[0].type.dtype
        nearest = e.nearest(op_type, dtype)
        wide = x if nearest == dtype else e.cast(x, nearest)
        y = e.node(op_type, wide, axes, keepdims=int(op.keepdims))
        return y if nearest == dtype else e.cast(y, dtype)

    return lower


for _class, _op_type in REDUCTIONS.items():
    ONNX.register(_class)(_reduction(_op_type))


@ONNX.register(ops.ArgReduce)
def arg_reduce(e: Emitter, op: ops.ArgReduce, node: Node) -> str:
    op_type = "ArgMax" if op.which == "max" else "ArgMin"
    index = e.typed(op_type, node.inputs[0].type.dtype, *e.inputs(node), back=False, axis=op.axis, keepdims=0)
    return e.cast(index, "int32")


@ONNX.register(ops.CumSum)
def cumsum(e: Emitter, op: ops.CumSum, node: Node) -> str:
    dtype, x = node.inputs[0].type.dtype, e.name(node.inputs[0])
    nearest, axis = e.nearest("CumSum", dtype), e.scalar(op.axis, "int64")
    if nearest == dtype:
        return e.node("CumSum", x, axis)
    return e.cast(e.node("CumSum", e.cast(x, nearest), axis), dtype)


@ONNX.register(ops.Sort)
def sort(e: Emitter, op: ops.Sort, node: Node) -> str:
    dtype, x = node.inputs[0].type.dtype, e.name(node.inputs[0])
    nearest, count = e.nearest("TopK", dtype), e.extent(node.inputs[0].type.shape[op.axis])
    wide = x if nearest == dtype else e.cast(x, nearest)
    y, _ = e.multi("TopK", (wide, count), (True, True), axis=op.axis, largest=int(op.descending))
    return y if nearest == dtype else e.cast(y, dtype)
