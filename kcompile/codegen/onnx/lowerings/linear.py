"""Products of matrices."""

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import ops
from kcompile.ir.graph import Node


@ONNX.register(ops.Dense)
def dense(e: Emitter, op: ops.Dense, node: Node) -> str:
    x, kernel, *bias = e.inputs(node)
    type_ = node.inputs[0].type
    if bias and type_.rank == 2 and e.has_kernel("Gemm", type_.dtype):
        return e.node("Gemm", x, kernel, *bias)
    y = e.typed("MatMul", type_.dtype, x, kernel)
    return e.typed("Add", type_.dtype, y, *bias) if bias else y


@ONNX.register(ops.MatMul)
def matmul(e: Emitter, op: ops.MatMul, node: Node) -> str:
    return e.typed("MatMul", node.inputs[0].type.dtype, *e.inputs(node))
