"""Folds what stands around a convolution or a dense layer into its weights and its padding.

With ``y = conv(x, kernel) + bias``:

    y * s        = conv(x, kernel * s) + bias * s            s: one number per filter
    y + t        = conv(x, kernel) + (bias + t)
    conv(x * s)  = conv(x, s * kernel)                       s: one number per channel
    conv(x + t)  = conv(x) + sum of t * kernel               where no padding stands between
    conv(pad(x)) = conv(x) with explicit padding             where zeros are padded
"""

from dataclasses import dataclass, replace

import numpy as np

from kcompile.ir.graph import Builder, Graph, Node, Value
from kcompile.ir.op import Op
from kcompile.ir.ops import Add, AvgPool, Constant, Conv, ConvTranspose, Dense, Div, MatMul, MaxPool, Mul, Pad, Sub
from kcompile.ir.ops.conv import spatial_of
from kcompile.ir.ops.windows import DataFormat, Pairs
from kcompile.ir.passes.matching import along_axis, is_nonnegative
from kcompile.ir.passes.rewrite import Context, Result, Skip, rewrite, rule
from kcompile.ir.types import Array

# A shift before a layer cancels against its input: folded, the sum keeps log2 of this many bits less.
MAX_SHIFT = 16.0


@dataclass(frozen=True)
class Linear:
    """A convolution, transposed convolution or dense layer whose weights are constants."""

    node: Node
    op: Conv | ConvTranspose | Dense
    kernel: Array
    bias: Array | None

    @classmethod
    def of(cls, node: Node | None) -> "Linear | None":
        """`node` as a linear layer, where it is one."""
        if node is None or not isinstance(node.op, Conv | ConvTranspose | Dense) or not node.inputs[0].type.is_float:
            return None
        kernel = node.inputs[1].constant
        bias = node.inputs[2].constant if len(node.inputs) > 2 else None
        if kernel is None or (bias is None and len(node.inputs) > 2):
            return None
        return cls(node, node.op, kernel, bias)

    @property
    def axis(self) -> int:
        """The axis of channels, of filters and of units."""
        first = not isinstance(self.op, Dense) and self.op.data_format == "channels_first"
        return 1 if first else self.node.inputs[0].type.rank - 1

    @property
    def groups(self) -> int:
        """Independent blocks of channels and filters."""
        return 1 if isinstance(self.op, Dense) else self.op.groups

    @property
    def pads(self) -> bool:
        """Whether zeros may stand beside the input."""
        return isinstance(self.op, ConvTranspose) or (isinstance(self.op, Conv) and self.op.padding != "valid")

    def scaled_outputs(self, scale: Array) -> Array:
        """The kernel that makes every filter's result `scale` times as large."""
        if isinstance(self.op, ConvTranspose):
            return _times(self._blocks(), scale.reshape(self.groups, -1).T[:, :, None]).reshape(self.kernel.shape)
        return _times(self.kernel, scale)

    def scaled_inputs(self, scale: Array) -> Array:
        """The kernel that takes inputs that are not yet multiplied by `scale`."""
        if isinstance(self.op, ConvTranspose):
            return _times(self.kernel, scale)
        return _times(self._blocks(), scale.reshape(self.groups, -1).T[:, :, None]).reshape(self.kernel.shape)

    def response(self, shift: Array) -> Array:
        """What each filter gives for the constant input `shift`, where nothing pads."""
        blocks = self._blocks()
        summed = blocks.sum(axis=tuple(range(blocks.ndim - 3)), dtype=np.float64)
        return (summed * shift.reshape(self.groups, -1).T[:, :, None]).sum(axis=0).reshape(-1)

    def _blocks(self) -> Array:
        """The kernel with its last axis split by group: ``[*window, C / groups, groups, F / groups]``."""
        return self.kernel.reshape(*self.kernel.shape[:-1], self.groups, self.kernel.shape[-1] // self.groups)

    def rebuilt(self, b: Builder, x: Value, kernel: Array | None, bias: Array | None, bias_name: str = "") -> Value:
        """The layer on `x` with other weights, where they are given, under its own name and those of its weights."""
        weights = list(self.node.inputs[1:])
        with b.at(self.node.source):
            if kernel is not None:
                weights[0] = b.constant(kernel, _name(weights[0]))
            if bias is not None:
                name = _name(weights[1]) if len(weights) > 1 else bias_name
                weights[1:] = [b.constant(bias.astype(self.kernel.dtype), name)]
            return b(self.op, x, *weights)

    def after(self, c: Context, scale: Array | None, shift: Array | None, shift_name: str = "") -> Value | Skip:
        """The layer whose result is ``y * scale + shift``."""
        if not c.only_use(self.node.outputs[0]):
            return Skip(f"the {self.op.op_name} before it has other uses")
        if not _finite(scale, shift):
            return Skip("the factors are not finite")
        bias = None if self.bias is None else self.bias.astype(np.float64)
        if scale is not None and bias is not None:
            bias = bias * scale
        if shift is not None:
            bias = shift if bias is None else bias + shift
        kernel = None if scale is None else self.scaled_outputs(scale)
        return self.rebuilt(c.b, self.node.inputs[0], kernel, bias, shift_name)

    def before(self, c: Context, x: Value, scale: Array | None, shift: Array | None) -> Value | Skip:
        """The layer that gives for `x` what this one gives for ``x * scale + shift``, its present input."""
        if not c.only_use(self.node.inputs[0]):
            return Skip(f"the {self.op.op_name}'s input has other uses")
        shifts = shift is not None and bool(np.any(shift))
        if shifts and self.pads:
            return Skip("the padding puts zeros beside the shifted input")
        if not _finite(scale, shift):
            return Skip("the factors are not finite")
        if shift is not None and np.abs(shift).max(initial=0) > MAX_SHIFT:
            return Skip("the shift is so large that its cancellation would lose digits")
        kernel = None if scale is None else self.scaled_inputs(scale)
        if shift is None or not shifts:
            return self.rebuilt(c.b, x, kernel, None)
        bias = self.response(shift) + (0.0 if self.bias is None else self.bias.astype(np.float64))
        return self.rebuilt(c.b, x, kernel, bias)


def _finite(*arrays: Array | None) -> bool:
    return all(array is None or bool(np.isfinite(array).all()) for array in arrays)


def _times(array: Array, factors: Array) -> Array:
    """The product, rounded once to the dtype of `array`, without an array in between."""
    product: Array = np.multiply(array, factors, out=np.empty_like(array), casting="same_kind")
    return product


def _name(value: Value) -> str:
    return value.op.name if isinstance(value.op, Constant) else ""


@rule(Mul, Div, Add, Sub)
def constant_after_linear(c: Context, node: Node, op: Mul | Div | Add | Sub) -> Result:
    """``conv(x) * s`` and ``conv(x) + t`` with constants per filter become part of the weights."""
    x, constant = _ordered(node)
    linear = Linear.of(x.producer)
    if linear is None or x.type != node.outputs[0].type:
        return None
    vector = along_axis(constant, x.type.shape, linear.axis)
    if vector is None:
        return None
    return linear.after(c, _scale(op, vector), _shift(op, vector), _name(constant))


@rule(Conv, ConvTranspose, Dense)
def constant_before_linear(c: Context, node: Node, op: Conv | ConvTranspose | Dense) -> Result:
    """``conv(x * s)`` and, where nothing pads, ``conv(x + t)`` become part of the weights: constants per channel."""
    inner, linear = node.inputs[0].producer, Linear.of(node)
    if linear is None or inner is None or not isinstance(inner.op, Mul | Div | Add | Sub):
        return None
    x, constant = _ordered(inner)
    if x.type != inner.outputs[0].type:
        return None
    vector = along_axis(constant, x.type.shape, linear.axis)
    if vector is None:
        return None
    return linear.before(c, x, _scale(inner.op, vector), _shift(inner.op, vector))


def _ordered(node: Node) -> tuple[Value, Value]:
    """The operands of a binary node, the constant last where the op commutes."""
    first, second = node.inputs
    swap = isinstance(node.op, Mul | Add) and first.constant is not None
    return (second, first) if swap else (first, second)


def _scale(op: Op, vector: Array) -> Array | None:
    with np.errstate(divide="ignore"):
        return vector if isinstance(op, Mul) else 1.0 / vector if isinstance(op, Div) else None


def _shift(op: Op, vector: Array) -> Array | None:
    return vector if isinstance(op, Add) else -vector if isinstance(op, Sub) else None


@rule(MatMul)
def matmul_of_weights(c: Context, node: Node, op: MatMul) -> Result:
    """A product with a constant matrix is a dense layer."""
    x, kernel = node.inputs
    return c.b(Dense(), x, kernel) if kernel.constant is not None and kernel.type.rank == 2 else None


@rule(Conv, MaxPool, AvgPool)
def padding_of_zero_width(c: Context, node: Node, op: Conv | MaxPool | AvgPool) -> Result:
    """ "same" and explicit padding that pad nothing are "valid"."""
    if op.padding == "valid" or _known_pads(node, op) != ((0, 0),) * len(op.strides):
        return None
    return c.b(replace(op, padding="valid"), *node.inputs)


@rule(Conv, MaxPool)
def pad_into_window(c: Context, node: Node, op: Conv | MaxPool) -> Result:
    """A convolution pads zeros itself, and a pooling of numbers from 0 on may take padding for zeros."""
    outer = node.inputs[0].producer
    if outer is None or not isinstance(outer.op, Pad) or outer.op.mode != "constant" or outer.op.value != 0:
        return None
    low, high = (_spatial(widths, op.data_format) for widths in (outer.op.low, outer.op.high))
    if sum(low) + sum(high) != sum(outer.op.low) + sum(outer.op.high):
        return None
    own = _known_pads(node, op)
    if own is None:
        return Skip("the extents that decide the padding are not known")
    pairs = tuple((a + before, d + after) for a, d, (before, after) in zip(low, high, own, strict=True))
    x = outer.inputs[0]
    if isinstance(op, MaxPool):
        if not is_nonnegative(x):
            return Skip("the padded numbers may be negative, and the zeros beside them would win")
        if any(width >= size for pair, size in zip(pairs, op.pool_size, strict=True) for width in pair):
            return Skip("a window may hold padding alone")
    return c.b(replace(op, padding=pairs), x, *node.inputs[1:])


def _known_pads(node: Node, op: Conv | MaxPool | AvgPool) -> Pairs | None:
    """The padding as pairs, where it is known."""
    if op.padding == "valid":
        return ((0, 0),) * len(op.strides)
    if op.padding != "same":
        return op.padding
    window = node.inputs[1].type.static_shape()[:-2] if isinstance(op, Conv) else op.pool_size
    if set(window) == {1}:
        return ((0, 0),) * len(window)
    types = tuple(value.type for value in node.inputs)
    known = types[0].with_shape(spatial_of(types[0].shape, op.data_format)).is_static
    return op.pads(types) if known else None


def _spatial(widths: tuple[int, ...], data_format: DataFormat) -> tuple[int, ...]:
    return widths[1:-1] if data_format == "channels_last" else widths[2:]


RULES = (padding_of_zero_width, pad_into_window, matmul_of_weights, constant_after_linear, constant_before_linear)


def fold_into_linear(graph: Graph) -> Graph:
    """`graph` with constants and padding around convolutions and dense layers folded into these."""
    return rewrite(graph, RULES)
