"""Computes in few bits what a graph says of numbers that come from few bits: integer and bfloat16 products.

Between a dequantised operand and dequantised weights, ``sum (q - z) s k s'`` is ``(sum q k - z sum k) s s'``: a sum of
integers; the zero point goes into the bias, and the scales follow as a factor per filter. What moves elements without
computing anything moves them as integers.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.op import Op
from kcompile.ir.ops.conv import explicit_padding
from kcompile.ir.passes.layout import to_channels_last
from kcompile.ir.passes.manager import Pass
from kcompile.ir.passes.rewrite import Context, Result, rewrite, rule
from kcompile.ir.types import Array

# Filters and channels of a block below which its products are too short for integers.
_LEAST_BLOCK = 4
# Products of 8 bits whose sum is exact in float32, in which depthwise convolutions sum: 2^24 / (255 * 127).
_MOST_TAPS = 518


def native_products(graph: Graph) -> Graph:
    """`graph` with the products of few bits that native kernels compute, if anything in it is in few bits."""
    if not any(isinstance(node.op, _MARKS) for node in graph.nodes):
        return graph
    return Pass("narrow_products", lambda g: rewrite(rewrite(rewrite(g, _PRODUCTS), _STEPS), _WIDENED))(
        to_channels_last(graph)
    )


def token_products(graph: Graph) -> Graph:
    """`graph` with the products of integers whose scales are found at run time, for which ONNX has no fused form."""
    return Pass("narrow_tokens", lambda g: rewrite(g, (_dense_of_tokens,)))(graph)


_MARKS = ops.DequantizeLinear | ops.FromBfloat16


def _opened(value: Value) -> Node | None:
    """The node that dequantises `value`, from uint8."""
    node = value.producer
    fits = node and isinstance(node.op, ops.DequantizeLinear) and node.inputs[0].type.dtype == "uint8"
    return node if fits else None


def _weights(value: Value) -> tuple[Array, Array] | None:
    """The int8 weights and the scale per filter that `value` is dequantised from."""
    node = value.producer
    if node is None or not isinstance(node.op, ops.DequantizeLinear):
        return None
    kernel, scale, zero = (operand.constant for operand in node.inputs)
    if kernel is None or scale is None or zero is None or kernel.dtype != np.int8 or zero.any():
        return None
    if scale.ndim > 1 or scale.size not in (1, kernel.shape[-1]):
        return None
    return kernel, np.broadcast_to(scale.reshape(-1), kernel.shape[-1:])


def _integers(value: Value) -> Array | None:
    """The integers of a bias that is quantised by the scale of the products."""
    node = value.producer
    fits = node and isinstance(node.op, ops.DequantizeLinear) and node.inputs[0].type.dtype == "int32"
    return node.inputs[0].constant if node and fits else None


@rule(ops.Dense)
def _dense(c: Context, node: Node, op: ops.Dense) -> Result:
    return _product(c, node, ops.DenseNarrow())


@rule(ops.Dense)
def _dense_of_tokens(c: Context, node: Node, op: ops.Dense) -> Result:
    opened = _opened(node.inputs[0])
    return _product(c, node, ops.DenseNarrow()) if opened and opened.inputs[1].constant is None else None


@rule(ops.Conv)
def _conv(c: Context, node: Node, op: ops.Conv) -> Result:
    if op.data_format != "channels_last" or not _has_blocks(op, node):
        return None
    return _product(c, node, ops.ConvNarrow(op.strides, op.padding, op.dilation, op.groups))


def _has_blocks(op: ops.Conv, node: Node) -> bool:
    """Whether the groups of a convolution are wide enough for products of words, or one channel each."""
    *window, channels, filters = node.inputs[1].type.static_shape()
    if channels == 1 and filters == op.groups:
        return int(np.prod(window)) <= _MOST_TAPS
    return op.groups == 1 or min(channels, filters // op.groups) >= _LEAST_BLOCK


def _product(c: Context, node: Node, op: ops.ConvNarrow | ops.DenseNarrow) -> Result:
    """The layer as a product of integers and what follows from their scales."""
    opened, weights = _opened(node.inputs[0]), _weights(node.inputs[1])
    if opened is None or weights is None:
        return None
    kernel, scale = weights
    x, step, zero = opened.inputs
    if zero.constant is None or zero.constant.size != 1 or step.type.shape[-1:] not in ((), (1,)):
        return None
    bias = next(iter(node.inputs[2:]), None)
    integers = None if bias is None else _integers(bias)
    offset = _offset(kernel, int(zero.constant.reshape(-1)[0]))
    total = offset + (0 if integers is None else integers.astype(np.int64))
    if np.abs(total).max(initial=0) > np.iinfo(np.int32).max:
        return None
    padded = _padded(c, x, zero.constant, kernel.shape, op)
    if padded is None:
        return None
    name = weights_name(node.inputs[1])
    sums = c.b(padded[1], padded[0], c.b.constant(kernel, name), c.b.constant(total.astype(np.int32)))
    y = _scaled(c, c.b(ops.Cast("float32"), sums), step, scale)
    return y if bias is None or integers is not None else c.b(ops.Add(), y, bias)


def _scaled(c: Context, y: Value, step: Value, scale: Array) -> Value:
    """The sums times the scales of both factors."""
    if step.constant is not None and step.constant.size == 1:
        factor = (scale * step.constant.reshape(())).astype(np.float32)
        return c.b(ops.Mul(), y, c.b.constant(factor))
    return c.b(ops.Mul(), c.b(ops.Mul(), y, c.b.constant(np.ascontiguousarray(scale))), step)


def weights_name(value: Value) -> str:
    """The name of the constant that `value` is widened from."""
    inner = value.producer.inputs[0].op if value.producer else None
    return inner.name if isinstance(inner, ops.Constant) else ""


def _offset(kernel: Array, zero: int) -> Array:
    """What the zero point adds to each sum, taken off again: ``i64[F]``."""
    return -zero * kernel.astype(np.int64).reshape(-1, kernel.shape[-1]).sum(axis=0)


def _padded(
    c: Context, x: Value, zero: Array, kernel: Sequence[Dim], op: ops.ConvNarrow | ops.DenseNarrow
) -> tuple[Value, ops.ConvNarrow | ops.DenseNarrow] | None:
    """x with its padding written out, where taps in it would not count as 0 or break a word of the input in two.

    None where the padding is not known.
    """
    if isinstance(op, ops.DenseNarrow) or op.padding == "valid":
        return x, op
    *window, channels = (int(extent) for extent in kernel[:-1])
    alone = op.groups == x.type.shape[-1]
    if not zero.any() and (alone or channels % (4 if x.type.dtype == "uint8" else 2) == 0):
        return x, op
    spatial = x.type.shape[1:-1]
    known = tuple(dim if isinstance(dim, int) else 1 for dim in spatial)
    if op.padding == "same" and any(isinstance(dim, str) for dim in spatial) and set(op.strides) != {1}:
        return None
    pairs = explicit_padding(op.padding, known, tuple(window), op.strides, op.wide.rates)
    low, high = ((0, *(pair[side] for pair in pairs), 0) for side in (0, 1))
    return c.b(ops.Pad(low, high, value=float(zero.reshape(-1)[0])), x), replace(op, padding="valid")


@rule(ops.QuantizeLinear)
def _moved(c: Context, node: Node, op: ops.QuantizeLinear) -> Result:
    """Quantised again as it was before it was moved: the integers are moved."""
    inner = node.inputs[0].producer
    if inner is None:
        return None
    if isinstance(inner.op, ops.DequantizeLinear):
        return inner.inputs[0] if _same(inner, node) else None
    opened = _opened(inner.inputs[0]) if isinstance(inner.op, _MOVING) else None
    if opened is None or not _same(opened, node):
        return None
    return c.b(inner.op, opened.inputs[0])


_MOVING = ops.MaxPool | ops.Reshape | ops.Transpose | ops.Slice


def _same(opened: Node, closed: Node) -> bool:
    """Whether two nodes have one scale and zero point, of one dtype."""
    pairs = zip(opened.inputs[1:], closed.inputs[1:], strict=True)
    arrays = [(a.constant, b.constant) for a, b in pairs]
    return opened.inputs[0].type.dtype == closed.outputs[0].type.dtype and all(
        a is not None and b is not None and a.dtype == b.dtype and a.size == b.size == 1 and (a == b).all()
        for a, b in arrays
    )


def _narrow_pair(node: Node) -> tuple[Value, Value] | None:
    """x and the weights as bfloat16."""
    x, kernel = (value.producer for value in node.inputs[:2])
    if x is None or kernel is None or not all(isinstance(n.op, ops.FromBfloat16) for n in (x, kernel)):
        return None
    return (x.inputs[0], kernel.inputs[0]) if kernel.inputs[0].constant is not None else None


@rule(ops.Dense)
def _bfloat16_dense(c: Context, node: Node, op: ops.Dense) -> Result:
    pair = _narrow_pair(node)
    return c.b(ops.DenseNarrow(), *pair, *node.inputs[2:]) if pair else None


@rule(ops.Conv)
def _bfloat16_conv(c: Context, node: Node, op: ops.Conv) -> Result:
    pair = _narrow_pair(node)
    if not pair or op.data_format != "channels_last" or not _has_blocks(op, node):
        return None
    narrow = ops.ConvNarrow(op.strides, op.padding, op.dilation, op.groups)
    padded = _padded(c, pair[0], np.zeros(1), node.inputs[1].type.shape, narrow)
    return c.b(padded[1], padded[0], pair[1], *node.inputs[2:]) if padded else None


@rule(ops.QuantizeLinear)
def _in_steps(c: Context, node: Node, op: ops.QuantizeLinear) -> Result:
    """What is quantised is computed in steps of its scale, so that the scale vanishes among other factors."""
    x, scale, zero = node.inputs
    step = scale.constant
    if step is None or zero.constant is None or step.size != 1 or float(step.reshape(())) == 1:
        return None
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.float32(1) / step.reshape(())
    steps = _scaled_by(c, x, factor) if np.isfinite(factor) else None
    return c.b(op, steps, c.b.constant(np.ones(step.shape, step.dtype)), zero) if steps else None


def _scaled_by(c: Context, value: Value, factor: Array) -> Value | None:
    """`value` times a number above 0, which goes into factors that are there already; None where one is not."""
    node = value.producer
    if node is None:
        return None
    op, (x, *others) = node.op, node.inputs or (value,)
    if isinstance(op, ops.DequantizeLinear) and others[0].constant is not None:
        return c.b(op, x, c.b.constant((others[0].constant * factor).astype(np.float32)), others[1])
    if not c.only_use(value):
        return None
    if isinstance(op, ops.Mul) and others[0].constant is not None:
        return c.b(op, x, c.b.constant((others[0].constant * factor).astype(np.float32)))
    if isinstance(op, ops.Relu | ops.Clip):
        inner = _scaled_by(c, x, factor)
        bounds = replace(op, min=op.min * float(factor), max=op.max * float(factor)) if isinstance(op, ops.Clip) else op
        return c.b(bounds, inner) if inner else None
    if isinstance(op, ops.Add):
        first, second = _scaled_by(c, x, factor), _scaled_by(c, others[0], factor)
        return c.b(op, first, second) if first and second else None
    return None


@rule(ops.QuantizeLinear)
def _limited(c: Context, node: Node, op: ops.QuantizeLinear) -> Result:
    """Limits that those of the integers keep anyhow."""
    x, scale, zero = node.inputs
    limiting, step, offset = x.op, scale.constant, zero.constant
    if not isinstance(limiting, ops.Relu | ops.Clip) or x.producer is None or step is None or offset is None:
        return None
    if step.size != 1 or offset.size != 1:
        return None
    low, high = (0.0, np.inf) if isinstance(limiting, ops.Relu) else (limiting.min, limiting.max)
    limits, at = np.iinfo(offset.dtype), float(offset.reshape(()))
    # Half a step beyond the last integer rounds to it.
    keeps = (
        low / float(step.reshape(())) <= limits.min - at + 0.4
        and high / float(step.reshape(())) >= limits.max - at - 0.4
    )
    return c.b(op, x.producer.inputs[0], scale, zero) if keeps else None


@rule(ops.DequantizeLinear, ops.FromBfloat16)
def _known(c: Context, node: Node, op: Op) -> Result:
    """Weights that no kernel takes in few bits are widened once for all."""
    arrays = tuple(value.constant for value in node.inputs)
    if any(array is None for array in arrays):
        return None
    (wide,) = op.kernel(tuple(array for array in arrays if array is not None))
    return c.b.constant(wide, weights_name(node.outputs[0]))


_PRODUCTS = (_dense, _conv, _bfloat16_dense, _bfloat16_conv, _moved)
_STEPS = (_in_steps, _limited)
_WIDENED = (_known,)
