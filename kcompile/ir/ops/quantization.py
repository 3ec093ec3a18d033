"""Numbers of few bits: integers with a scale and a zero point, and bfloat16, and products of such numbers.

A tensor stands in few bits between an op that narrows it and one that widens it. Widened numbers are exact, so that a
graph with such pairs means the same on every back end, whether that computes with few bits or not.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Elementwise, Op, Types, Values, broadcast_shapes
from kcompile.ir.ops.arithmetic import Add, Cast, Clip, Div, Mul, Round, Sub
from kcompile.ir.ops.conv import Conv, Padding
from kcompile.ir.ops.linear import Dense
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Value

_INTEGERS = ("int8", "uint8", "int32")
# The dtypes of x, kernel and sum that products of few bits are for.
_PRODUCTS = {("uint8", "int8"): "int32", ("uint16", "uint16"): "float32"}


def bfloat16_bits(x: Array) -> Array:
    """The upper half of each float32, rounded to nearest, ties to even; NaN stays NaN: ``f[...] -> u16[...]``."""
    bits = x.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(x), quiet, rounded).astype(np.uint16)


def bfloat16_value(bits: Array) -> Array:
    """The float32 that each bfloat16 is: ``u16[...] -> f32[...]``."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@dataclass(frozen=True)
class QuantizeLinear(Elementwise, name="quantize_linear", operands=("x", "scale", "zero_point")):
    """``saturate(round(x / scale) + zero_point)``, ties to even, in the zero point's dtype.

    Scale and zero point broadcast to x. NaN has no integer that it becomes. Source:
    https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
    """

    def infer(self, types: Types) -> Types:
        x, scale, zero = types
        fits = x.is_float and scale.dtype == x.dtype and zero.dtype in _INTEGERS[:2]
        self.require(fits, "x and scale must be of one float dtype, and the zero point int8 or uint8", types)
        self.require(broadcast_shapes(self, types) == x.shape, "scale and zero point must broadcast to x", types)
        return (x.with_dtype(zero.dtype),)

    def kernel(self, args: Arrays) -> Arrays:
        x, scale, zero = args
        limits = np.iinfo(zero.dtype)
        with np.errstate(all="ignore"):
            steps = np.rint(x / scale) + zero
            return (np.nan_to_num(np.clip(steps, limits.min, limits.max)).astype(zero.dtype),)

    def decompose(self, b: "Builder", xs: Values) -> "tuple[Value, ...]":
        x, scale, zero = xs
        limits = np.iinfo(zero.type.dtype)
        steps = b(Add(), b(Round(), b(Div(), x, scale)), b(Cast(x.type.dtype), zero))
        return (b(Cast(zero.type.dtype), b(Clip(float(limits.min), float(limits.max)), steps)),)


@dataclass(frozen=True)
class DequantizeLinear(Elementwise, name="dequantize_linear", operands=("x", "scale", "zero_point")):
    """``(x - zero_point) * scale``, in the scale's dtype; scale and zero point broadcast to x.

    Source: https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
    """

    def infer(self, types: Types) -> Types:
        x, scale, zero = types
        fits = scale.is_float and x.dtype == zero.dtype and x.dtype in _INTEGERS
        self.require(fits, "x and zero point must be of one dtype, int8, uint8 or int32, and the scale float", types)
        self.require(broadcast_shapes(self, types) == x.shape, "scale and zero point must broadcast to x", types)
        return (x.with_dtype(scale.dtype),)

    def kernel(self, args: Arrays) -> Arrays:
        x, scale, zero = args
        return ((x.astype(np.int64) - zero).astype(scale.dtype) * scale,)

    def decompose(self, b: "Builder", xs: Values) -> "tuple[Value, ...]":
        x, scale, zero = xs
        steps = b(Sub(), b(Cast("int32"), x), b(Cast("int32"), zero))
        return (b(Mul(), b(Cast(scale.type.dtype), steps), scale),)


@dataclass(frozen=True)
class ToBfloat16(Elementwise, name="to_bfloat16", operands=("x",)):
    """The bits of x as bfloat16, rounded to nearest, ties to even: ``f32[...] -> u16[...]``."""

    def infer(self, types: Types) -> Types:
        self.require(types[0].dtype == "float32", "x must be float32", types)
        return (types[0].with_dtype("uint16"),)

    def kernel(self, args: Arrays) -> Arrays:
        return (bfloat16_bits(args[0]),)


@dataclass(frozen=True)
class FromBfloat16(Elementwise, name="from_bfloat16", operands=("x",)):
    """The number whose bits as bfloat16 are x: ``u16[...] -> f32[...]``."""

    def infer(self, types: Types) -> Types:
        self.require(types[0].dtype == "uint16", "x must be uint16", types)
        return (types[0].with_dtype("float32"),)

    def kernel(self, args: Arrays) -> Arrays:
        return (bfloat16_value(args[0]),)


def _widened(array: Array) -> Array:
    """Factors whose products float64 sums without rounding for integers."""
    return (bfloat16_value(array) if array.dtype == np.uint16 else array).astype(np.float64)


def _require_factors(op: Op, types: Types) -> str:
    """The dtype of the sum."""
    found = _PRODUCTS.get((types[0].dtype, types[1].dtype), "")
    fits = bool(found) and (len(types) < 3 or types[2].dtype == found)
    law = "x and kernel must be uint8 and int8, or both bfloat16 as uint16, and the bias of the sum's dtype"
    op.require(fits, law, types)
    return found


def _in_floats(b: "Builder", op: Op, xs: Values) -> "tuple[Value, ...]":
    """`op` in float64, which sums integers exactly."""
    x, kernel, *bias = xs
    is_float = x.type.dtype == "uint16"
    wide = [b(Cast("float64"), b(FromBfloat16(), v) if is_float else v) for v in (x, kernel)]
    return (b(Cast("float32" if is_float else "int32"), b(op, *wide, *(b(Cast("float64"), v) for v in bias))),)


@dataclass(frozen=True)
class ConvNarrow(Op, name="conv_narrow", operands=("x", "kernel", "bias?")):
    """A channels-last `Conv` of uint8 with int8, summed in int32, or of bfloat16 with bfloat16, summed in float32."""

    strides: tuple[int, ...]
    padding: Padding = "valid"
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def wide(self) -> Conv:
        """The same convolution of floats."""
        return Conv(self.strides, self.padding, self.dilation, self.groups)

    def infer(self, types: Types) -> Types:
        dtype = _require_factors(self, types)
        (result,) = self.wide.result_types(tuple(t.with_dtype("float32") for t in types))
        return (result.with_dtype(dtype),)

    def kernel(self, args: Arrays) -> Arrays:
        x, kernel, *bias = args
        (y,) = self.wide.kernel((_widened(x), _widened(kernel)))
        y = y + bias[0] if bias else y
        return (y.astype("float32" if x.dtype == np.uint16 else "int32"),)

    def decompose(self, b: "Builder", xs: Values) -> "tuple[Value, ...]":
        return _in_floats(b, self.wide, xs)

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(results[0].size, *types[1].shape[:-1])


@dataclass(frozen=True)
class DenseNarrow(Op, name="dense_narrow", operands=("x", "kernel", "bias?")):
    """``x @ kernel + bias`` of uint8 with int8, summed in int32, or of bfloat16 with bfloat16, summed in float32.

    ``x: [..., K], kernel: [K, M], bias: [M] -> [..., M]``.
    """

    def infer(self, types: Types) -> Types:
        dtype = _require_factors(self, types)
        x, kernel = types[:2]
        fits = kernel.rank == 2 and x.rank >= 1 and x.shape[-1] == kernel.shape[0]
        self.require(fits, "x must be [..., K] and the kernel [K, M]", types)
        self.require(len(types) < 3 or types[2].shape == kernel.shape[1:], "the bias must be [M]", types)
        return (x.with_shape((*x.shape[:-1], kernel.shape[1])).with_dtype(dtype),)

    def kernel(self, args: Arrays) -> Arrays:
        x, kernel, *bias = args
        rows = _widened(x).reshape(math.prod(x.shape[:-1]), x.shape[-1]) @ _widened(kernel)
        y = rows.reshape(*x.shape[:-1], kernel.shape[1])
        y = y + bias[0] if bias else y
        return (y.astype("float32" if x.dtype == np.uint16 else "int32"),)

    def decompose(self, b: "Builder", xs: Values) -> "tuple[Value, ...]":
        return _in_floats(b, Dense(), xs)

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(results[0].size, types[1].shape[0])
