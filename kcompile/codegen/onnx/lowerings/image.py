"""Resampling of images."""

from typing import Any

import numpy as np

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.lowerings.conv import channels_first, restored
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import dims, ops
from kcompile.ir.graph import Node
from kcompile.ir.ops.conv import channels_of, spatial_of


@ONNX.register(ops.Resize)
def resize(e: Emitter, op: ops.Resize, node: Node) -> str:
    type_ = node.inputs[0].type
    spatial = spatial_of(type_.shape, op.data_format)
    factors = [dims.exact_div(size, extent) for size, extent in zip(op.size, spatial, strict=True)]
    whole = [factor for factor in factors if isinstance(factor, int)]
    if op.interpolation == "bilinear":
        return _resized(e, op, node, whole, mode="linear", coordinate_transformation_mode="half_pixel")
    is_known = type_.with_shape((*spatial, *op.size)).is_static
    if is_known and (len(whole) < len(factors) or not e.has_kernel("Resize", type_.dtype)):
        return _gathered(e, op, node)
    if len(whole) == len(factors):
        return _resized(e, op, node, whole, coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    # floor(p + 0.5) of a position p from -0.5 on.
    return _resized(e, op, node, whole, coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil")


def _resized(e: Emitter, op: ops.Resize, node: Node, whole: list[int], **attributes: Any) -> str:
    """Resize by whole factors where all are, else to sizes. All axes are named: the engine's optimizer needs that."""
    type_ = node.inputs[0].type
    x = channels_first(e, e.name(node.inputs[0]), type_.rank, op.data_format)
    nearest = e.nearest("Resize", type_.dtype)
    x = x if nearest == type_.dtype else e.cast(x, nearest)
    if len(whole) == len(op.size):
        target = ["", e.constant(np.array([1, 1, *whole], np.float32))]
    else:
        target = ["", "", e.shape((type_.shape[0], channels_of(type_.shape, op.data_format), *op.size))]
    y = e.node("Resize", x, *target, **attributes)
    y = y if nearest == type_.dtype else e.cast(y, type_.dtype)
    return restored(e, y, type_.rank, op.data_format)


def _gathered(e: Emitter, op: ops.Resize, node: Node) -> str:
    """Nearest elements by index, computed here: the engine's float32 positions are off where they meet an edge."""
    y, shape = e.name(node.inputs[0]), node.inputs[0].type.shape
    for axis, size in enumerate(op.size, 1 if op.data_format == "channels_last" else 2):
        extent, target = int(shape[axis]), int(size)
        if extent != target:
            position = np.floor((np.arange(target) + 0.5) * (extent / max(target, 1))).astype(np.int64)
            y = e.node("Gather", y, e.constant(np.minimum(position, extent - 1)), axis=axis)
    return y
