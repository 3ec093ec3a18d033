"""Cancels and merges ops that move elements and compute nothing."""

from dataclasses import replace

import numpy as np

from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node, Value
from kcompile.ir.op import OPS, Elementwise
from kcompile.ir.ops import (
    AvgPool,
    BroadcastTo,
    Cast,
    Concat,
    ExpectExtent,
    MaxPool,
    Pad,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    Reshape,
    Resize,
    Reverse,
    Slice,
    Tile,
    Transpose,
)
from kcompile.ir.ops.conv import spatial_of
from kcompile.ir.passes.rewrite import Context, Result, rule

Reduce = ReduceMax | ReduceMean | ReduceMin | ReduceProd | ReduceSum


@rule(Reshape)
def reshape_of_reshape(c: Context, node: Node, op: Reshape) -> Result:
    """A reshape to the operand's own shape is nothing; of two, the last counts."""
    x = node.inputs[0]
    if x.type == node.outputs[0].type:
        return x
    inner = x.producer
    return c.b(op, inner.inputs[0]) if inner is not None and isinstance(inner.op, Reshape) else None


@rule(Transpose)
def transpose_of_transpose(c: Context, node: Node, op: Transpose) -> Result:
    """The identity permutation is nothing, two are one, and one that moves only extents of 1 is a reshape."""
    x = node.inputs[0]
    if moves_nothing(x, op.perm):
        return x if op.perm == tuple(range(x.type.rank)) else c.b(Reshape(node.outputs[0].type.shape), x)
    inner = x.producer
    if inner is None or not isinstance(inner.op, Transpose):
        return None
    return c.b(Transpose(tuple(inner.op.perm[axis] for axis in op.perm)), inner.inputs[0])


def moves_nothing(x: Value, perm: tuple[int, ...]) -> bool:
    """Whether `perm` leaves the elements of `x` in their order: axes of extent 1 may go anywhere."""
    moved = [axis for axis in perm if x.type.shape[axis] != 1]
    return moved == sorted(moved)


@rule(Cast)
def cast_of_cast(c: Context, node: Node, op: Cast) -> Result:
    """A cast to the operand's own dtype is nothing; one that keeps every value does not matter before another."""
    x = node.inputs[0]
    if x.type.dtype == op.dtype:
        return x
    inner = x.producer
    if inner is None or not isinstance(inner.op, Cast):
        return None
    keeps = np.can_cast(inner.inputs[0].type.dtype, inner.op.dtype, "safe")
    return c.b(op, inner.inputs[0]) if keeps else None


@rule(ExpectExtent)
def expectation_that_holds(c: Context, node: Node, op: ExpectExtent) -> Result:
    """An extent that is what it must be need not be looked at."""
    return node.inputs[0] if node.inputs[0].type == node.outputs[0].type else None


@rule(Slice)
def slice_of_slice(c: Context, node: Node, op: Slice) -> Result:
    """A slice of everything is nothing; of two along one axis, one does both."""
    x = node.inputs[0]
    axis = op.axis % x.type.rank
    if (op.start, op.stop, op.step) == (0, x.type.shape[axis], 1):
        return x
    inner = x.producer
    if inner is None or not isinstance(inner.op, Slice) or inner.op.axis % x.type.rank != axis:
        return None
    start = dims.add(inner.op.start, dims.mul(op.start, inner.op.step))
    length, step = node.outputs[0].type.shape[axis], inner.op.step * op.step
    if length == 0 or (isinstance(length, str) and step != 1):
        return None
    # Just past the last element, so that the bound stays inside the axis.
    stop = dims.add(start, dims.mul(dims.sub(length, 1), step), 1)
    return c.b(Slice(axis, start, stop, step), inner.inputs[0])


@rule(Slice)
def slice_of_concat(c: Context, node: Node, op: Slice) -> Result:
    """A slice that lies inside one operand of a concatenation is a slice of that operand."""
    inner = node.inputs[0].producer
    rank = node.inputs[0].type.rank
    if inner is None or not isinstance(inner.op, Concat) or inner.op.axis % rank != op.axis % rank:
        return None
    offset: Dim = 0
    for part in inner.inputs:
        start, stop = dims.sub(op.start, offset), dims.sub(op.stop, offset)
        extent = part.type.shape[op.axis]
        if not isinstance(start, int) or not isinstance(stop, int) or not isinstance(extent, int):
            return None
        if 0 <= start <= stop <= extent:
            return c.b(Slice(op.axis, start, stop, op.step), part)
        offset = dims.add(offset, extent)
    return None


@rule(Pad)
def pad_of_pad(c: Context, node: Node, op: Pad) -> Result:
    """Padding of no width is nothing; two paddings with one constant are one."""
    x = node.inputs[0]
    if not any((*op.low, *op.high)):
        return x
    inner = x.producer
    if inner is None or not isinstance(inner.op, Pad) or op.mode != "constant" or inner.op.mode != "constant":
        return None
    if repr(inner.op.value) != repr(op.value):
        return None
    low = tuple(map(sum, zip(op.low, inner.op.low, strict=True)))
    high = tuple(map(sum, zip(op.high, inner.op.high, strict=True)))
    return c.b(replace(op, low=low, high=high), inner.inputs[0])


@rule(Concat)
def concat_of_concat(c: Context, node: Node, op: Concat) -> Result:
    """Of one operand, nothing; concatenations inside one along the same axis are part of it."""
    if len(node.inputs) == 1:
        return node.inputs[0]
    rank = node.inputs[0].type.rank
    flat: list[Value] = []
    for value in node.inputs:
        inner = value.producer
        same = inner is not None and isinstance(inner.op, Concat) and inner.op.axis % rank == op.axis % rank
        flat += inner.inputs if inner is not None and same and c.only_use(value) else [value]
    return c.b(op, *flat) if len(flat) > len(node.inputs) else None


@rule(Reverse)
def reverse_of_reverse(c: Context, node: Node, op: Reverse) -> Result:
    """An axis reversed twice, or of extent 1, is not reversed."""
    x = node.inputs[0]
    axes = {axis % x.type.rank for axis in op.axes}
    inner = x.producer
    if inner is not None and isinstance(inner.op, Reverse):
        x = inner.inputs[0]
        axes ^= {axis % x.type.rank for axis in inner.op.axes}
    kept = tuple(sorted(axis for axis in axes if x.type.shape[axis] != 1))
    if not kept:
        return x
    return c.b(Reverse(kept), x) if x is not node.inputs[0] or len(kept) < len(op.axes) else None


@rule(Tile, Resize)
def copy_of_everything(c: Context, node: Node, op: Tile | Resize) -> Result:
    """One repeat, and a resize to the operand's own size, are nothing."""
    same = node.inputs[0].type == node.outputs[0].type
    return node.inputs[0] if same and (isinstance(op, Resize) or set(op.repeats) <= {1}) else None


@rule(BroadcastTo)
def broadcast_to_own_shape(c: Context, node: Node, op: BroadcastTo) -> Result:
    """A broadcast to the operand's own shape is nothing."""
    return node.inputs[0] if node.inputs[0].type == node.outputs[0].type else None


@rule(MaxPool, AvgPool)
def pool_of_everything(c: Context, node: Node, op: MaxPool | AvgPool) -> Result:
    """Windows of one element are nothing, and one window over the whole image is a reduction."""
    x = node.inputs[0]
    if set(op.pool_size) | set(op.strides) == {1}:
        return x if x.type == node.outputs[0].type else None
    if op.padding != "valid" or spatial_of(x.type.shape, op.data_format) != op.pool_size:
        return None
    first = 1 if op.data_format == "channels_last" else 2
    axes = tuple(range(first, first + len(op.pool_size)))
    return c.b(ReduceMax(axes, True) if isinstance(op, MaxPool) else ReduceMean(axes, True), x)


@rule(ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum)
def reduce_of_single_elements(c: Context, node: Node, op: Reduce) -> Result:
    """A reduction over axes of extent 1 is a reshape."""
    x = node.inputs[0]
    if any(x.type.shape[axis] != 1 for axis in op.axes):
        return None
    return c.b(Reshape(node.outputs[0].type.shape), x)


@rule(Reshape)
def reshape_of_reduce(c: Context, node: Node, op: Reshape) -> Result:
    """A reduction that keeps its axes, which a reshape then drops, drops them itself."""
    inner = node.inputs[0].producer
    if inner is None or not isinstance(inner.op, Reduce) or not inner.op.keepdims or not c.only_use(node.inputs[0]):
        return None
    made = c.b(replace(inner.op, keepdims=False), inner.inputs[0])
    return made if made.type == node.outputs[0].type else None


@rule(*(cls for cls in OPS.values() if issubclass(cls, Elementwise)))
def broadcast_before_elementwise(c: Context, node: Node, op: Elementwise) -> Result:
    """Elementwise ops broadcast their operands themselves."""
    operands = [v.producer.inputs[0] if v.producer and isinstance(v.op, BroadcastTo) else v for v in node.inputs]
    if all(new is old for new, old in zip(operands, node.inputs, strict=True)):
        return None
    made = c.b(op, *operands)
    return made if made.type == node.outputs[0].type else None


RULES = (
    reshape_of_reshape,
    reshape_of_reduce,
    transpose_of_transpose,
    cast_of_cast,
    expectation_that_holds,
    slice_of_slice,
    slice_of_concat,
    pad_of_pad,
    concat_of_concat,
    reverse_of_reverse,
    copy_of_everything,
    broadcast_to_own_shape,
    pool_of_everything,
    reduce_of_single_elements,
    broadcast_before_elementwise,
)
