"""Convolutions and pooling. ONNX has channels first; around channels-last ops stand transposes, which cancel."""

from typing import Any

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX
from kcompile.errors import UnsupportedOp
from kcompile.ir import ops
from kcompile.ir.graph import Node
from kcompile.ir.ops.conv import DataFormat, Pairs, explicit_padding, spatial_of


def channels_first(e: Emitter, x: str, rank: int, data_format: DataFormat) -> str:
    """``x`` as ``[N, C, *spatial]``."""
    return x if data_format == "channels_first" else e.transpose(x, (0, rank - 1, *range(1, rank - 1)))


def restored(e: Emitter, y: str, rank: int, data_format: DataFormat) -> str:
    """``y: [N, C, *spatial]`` in the op's own data format."""
    return y if data_format == "channels_first" else e.transpose(y, (0, *range(2, rank), 1))


def _fixed_pads(op: ops.Conv | ops.MaxPool | ops.AvgPool, node: Node, rates: tuple[int, ...]) -> Pairs | None:
    """The padding as pairs; None where it depends on an extent that is open: "same" with a stride above 1."""
    types = tuple(value.type for value in node.inputs)
    spatial = spatial_of(types[0].shape, op.data_format)
    if op.padding != "same":
        return explicit_padding(op.padding, (), (1,) * len(spatial), op.strides, rates)
    if any(isinstance(extent, str) and stride > 1 for extent, stride in zip(spatial, op.strides, strict=True)):
        return None
    window = types[1].static_shape()[:-2] if isinstance(op, ops.Conv) else op.pool_size
    # With stride 1 the padding is that of any extent.
    known = tuple(1 if isinstance(extent, str) else extent for extent in spatial)
    return explicit_padding("same", known, window, op.strides, rates)


def _padding(op: ops.Conv | ops.MaxPool | ops.AvgPool, node: Node, rates: tuple[int, ...]) -> dict[str, Any]:
    pads = _fixed_pads(op, node, rates)
    if pads is None and any(rate > 1 for rate in rates):
        raise UnsupportedOp('ONNX Runtime has no "same" padding for dilation with strides over an open extent')
    if pads is None:
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": _flat(pads)} if any(map(any, pads)) else {}


def _flat(pairs: Pairs) -> list[int]:
    return [low for low, _ in pairs] + [high for _, high in pairs]


def _kernel(e: Emitter, node: Node) -> str:
    """The kernel with its last two axes swapped and put first: ``[*window, I, O] -> [O, I, *window]``."""
    value = node.inputs[1]
    rank = value.type.rank
    perm = (rank - 1, rank - 2, *range(rank - 2))
    if value.constant is None:
        return e.transpose(e.name(value), perm)
    return e.constant(value.constant.transpose(perm), e.weight_name(value))


def _weighted(e: Emitter, op_type: str, node: Node, data_format: DataFormat, **attributes: Any) -> str:
    type_ = node.inputs[0].type
    x = channels_first(e, e.name(node.inputs[0]), type_.rank, data_format)
    bias = [e.name(value) for value in node.inputs[2:]]
    y = e.typed(op_type, type_.dtype, x, _kernel(e, node), *bias, **attributes)
    return restored(e, y, type_.rank, data_format)


@ONNX.register(ops.Conv)
def conv(e: Emitter, op: ops.Conv, node: Node) -> str:
    window = node.inputs[1].type.static_shape()[:-2]
    return _weighted(
        e,
        "Conv",
        node,
        op.data_format,
        kernel_shape=window,
        strides=op.strides,
        dilations=op.rates,
        group=op.groups,
        **_padding(op, node, op.rates),
    )


@ONNX.register(ops.ConvTranspose)
def conv_transpose(e: Emitter, op: ops.ConvTranspose, node: Node) -> str:
    window = node.inputs[1].type.static_shape()[:-2]
    # What is added at the end and cut off again takes no part: the engine wants little output_padding.
    undone = [min(extra, high) for extra, (_, high) in zip(op.output_padding, op.padding, strict=True)]
    pairs = tuple((low, high - both) for (low, high), both in zip(op.padding, undone, strict=True))
    extras = [extra - both for extra, both in zip(op.output_padding, undone, strict=True)]
    limits = [max(axis) for axis in zip(op.strides, op.rates, strict=True)]
    if any(extra >= limit for extra, limit in zip(extras, limits, strict=True)):
        raise UnsupportedOp("ONNX Runtime needs `output_padding` below stride or dilation")
    return _weighted(
        e,
        "ConvTranspose",
        node,
        op.data_format,
        kernel_shape=window,
        strides=op.strides,
        dilations=op.rates,
        group=op.groups,
        pads=_flat(pairs),
        output_padding=extras,
    )


def _pool(e: Emitter, op_type: str, op: ops.MaxPool | ops.AvgPool, node: Node) -> str:
    type_ = node.inputs[0].type
    x = channels_first(e, e.name(node.inputs[0]), type_.rank, op.data_format)
    padding = _padding(op, node, (1,) * len(op.strides))
    y = e.typed(op_type, type_.dtype, x, kernel_shape=op.pool_size, strides=op.strides, **padding)
    return restored(e, y, type_.rank, op.data_format)


@ONNX.register(ops.MaxPool)
def max_pool(e: Emitter, op: ops.MaxPool, node: Node) -> str:
    return _pool(e, "MaxPool", op, node)


@ONNX.register(ops.AvgPool)
def avg_pool(e: Emitter, op: ops.AvgPool, node: Node) -> str:
    return _pool(e, "AveragePool", op, node)
