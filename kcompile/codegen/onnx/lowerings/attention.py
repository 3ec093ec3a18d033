"""Scaled dot-product attention."""

import numpy as np

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import ops
from kcompile.ir.graph import Node, Value
from kcompile.ir.ops.attention import MASKED_SCORE


@ONNX.register(ops.Attention)
def attention(e: Emitter, op: ops.Attention, node: Node) -> tuple[str, str]:
    """Products of matrices and a softmax; keys come transposed at once, so that no other transpose is needed."""
    query, key, value = node.inputs[:3]
    dtype = query.type.dtype
    q = e.transpose(e.name(query), (0, 2, 1, 3))
    k = e.transpose(_per_head(e, key, query), (0, 2, 3, 1))
    v = e.transpose(_per_head(e, value, query), (0, 2, 1, 3))
    scaled = e.typed("Mul", dtype, q, e.scalar(op.scale, dtype))
    scores = e.typed("MatMul", dtype, scaled, k)
    for addend in _masks(e, op, node):
        scores = e.typed("Add", dtype, scores, addend)
    weights = e.typed("Softmax", dtype, scores, axis=-1)
    return e.transpose(e.typed("MatMul", dtype, weights, v), (0, 2, 1, 3)), weights


def _per_head(e: Emitter, value: Value, query: Value) -> str:
    """``[N, K, G, D] -> [N, K, H, D]``: each head of keys or values H / G times."""
    heads, groups = int(query.type.shape[2]), int(value.type.shape[2])
    if heads == groups:
        return e.name(value)
    return e.node("Gather", e.name(value), e.constant(np.repeat(np.arange(groups), heads // groups)), axis=2)


def _masks(e: Emitter, op: ops.Attention, node: Node) -> list[str]:
    """What is added to the scores: `MASKED_SCORE` for each key that may not be seen, by each mask."""
    dtype, scores = node.inputs[0].type.dtype, node.outputs[1].type
    none, masked = e.scalar(0, dtype), e.scalar(MASKED_SCORE, dtype)
    addends: list[str] = []
    if len(node.inputs) > 3:
        addends.append(e.typed_where(e.name(node.inputs[3]), none, masked, dtype))
    if op.causal:
        last, seen = e.node("Concat", e.extent(scores.shape[2]), e.extent(scores.shape[3]), axis=0), e.scalar(1, "bool")
        future = e.node("Trilu", e.node("Expand", seen, last), upper=0)
        addends.append(e.typed_where(future, none, masked, dtype))
    return addends
