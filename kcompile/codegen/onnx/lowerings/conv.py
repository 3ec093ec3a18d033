"""Convolutions and pooling. ONNX has channels first; around channels-last ops stand transposes, which cancel."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx

from kcompile.codegen.onnx.emitter import Emitter, known
from kcompile.codegen.onnx.lowerings.quantization import dequantized
from kcompile.codegen.onnx.table import ONNX
from kcompile.errors import UnsupportedOp
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Node
from kcompile.ir.ops.conv import same_padding, spatial_of
from kcompile.ir.ops.windows import DataFormat, Pairs

# Of each spatial axis the window, the stride and the dilation.
_Axes: TypeAlias = Sequence[tuple[int, int, int]]


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
) -> dict[str, Any] | None:
    """The attributes that say `padding`; None where the engine cannot compute what depends on an open extent."""
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
        return None
    return {"auto_pad": "SAME_UPPER"}


def _padded(e: Emitter, x: str, dtype: str, spatial: Shape, axes: _Axes, value: float = 0.0) -> str:
    """``x: [N, C, *spatial]`` with the padding "same", of `value`, that its extents at run time ask for."""
    lows: list[str] = []
    highs: list[str] = []
    for extent, (window, stride, rate) in zip(spatial, axes, strict=True):
        last = dims.mul(dims.sub(dims.ceil_div(extent, stride), 1), stride)
        wanted = e.extent(dims.sub(dims.add(last, (window - 1) * rate + 1), extent))
        total = e.node("Max", wanted, e.ints(0))
        lows.append(e.node("Div", total, e.ints(2)))
        highs.append(e.node("Sub", total, lows[-1]))
    pads = e.node("Concat", e.ints(0, 0), *lows, e.ints(0, 0), *highs, axis=0)
    nearest = e.nearest("Pad", dtype)
    made = e.node("Pad", e.cast(x, nearest) if nearest != dtype else x, pads, e.scalar(value, nearest))
    return e.cast(made, dtype) if nearest != dtype else made


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


def _weighted(
    e: Emitter, op_type: str, node: Node, data_format: DataFormat, same: _Axes | None = None, **attributes: Any
) -> str:
    """A convolution; with `same`, of what is padded so for these windows."""
    type_ = node.inputs[0].type
    x = channels_first(e, e.name(node.inputs[0]), type_.rank, data_format)
    if same is not None:
        x = _padded(e, x, type_.dtype, spatial_of(type_.shape, data_format), same)
    bias = [e.name(value) for value in node.inputs[2:]]
    y = e.typed(op_type, type_.dtype, x, _kernel(e, node), *bias, **attributes)
    return restored(e, y, type_.rank, data_format)


@ONNX.register(ops.Conv)
def conv(e: Emitter, op: ops.Conv, node: Node) -> str:
    window = node.inputs[1].type.static_shape()[:-2]
    padding = _padding(op, node, window, op.rates)
    return _weighted(
        e,
        "Conv",
        node,
        op.data_format,
        None if padding is not None else list(zip(window, op.strides, op.rates, strict=True)),
        kernel_shape=window,
        strides=op.strides,
        dilations=op.rates,
        group=op.groups,
        **(padding or {}),
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
    if padding is None:
        y = _pool_of_padded(e, op_type, op, node, x)
    else:
        y = e.typed(op_type, type_.dtype, x, kernel_shape=op.pool_size, strides=op.strides, **padding)
    return restored(e, y, type_.rank, op.data_format)


def _pool_of_padded(e: Emitter, op_type: str, op: ops.MaxPool | ops.AvgPool, node: Node, x: str) -> str:
    """A pool of what is padded first; a mean is divided by the share of its elements that are no padding."""
    dtype, spatial = node.inputs[0].type.dtype, spatial_of(node.inputs[0].type.shape, op.data_format)
    axes = [(size, stride, 1) for size, stride in zip(op.pool_size, op.strides, strict=True)]

    def pooled(values: str, padding: float) -> str:
        padded = _padded(e, values, dtype, spatial, axes, padding)
        return e.typed(op_type, dtype, padded, kernel_shape=op.pool_size, strides=op.strides)

    if isinstance(op, ops.MaxPool):
        return pooled(x, -np.inf if node.inputs[0].type.is_float else float(np.iinfo(dtype).min))
    one = onnx.numpy_helper.from_array(np.ones(1, dtype))
    share = pooled(e.node("ConstantOfShape", e.node("Shape", x), value=one), 0.0)
    return e.node("Div", pooled(x, 0.0), share)


@ONNX.register(ops.MaxPool)
def max_pool(e: Emitter, op: ops.MaxPool, node: Node) -> str:
    return _pool(e, "MaxPool", op, node)


@ONNX.register(ops.AvgPool)
def avg_pool(e: Emitter, op: ops.AvgPool, node: Node) -> str:
    return _pool(e, "AveragePool", op, node)
