"""Numbers of few bits: QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses into the ops between them."""

from collections.abc import Sequence

import numpy as np

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX
from kcompile.errors import UnsupportedOp
from kcompile.ir import ops
from kcompile.ir.graph import Node, Value
from kcompile.ir.op import Op
from kcompile.ir.types import Array

for _op in (ops.ToBfloat16, ops.FromBfloat16):
    ONNX.exclude(_op, "ONNX Runtime's CPU kernels compute in no bfloat16")
ONNX.exclude(ops.ConvNarrow, "ONNX Runtime makes integer convolutions itself of quantised ones")


@ONNX.register(ops.QuantizeLinear)
def quantize_linear(e: Emitter, op: Op, node: Node) -> str:
    return _linear(e, "QuantizeLinear", e.name(node.inputs[0]), node)


@ONNX.register(ops.DequantizeLinear)
def dequantize_linear(e: Emitter, op: Op, node: Node) -> str:
    return _linear(e, "DequantizeLinear", e.name(node.inputs[0]), node)


@ONNX.register(ops.DenseNarrow)
def dense_narrow(e: Emitter, op: Op, node: Node) -> str:
    if node.inputs[0].type.dtype != "uint8":
        raise UnsupportedOp("ONNX Runtime's CPU kernels compute in no bfloat16")
    x, kernel, *bias = e.inputs(node)
    y = e.node("MatMulInteger", x, kernel)
    return e.node("Add", y, *bias) if bias else y


def dequantized(e: Emitter, value: Value, perm: Sequence[int]) -> str | None:
    """A dequantised constant with its axes permuted; None where `value` is something else."""
    node = value.producer
    if node is None or not isinstance(node.op, ops.DequantizeLinear) or node.inputs[0].constant is None:
        return None
    x = e.constant(node.inputs[0].constant.transpose(perm), e.weight_name(node.inputs[0]))
    return _linear(e, "DequantizeLinear", x, node, perm)


def _linear(e: Emitter, op_type: str, x: str, node: Node, perm: Sequence[int] = ()) -> str:
    """The operator with one scale for all elements, or one for each index of an axis.

    Raises:
        UnsupportedOp: the scales are computed, or vary along several axes.
    """
    rank = node.inputs[0].type.rank
    scale, zero = (value.constant for value in node.inputs[1:])
    if scale is None or zero is None or e.nearest(op_type, node.inputs[0].type.dtype) != node.inputs[0].type.dtype:
        raise UnsupportedOp("the scales of ONNX's quantisation are constants")
    wide = [array.reshape((1,) * (rank - array.ndim) + array.shape) for array in (scale, zero)]
    axes = [axis for axis in range(rank) if any(array.shape[axis] > 1 for array in wide)]
    if len(axes) > 1:
        raise UnsupportedOp("the scales of ONNX's quantisation vary along one axis")
    parameters = [_parameter(array, axes) for array in wide]
    if axes:
        extent = max(array.size for array in parameters)
        parameters = [np.broadcast_to(array, (extent,)).copy() for array in parameters]
    axis = (list(perm).index(axes[0]) if perm else axes[0]) if axes else None
    zeros = [] if zero.dtype == np.int32 and not zero.any() else [e.constant(parameters[1])]
    return e.node(op_type, x, e.constant(parameters[0]), *zeros, axis=axis)


def _parameter(array: Array, axes: Sequence[int]) -> Array:
    """A scale or zero point as ONNX has it: of rank 1 where there is one for each index of an axis, else of rank 0."""
    return array.reshape(-1) if axes else array.reshape(())
