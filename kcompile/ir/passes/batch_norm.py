"""Folds batch normalizations of fixed statistics into the weights beside them.

With ``s = gamma / sqrt(variance + epsilon)`` and ``t = beta - mean * s`` a batch normalization is ``x * s + t``; so it
goes into a convolution or dense layer before it, or into one after it where nothing pads (Jacob et al. 2018,
arXiv:1712.05877, section 3.2).
"""

import numpy as np

from kcompile.ir.graph import Graph, Node
from kcompile.ir.ops import BatchNorm, Constant, Conv, ConvTranspose, Dense, Pad
from kcompile.ir.passes.linear import Linear
from kcompile.ir.passes.rewrite import Context, Result, Skip, rewrite, rule
from kcompile.ir.types import Array


def affine(node: Node, op: BatchNorm) -> tuple[Array, Array] | None:
    """``s`` and ``t`` in float64, where the statistics are constants."""
    arrays = [value.constant for value in node.inputs[1:]]
    gamma, beta, mean, variance = (None if a is None else a.astype(np.float64) for a in arrays)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + op.epsilon)
        return scale, beta - mean * scale


@rule(BatchNorm)
def batch_norm_into_linear_before(c: Context, node: Node, op: BatchNorm) -> Result:
    """``batch_norm(conv(x))`` is a convolution with other weights."""
    inner = node.inputs[0].producer
    if inner is not None and isinstance(inner.op, Pad) and Linear.of(inner.inputs[0].producer):
        return Skip("a pad stands between it and the layer before")
    linear, factors = Linear.of(inner), affine(node, op)
    if linear is None or factors is None:
        return None
    if op.axis % node.inputs[0].type.rank != linear.axis:
        return Skip(f"its axis is not the {linear.op.op_name}'s axis of filters")
    beta = node.inputs[2].op
    return linear.after(c, *factors, beta.name if isinstance(beta, Constant) else "")


@rule(Conv, ConvTranspose, Dense)
def batch_norm_into_linear_after(c: Context, node: Node, op: Conv | ConvTranspose | Dense) -> Result:
    """``conv(batch_norm(x))`` is a convolution with other weights, where no padding stands between."""
    inner, linear = node.inputs[0].producer, Linear.of(node)
    if linear is None or inner is None or not isinstance(inner.op, BatchNorm):
        return None
    factors = affine(inner, inner.op)
    if factors is None or inner.op.axis % inner.inputs[0].type.rank != linear.axis:
        return None
    before = Linear.of(inner.inputs[0].producer)
    if before is not None and c.only_use(inner.inputs[0]):
        return None  # it goes into the layer before
    return linear.before(c, inner.inputs[0], *factors)


RULES = (batch_norm_into_linear_before, batch_norm_into_linear_after)


def fold_batch_norm(graph: Graph) -> Graph:
    """`graph` with batch normalizations folded into neighbouring convolutions and dense layers."""
    return rewrite(graph, RULES)
