"""What every elementwise op becomes on vectors: the one definition that all kernels and all epilogues share.

    @VECTOR.register(ops.Relu)
    def _relu(f: Function, op: ops.Relu, x: Expr) -> Expr:
        return maximum(x, 0)

Operands arrive named, broadcast to equal lanes and in the op's dtype; float16 arrives, and leaves, as float32.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from kcompile.codegen.lowering import LoweringTable
from kcompile.codegen.tvm import math as polynomials
from kcompile.codegen.tvm.compiler import tirx
from kcompile.codegen.tvm.expr import Expr, constant, is_nan, maximum, minimum, prim_type, select, unary
from kcompile.codegen.tvm.tir import Function
from kcompile.ir import ops
from kcompile.ir.op import Op
from kcompile.ir.types import TensorType

VectorRule: TypeAlias = Callable[..., Expr]

VECTOR = LoweringTable[VectorRule]("tvm")


@dataclass(frozen=True)
class Chain:
    """Elementwise ops in order, as plain data, so that kernels with equal chains are equal.

    Values are numbered: the operands first, then one per step. The last value is the result; without steps it is
    operand 0. Shapes broadcast to `result`'s as in numpy.
    """

    operands: tuple[TensorType, ...]
    result: TensorType
    steps: tuple[tuple[Op, tuple[int, ...]], ...] = ()

    def apply(self, f: Function, operands: Sequence[Expr]) -> Expr:
        """The result for operands that are vectors or scalars."""
        lanes = max((operand.lanes for operand in operands), default=1)
        values = list(operands)
        for op, arguments in self.steps:
            values.append(apply(f, op, [values[i].broadcast(lanes) for i in arguments]))
        return values[-1] if self.steps else values[0]

    def after_sum(self, other: TensorType) -> "Chain":
        """The chain that adds one more operand, the last, to operand 0 before all else."""
        count = len(self.operands)
        # Operand 0 becomes the sum, which is value count + 1; later values move up by the operand and the sum.
        numbers = [count + 1, *range(1, count), *range(count + 2, count + 2 + len(self.steps))]
        steps = ((op, tuple(numbers[i] for i in arguments)) for op, arguments in self.steps)
        return Chain((*self.operands, other), self.result, ((ops.Add(), (0, count)), *steps))

    @property
    def costly(self) -> bool:
        """Whether a step is a polynomial, so that code size matters more than a store and a load."""
        return any(type(op) not in _CHEAP for op, _ in self.steps)


def apply(f: Function, op: Op, arguments: Sequence[Expr]) -> Expr:
    """The named result of one elementwise op."""
    wide = [f.let(x.cast("float32") if x.dtype == "float16" else x) for x in arguments]
    result = f.let(VECTOR[op](f, op, *wide))
    narrow = any(x.dtype == "float16" for x in arguments) and result.dtype == "float32" and not isinstance(op, ops.Cast)
    return f.let(result.cast("float16")) if narrow else result


@VECTOR.register(ops.Constant)
def _constant(f: Function, op: ops.Constant) -> Expr:
    return constant(op.value.array.item(), op.value.type.dtype)


# ---- arithmetic


@VECTOR.register(ops.Add)
def _add(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x | y if x.dtype == "bool" else x + y


@VECTOR.register(ops.Sub)
def _sub(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x - y


@VECTOR.register(ops.Mul)
def _mul(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x & y if x.dtype == "bool" else x * y


@VECTOR.register(ops.Div)
def _div(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x / y if x.is_float else x // y


@VECTOR.register(ops.FloorDiv)
def _floor_div(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x // y


@VECTOR.register(ops.Mod)
def _mod(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x - y * (x // y) if x.is_float else x % y


@VECTOR.register(ops.Pow)
def _pow(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return polynomials.power(f, x, y)


@VECTOR.register(ops.Maximum)
def _maximum(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x | y if x.dtype == "bool" else maximum(x, y)


@VECTOR.register(ops.Minimum)
def _minimum(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x & y if x.dtype == "bool" else minimum(x, y)


@VECTOR.register(ops.Neg)
def _neg(f: Function, op: Op, x: Expr) -> Expr:
    return -x


@VECTOR.register(ops.Abs)
def _abs(f: Function, op: Op, x: Expr) -> Expr:
    return unary("abs", x) if x.is_float else maximum(x, -x)


@VECTOR.register(ops.Sqrt)
def _sqrt(f: Function, op: Op, x: Expr) -> Expr:
    return unary("sqrt", x)


@VECTOR.register(ops.Sign)
def _sign(f: Function, op: Op, x: Expr) -> Expr:
    # x itself where it is 0 or NaN.
    return select(x > 0, 1, select(x < 0, -1, x))


@VECTOR.register(ops.Floor)
def _floor(f: Function, op: Op, x: Expr) -> Expr:
    return unary("floor", x) if x.is_float else x


@VECTOR.register(ops.Ceil)
def _ceil(f: Function, op: Op, x: Expr) -> Expr:
    return unary("ceil", x) if x.is_float else x


@VECTOR.register(ops.Round)
def _round(f: Function, op: Op, x: Expr) -> Expr:
    return unary("nearbyint", x) if x.is_float else x


@VECTOR.register(ops.Clip)
def _clip(f: Function, op: ops.Clip, x: Expr) -> Expr:
    low, high = (bound if x.is_float or math.isfinite(bound) else None for bound in (op.min, op.max))
    x = x if low is None or low == -math.inf else f.let(maximum(x, low))
    return x if high is None or high == math.inf else minimum(x, high)


@VECTOR.register(ops.Cast)
def _cast(f: Function, op: ops.Cast, x: Expr) -> Expr:
    return x.cast(op.dtype)


@VECTOR.register(ops.Compare)
def _compare(f: Function, op: ops.Compare, x: Expr, y: Expr) -> Expr:
    if x.dtype == "bool":
        x, y = x.cast("uint8"), y.cast("uint8")
    match op.relation:
        case "==":
            return x.equals(y)
        case "!=":
            return x.differs(y) if not x.is_float else x.differs(y) | is_nan(x) | is_nan(y)
        case "<":
            return x < y
        case "<=":
            return x <= y
        case ">":
            return x > y
        case ">=":
            return x >= y


@VECTOR.register(ops.And)
def _and(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x & y


@VECTOR.register(ops.Or)
def _or(f: Function, op: Op, x: Expr, y: Expr) -> Expr:
    return x | y


@VECTOR.register(ops.Not)
def _not(f: Function, op: Op, x: Expr) -> Expr:
    return ~x


@VECTOR.register(ops.Where)
def _where(f: Function, op: Op, condition: Expr, x: Expr, y: Expr) -> Expr:
    return select(condition, x, y)


# ---- transcendental functions and activations


@VECTOR.register(ops.Exp)
def _exp(f: Function, op: Op, x: Expr) -> Expr:
    return polynomials.exp(f, x)


@VECTOR.register(ops.Log)
def _log(f: Function, op: Op, x: Expr) -> Expr:
    return polynomials.log(f, x)


@VECTOR.register(ops.Sin)
def _sin(f: Function, op: Op, x: Expr) -> Expr:
    return polynomials.sin(f, x)


@VECTOR.register(ops.Cos)
def _cos(f: Function, op: Op, x: Expr) -> Expr:
    return polynomials.cos(f, x)


@VECTOR.register(ops.Erf)
def _erf(f: Function, op: Op, x: Expr) -> Expr:
    return polynomials.erf(f, x)


@VECTOR.register(ops.Tanh)
def _tanh(f: Function, op: Op, x: Expr) -> Expr:
    return polynomials.tanh(f, x)


@VECTOR.register(ops.Sigmoid)
def _sigmoid(f: Function, op: Op, x: Expr) -> Expr:
    return polynomials.sigmoid(f, x)


@VECTOR.register(ops.Softplus)
def _softplus(f: Function, op: Op, x: Expr) -> Expr:
    return polynomials.softplus(f, x)


@VECTOR.register(ops.Relu)
def _relu(f: Function, op: Op, x: Expr) -> Expr:
    return maximum(x, 0)


@VECTOR.register(ops.LeakyRelu)
def _leaky_relu(f: Function, op: ops.LeakyRelu, x: Expr) -> Expr:
    return select(x >= 0, x, x * op.negative_slope)


@VECTOR.register(ops.PRelu)
def _prelu(f: Function, op: Op, x: Expr, alpha: Expr) -> Expr:
    return select(x >= 0, x, x * alpha)


@VECTOR.register(ops.Elu)
def _elu(f: Function, op: ops.Elu, x: Expr) -> Expr:
    return select(x > 0, x, polynomials.expm1(f, minimum(x, 0)) * op.alpha)


@VECTOR.register(ops.Selu)
def _selu(f: Function, op: ops.Selu, x: Expr) -> Expr:
    return select(x > 0, x * op.SCALE, polynomials.expm1(f, minimum(x, 0)) * (op.SCALE * op.ALPHA))


@VECTOR.register(ops.Celu)
def _celu(f: Function, op: ops.Celu, x: Expr) -> Expr:
    return select(x > 0, x, polynomials.expm1(f, minimum(x, 0) / op.alpha) * op.alpha)


@VECTOR.register(ops.HardSigmoid)
def _hard_sigmoid(f: Function, op: ops.HardSigmoid, x: Expr) -> Expr:
    return minimum(f.let(maximum(f.let(x * op.alpha + op.beta), 0)), 1)


@VECTOR.register(ops.HardSilu)
def _hard_silu(f: Function, op: Op, x: Expr) -> Expr:
    return x * _hard_sigmoid(f, ops.HardSigmoid(), x)


@VECTOR.register(ops.Silu)
def _silu(f: Function, op: Op, x: Expr) -> Expr:
    return x * polynomials.sigmoid(f, x)


@VECTOR.register(ops.Softsign)
def _softsign(f: Function, op: Op, x: Expr) -> Expr:
    return x / (unary("abs", x) + 1.0)


@VECTOR.register(ops.Mish)
def _mish(f: Function, op: Op, x: Expr) -> Expr:
    return x * polynomials.tanh(f, polynomials.softplus(f, x))


@VECTOR.register(ops.Gelu)
def _gelu(f: Function, op: ops.Gelu, x: Expr) -> Expr:
    if not op.approximate:
        return x * (polynomials.half_normal(f, x) + 0.5)
    return x * 0.5 * (polynomials.tanh(f, (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1.0)


# ---- numbers of few bits

# 1.5 * 2^23: added to a float32 of at most 22 bits before the point, it leaves the nearest integer, ties to even, in
# the lowest bits of the sum.
_TO_INTEGER = 12582912.0


@VECTOR.register(ops.QuantizeLinear)
def _quantize_linear(f: Function, op: Op, x: Expr, scale: Expr, zero: Expr) -> Expr:
    limits = np.iinfo(zero.dtype)
    offset = f.let(zero.cast(x.dtype))
    steps = f.let(x * f.let(1.0 / scale))
    low, high = f.let(float(limits.min) - offset), f.let(float(limits.max) - offset)
    steps = f.let(select(steps < low, low, steps))
    steps = f.let(select(steps > high, high, steps))
    if x.dtype == "float32":
        return ((steps + _TO_INTEGER).bits("int32") + zero.cast("int32")).cast(zero.dtype)
    return (unary("nearbyint", steps) + offset).cast("int32").cast(zero.dtype)


@VECTOR.register(ops.DequantizeLinear)
def _dequantize_linear(f: Function, op: Op, x: Expr, scale: Expr, zero: Expr) -> Expr:
    return (x.cast("int32") - zero.cast("int32")).cast(scale.dtype) * scale


# LLVM makes one instruction of this, where there is one.
_ROUNDING = """target triple = "x86_64-linux-gnu"
define linkonce_odr <{lanes} x i16> @kc_bf16_{lanes}(<{lanes} x float> %x) #0 {{
  %y = fptrunc <{lanes} x float> %x to <{lanes} x bfloat>
  %r = bitcast <{lanes} x bfloat> %y to <{lanes} x i16>
  ret <{lanes} x i16> %r
}}
attributes #0 = {{ alwaysinline "target-features"="+avx512f,+avx512vl,+avx512bf16" }}
"""
_LEAST_LANES = 4


@VECTOR.register(ops.ToBfloat16)
def _to_bfloat16(f: Function, op: Op, x: Expr) -> Expr:
    if x.lanes >= _LEAST_LANES and "+avx512bf16" in f.machine.features:
        f.import_llvm(_ROUNDING.format(lanes=x.lanes))
        node = tirx.call_extern(prim_type("uint16", x.lanes), f"kc_bf16_{x.lanes}", x.node)
        return Expr(node, "uint16", x.lanes)
    bits = f.let(x.bits("uint32"))
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return select(is_nan(x), (bits >> 16) | 0x40, rounded).cast("uint16")


@VECTOR.register(ops.FromBfloat16)
def _from_bfloat16(f: Function, op: Op, x: Expr) -> Expr:
    return (x.cast("uint32") << 16).bits("float32")


_CHEAP = frozenset(
    {
        ops.Constant, ops.Add, ops.Sub, ops.Mul, ops.Maximum, ops.Minimum, ops.Neg, ops.Abs, ops.Clip, ops.Cast,
        ops.Compare, ops.And, ops.Or, ops.Not, ops.Where, ops.Relu, ops.LeakyRelu, ops.PRelu, ops.HardSigmoid,
        ops.HardSilu, ops.QuantizeLinear, ops.DequantizeLinear, ops.ToBfloat16, ops.FromBfloat16,
    }
)  # fmt: skip
