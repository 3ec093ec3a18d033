"""Transposed convolutions, as convolutions that each compute the results of one phase of the strides."""

from itertools import product

import numpy as np

from kcompile.codegen.tvm.kernels.conv import Placement
from kcompile.codegen.tvm.kernels.convolution import emit_conv
from kcompile.codegen.tvm.kernels.dense import constant_of
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.windows import Windows
from kcompile.errors import UnsupportedOp
from kcompile.ir import dims, ops
from kcompile.ir.graph import Node


@TVM.register(ops.ConvTranspose)
def conv_transpose(plan: Plan, node: Node) -> None:
    """Along an axis of stride s, result ``s * q + r - low`` is the sum of ``x[q - m] * w[s * m + r]`` over m.

    For each remainder r that is a convolution with every s-th tap, in reverse.
    """
    op, (x, kernel, *bias), result = node.op, node.inputs, node.outputs[0].type
    assert isinstance(op, ops.ConvTranspose)
    if any(rate > 1 and stride > 1 for rate, stride in zip(op.rates, op.strides, strict=True)):
        raise UnsupportedOp(f"target 'tvm' takes no transposed convolution with strides and dilation at {node.source}.")
    weights = constant_of(kernel, node)
    per_group, channels = weights.shape[-2:]
    by_group = weights.reshape(*weights.shape[:-1], op.groups, channels // op.groups)
    filters = np.moveaxis(by_group, -3, -1).swapaxes(-3, -2)  # [*window, C / groups, groups, F / groups]
    matrix = filters.reshape(*weights.shape[:-2], channels // op.groups, op.groups * per_group)
    tail = plan.tail(node)
    for phase in product(*map(range, op.strides)):
        axes = [_Axis(*axis) for axis in zip(weights.shape, op.strides, op.rates, op.padding, phase, strict=False)]
        taps = matrix[tuple(slice(axis.phase, None, axis.stride) for axis in axes)]
        flipped = np.flip(taps, tuple(range(len(axes))))
        out = [axis.results(extent) for axis, extent in zip(axes, result.shape[1:-1], strict=True)]
        if 0 in out:
            continue
        windows = Windows(
            x.type.shape[0], x.type.shape[1:-1], tuple(out), channels, flipped.shape[: len(axes)], (1,) * len(axes),
            op.rates, tuple((axis.low(size), 1) for axis, size in zip(axes, flipped.shape, strict=False)),
        )  # fmt: skip
        places = tuple(
            Placement(axis.stride, axis.first, extent) for axis, extent in zip(axes, result.shape[1:-1], strict=True)
        )
        emit_conv(plan, x, windows, op.groups, flipped, bias[0] if bias else None, tail, places)


class _Axis:
    """One spatial axis of one phase."""

    def __init__(self, size: int, stride: int, rate: int, padding: tuple[int, int], phase: int) -> None:
        self.stride = stride
        self.phase = phase
        self.rate = rate
        self.first = (phase - padding[0]) % stride
        self._start = (self.first + padding[0] - phase) // stride

    def results(self, extent: dims.Dim) -> dims.Dim:
        """How many of the axis's results belong to the phase."""
        return dims.floor_div(dims.add(extent, self.stride - 1 - self.first), self.stride)

    def low(self, taps: int) -> int:
        """The padding before the input that makes the first result start where it does."""
        return (taps - 1) * self.rate - self._start
