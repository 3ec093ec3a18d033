"""Convolutions and pooling. ONNX has channels first; around channels-last ops stand transposes, which cancel."""

from typing import Any

from kcompile.codegen.onnx.emitter import Emitter, known
from kcompile.codegen.onnx.lowerings.quantization import dequantized
from kcompile.codegen.onnx.table import ONNX
from kcompile.errors import UnsupportedOp
from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node
from kcompile.ir.ops.conv import same_padding, spatial_of
from kcompile.ir.ops.windows import DataFormat, Pairs


def channels_first(e: Emitter, x: str, rank: int, data_format: DataFormat) -> str:
    """``x`` as ``[N, C, *spatial]``."""
    return x if data_format == "channels_first" else e.transpose(x, (0, rank - 1, *range(1, rank - 1)))


def restored(e: Emitter, y: str, rank: int, data_format: DataFormat) -> str:
    """``y: [N, C, *spatial]`` in the op's own data format."""
    return y if data_format == "channels_first" else e.transpose(y, (0, *range(2, rank), 1))


def _same_pair(extent: Dim, window: int, stride: int, rate: int) -> tuple[int, int] | None:
    """The padding "same" of one axis; None where it depends on an extent that is open."""
    reach = (window - 1) * rate
    if isinstance(extent, int):
        return same_padding(extent, window, stride, rate)
    if stride == 1:
        return reach // 2, reach - reach // 2
    # At most one element is needed, at the end, and does no harm where it is not.
    return (0, reach) if reach <= 1 else None


def _padding(
    op: ops.Conv | ops.MaxPool | ops.AvgPool, node: Node, window: tuple[int, ...], rates: tuple[int, ...]
) -> dict[str, Any]:
    """The attributes that say `padding`; the engine itself computes what depends on an open extent."""
    if op.padding == "valid":
        return {}
    if op.padding != "same":
        return {"pads": _flat(op.padding)}
    spatial = spatial_of(node.inputs[0].type.shape, op.data_format)
    pairs = [_same_pair(*axis) for axis in zip(spatial, window, op.strides, rates, strict=True)]
    known = tuple(pair for pair in pairs if pair)
    if len(known) == len(pairs):
        return {"pads": _flat(known)} if any(map(any, known)) else {}
    if any(rate > 1 or stride > size for size, stride, rate in zip(window, op.strides, rates, strict=True)):
        raise UnsupportedOp('ONNX Runtime pads no open extent as "same" for strides with dilation or above the window')
    return {"auto_pad": "SAME_UPPER"}


def _flat(pairs: Pairs) -> list[int]:
    return [low for low, _ in pairs] + [high for _, high in pairs]


def _kernel(e: Emitter, node: Node) -> str:
    """The kernel with its last two axes swapped and put first: ``[*window, I, O] -> [O, I, *window]``."""
    value = node.inputs[1]
    rank = value.type.rank
    perm = (rank - 1, rank - 2, *range(rank - 2))
    kernel = known(value)
    if kernel is None:
        return dequantized(e, value, perm) or e.transpose(e.name(value), perm)
    return e.constant(kernel.transpose(perm), e.weight_name(value))


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
        **_padding(op, node, window, op.rates),
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
    padding = _padding(op, node, op.pool_size, (1,) * len(op.strides))
    y = e.typed(op_type, type_.dtype, x, kernel_shape=op.pool_size, strides=op.strides, **padding)
    return restored(e, y, type_.rank, op.data_format)


@ONNX.register(ops.MaxPool)
def max_pool(e: Emitter, op: ops.MaxPool, node: Node) -> str:
    return _pool(e, "MaxPool", op, node)


@ONNX.register(ops.AvgPool)
def avg_pool(e: Emitter, op: ops.AvgPool, node: Node) -> str:
    return _pool(e, "AveragePool", op, node)
