"""Normalizations."""

import numpy as np

from kcompile.codegen.onnx.emitter import Emitter, known
from kcompile.codegen.onnx.lower import lower_decomposed
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import ops
from kcompile.ir.graph import Node

# An attribute holds float32: float64 needs epsilon as an operand.
_ATTRIBUTE_DTYPES = ("float16", "float32")


@ONNX.register(ops.BatchNorm)
def batch_norm(e: Emitter, op: ops.BatchNorm, node: Node) -> str:
    type_ = node.inputs[0].type
    axis = op.axis % type_.rank
    if axis == 1 and type_.dtype in _ATTRIBUTE_DTYPES:
        return e.typed("BatchNormalization", type_.dtype, *e.inputs(node), epsilon=op.epsilon)
    gamma, beta, mean, variance = (known(value) for value in node.inputs[1:])
    if gamma is None or beta is None or mean is None or variance is None:
        return lower_decomposed(e, node)[0]
    scale = gamma / np.sqrt(variance + variance.dtype.type(op.epsilon))
    aligned = (-1, *[1] * (type_.rank - axis - 1))
    factor, shift = (e.constant(array.reshape(aligned)) for array in (scale, beta - mean * scale))
    return e.typed("Add", type_.dtype, e.typed("Mul", type_.dtype, e.name(node.inputs[0]), factor), shift)


@ONNX.register(ops.LayerNorm)
def layer_norm(e: Emitter, op: ops.LayerNorm, node: Node) -> str:
    if node.inputs[0].type.dtype not in _ATTRIBUTE_DTYPES:
        return lower_decomposed(e, node)[0]
    axis = -node.inputs[1].type.rank
    return e.typed("LayerNormalization", node.inputs[0].type.dtype, *e.inputs(node), axis=axis, epsilon=op.epsilon)
