"""Scaled dot-product attention."""

import numpy as np

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import dims, ops
from kcompile.ir.graph import Node, Value
from kcompile.ir.ops.attention import masked_score


@ONNX.register(ops.Attention)
def attention(e: Emitter, op: ops.Attention, node: Node) -> tuple[str, str]:
    """ONNX's own operator, which takes the heads side by side and needs no transposes, unless the weights are read."""
    has_operator = e.has_kernel("Attention", node.inputs[0].type.dtype)
    if has_operator and not e.readers(node.outputs[1]):
        return _operator(e, op, node), ""
    return _products(e, op, node)


def _operator(e: Emitter, op: ops.Attention, node: Node) -> str:
    query, key, value = (_side_by_side(e, v) for v in node.inputs[:3])
    heads, groups = (v.type.shape[2] for v in node.inputs[:2])
    # A row that sees its own key at least needs no mask of ours: the operator's hides keys altogether.
    is_square = node.inputs[0].type.shape[1] == node.inputs[1].type.shape[1]
    is_causal = op.causal and is_square and len(node.inputs) == 3
    y = e.node(
        "Attention",
        *(query, key, value, *([] if is_causal else _addend(e, op, node))),
        q_num_heads=heads,
        kv_num_heads=groups,
        scale=op.scale,
        is_causal=int(is_causal) or None,
    )
    batch, length, _, depth = node.outputs[0].type.shape
    return e.reshape(y, (batch, length, dims.mul(heads, depth)), node.outputs[0].type.shape)


def _addend(e: Emitter, op: ops.Attention, node: Node) -> list[str]:
    """What is added to the scores, if anything: where a key is hidden, a number that swallows any score."""
    allowed = _allowed(e, op, node)
    if not allowed:
        return []
    dtype, scores = node.inputs[0].type.dtype, node.outputs[1].type.shape
    mask = node.inputs[3].type if len(node.inputs) > 3 else None
    if not op.causal and mask and (mask.rank < 4 or mask.shape[-2:] != scores[2:]):
        # The operator broadcasts the first two axes only.
        allowed = e.node("Expand", allowed, e.shape((1, 1, *scores[2:])))
    hidden = float(np.finfo(dtype).min) / 2
    return [e.typed_where(allowed, e.scalar(0, dtype), e.scalar(hidden, dtype), dtype)]


def _side_by_side(e: Emitter, value: Value) -> str:
    """``[N, K, H, D] -> [N, K, H * D]``."""
    batch, length, heads, depth = value.type.shape
    return e.reshape(e.name(value), value.type.shape, (batch, length, dims.mul(heads, depth)))


def _products(e: Emitter, op: ops.Attention, node: Node) -> tuple[str, str]:
    """Products of matrices and a softmax; keys come transposed at once, so that no other transpose is needed."""
    query, key, value = node.inputs[:3]
    dtype = query.type.dtype
    q = e.transpose(e.name(query), (0, 2, 1, 3))
    k = e.transpose(_per_head(e, key, query), (0, 2, 3, 1))
    v = e.transpose(_per_head(e, value, query), (0, 2, 1, 3))
    scaled = e.typed("Mul", dtype, q, e.scalar(op.scale, dtype))
    scores = e.typed("MatMul", dtype, scaled, k)
    allowed = _allowed(e, op, node)
    if allowed:
        scores = e.typed_where(allowed, scores, e.scalar(masked_score(dtype), dtype), dtype)
    weights = e.typed("Softmax", dtype, scores, axis=-1)
    return e.transpose(e.typed("MatMul", dtype, weights, v), (0, 2, 1, 3)), weights


def _per_head(e: Emitter, value: Value, query: Value) -> str:
    """``[N, K, G, D] -> [N, K, H, D]``: each head of keys or values H / G times."""
    heads, groups = int(query.type.shape[2]), int(value.type.shape[2])
    if heads == groups:
        return e.name(value)
    return e.node("Gather", e.name(value), e.constant(np.repeat(np.arange(groups), heads // groups)), axis=2)


def _allowed(e: Emitter, op: ops.Attention, node: Node) -> str:
    """Which keys each query may see, as the mask and `causal` have it together; empty where it may see all."""
    masks = [e.name(value) for value in node.inputs[3:]]
    if op.causal:
        extents = e.shape(node.outputs[1].type.shape[2:])
        masks.append(e.node("Trilu", e.node("Expand", e.scalar(True, "bool"), extents), upper=0))
    return e.node("And", *masks) if len(masks) > 1 else "".join(masks)
