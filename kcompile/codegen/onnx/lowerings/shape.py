"""Ops that move elements and compute nothing, and values known at compile time."""

import numpy as np
import onnx

from kcompile.codegen.onnx.emitter import Emitter, known
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node

_END = int(np.iinfo(np.int64).max)
_BEFORE_FIRST = int(np.iinfo(np.int64).min)

# A constant of more elements than this is filled in at run time.
_STORED_ELEMENTS = 64


@ONNX.register(ops.Constant)
def constant(e: Emitter, op: ops.Constant, node: Node) -> str:
    return e.constant(op.value.array, op.name)


@ONNX.register(ops.Full)
def full(e: Emitter, op: ops.Full, node: Node) -> str:
    size = node.outputs[0].type.size
    if isinstance(size, int) and size <= _STORED_ELEMENTS:
        return e.constant(op.kernel(())[0])
    value = onnx.numpy_helper.from_array(np.full(1, op.value, op.dtype))
    return e.node("ConstantOfShape", e.shape(op.shape), value=value)


@ONNX.register(ops.Reshape)
def reshape(e: Emitter, op: ops.Reshape, node: Node) -> str:
    return e.reshape(e.name(node.inputs[0]), node.inputs[0].type.shape, op.shape)


@ONNX.register(ops.Transpose)
def transpose(e: Emitter, op: ops.Transpose, node: Node) -> str:
    return e.transpose(e.name(node.inputs[0]), op.perm)


@ONNX.register(ops.Concat)
def concat(e: Emitter, op: ops.Concat, node: Node) -> str:
    return e.concat(e.inputs(node), op.axis % node.inputs[0].type.rank)


@ONNX.register(ops.Slice)
def slice_(e: Emitter, op: ops.Slice, node: Node) -> str:
    extent = node.inputs[0].type.shape[op.axis]
    stop = e.ints(_END) if op.stop == extent else e.extent(op.stop)
    return e.node("Slice", e.name(node.inputs[0]), e.extent(op.start), stop, e.ints(op.axis), e.ints(op.step))


@ONNX.register(ops.ExpectExtent)
def expect_extent(e: Emitter, op: ops.ExpectExtent, node: Node) -> str:
    return e.name(node.inputs[0])


@ONNX.register(ops.Reverse)
def reverse(e: Emitter, op: ops.Reverse, node: Node) -> str:
    return reversed_along(e, e.name(node.inputs[0]), op.axes)


def reversed_along(e: Emitter, x: str, axes: tuple[int, ...]) -> str:
    """``x`` with the elements along `axes` in reverse order."""
    if not axes:
        return x
    count = len(axes)
    return e.node(
        "Slice", x, e.ints(*[-1] * count), e.ints(*[_BEFORE_FIRST] * count), e.ints(*axes), e.ints(*[-1] * count)
    )


@ONNX.register(ops.Pad)
def pad(e: Emitter, op: ops.Pad, node: Node) -> str:
    x, dtype = e.name(node.inputs[0]), node.inputs[0].type.dtype
    if op.mode == "symmetric":
        return _pad_symmetric(e, op, node)
    nearest = e.nearest("Pad", dtype)
    value = e.scalar(op.value, nearest) if op.mode == "constant" and op.value else ""
    # The axes are named because ONNX Runtime (1.31) takes zeros around a `MaxPool` without them for the padding of the
    # `MaxPool`, which never wins. Those around a convolution are part of it already. All are named: where it moves a
    # transpose across, it takes the pads for those of all axes.
    operands = e.ints(*op.low, *op.high), value, e.ints(*range(len(op.low)))
    if nearest == dtype:
        return e.node("Pad", x, *operands, mode=op.mode)
    return e.cast(e.node("Pad", e.cast(x, nearest), *operands, mode=op.mode), dtype)


def _pad_symmetric(e: Emitter, op: ops.Pad, node: Node) -> str:
    """ONNX cannot mirror with the edge repeated: along each axis the mirrored ends are cut out and put on."""
    x = e.name(node.inputs[0])
    for axis, (low, high) in enumerate(zip(op.low, op.high, strict=True)):
        ends = [
            [_cut(e, x, axis, low - 1, _BEFORE_FIRST)] if low else [],
            [x],
            [_cut(e, x, axis, -1, -high - 1)] if high else [],
        ]
        parts = [part for end in ends for part in end]
        x = e.node("Concat", *parts, axis=axis) if len(parts) > 1 else x
    return x


def _cut(e: Emitter, x: str, axis: int, start: int, stop: int) -> str:
    """The elements along `axis` from `start` backwards to `stop`."""
    return e.node("Slice", x, e.ints(start), e.ints(stop), e.ints(axis), e.ints(-1))


@ONNX.register(ops.Tile)
def tile(e: Emitter, op: ops.Tile, node: Node) -> str:
    return e.node("Tile", e.name(node.inputs[0]), e.ints(*op.repeats))


@ONNX.register(ops.BroadcastTo)
def broadcast_to(e: Emitter, op: ops.BroadcastTo, node: Node) -> str:
    return e.node("Expand", e.name(node.inputs[0]), e.shape(op.shape))


@ONNX.register(ops.Gather)
def gather(e: Emitter, op: ops.Gather, node: Node) -> str:
    x, indices = node.inputs
    axis = op.axis % x.type.rank
    return e.node("Gather", e.name(x), _clamped(e, op, node, x.type.shape[axis], indices.type.dtype), axis=axis)


def _clamped(e: Emitter, op: ops.Gather, node: Node, extent: Dim, dtype: str) -> str:
    """The indices within ``[0, extent)``: Gather counts negative ones from the end and refuses what lies outside."""
    indices = node.inputs[1]
    array = known(indices)
    if array is not None and isinstance(extent, int):
        return e.constant(np.clip(array.astype(np.int64), 0, extent - 1))
    name, kind = e.name(indices), dtype if dtype in ("int32", "int64") else "int64"
    if kind != dtype:
        name = e.cast(name, kind)
    if isinstance(extent, int):
        last = e.scalar(extent - 1, kind)
    else:
        end = e.node("Squeeze", e.extent(dims.sub(extent, 1)), e.ints(0))
        last = end if kind == "int64" else e.cast(end, kind)
    return e.node("Clip", name, e.scalar(0, kind), last)
