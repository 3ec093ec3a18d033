"""Elementwise arithmetic, comparison and selection."""

import numpy as np

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX, Lowering
from kcompile.ir import ops
from kcompile.ir.graph import Node, Value
from kcompile.ir.op import Op

SAME_MEANING: dict[type[Op], str] = {
    ops.Sub: "Sub",
    ops.Mul: "Mul",
    ops.Pow: "Pow",
    ops.Maximum: "Max",
    ops.Minimum: "Min",
    ops.Abs: "Abs",
    ops.Exp: "Exp",
    ops.Log: "Log",
    ops.Sqrt: "Sqrt",
    ops.Sign: "Sign",
    ops.Floor: "Floor",
    ops.Ceil: "Ceil",
    ops.Round: "Round",
    ops.Sin: "Sin",
    ops.Cos: "Cos",
}
_LOGICAL: dict[type[Op], str] = {ops.And: "And", ops.Or: "Or", ops.Not: "Not"}


def same_meaning(op_type: str) -> Lowering:
    """The lowering to an operator that means the same."""

    def lower(e: Emitter, op: Op, node: Node) -> str:
        return e.typed(op_type, node.inputs[0].type.dtype, *e.inputs(node))

    return lower


def _logical(op_type: str) -> Lowering:
    """The lowering to an operator on bool, or to its like on the bits of integers."""

    def lower(e: Emitter, op: Op, node: Node) -> str:
        return e.node(op_type if node.inputs[0].type.dtype == "bool" else f"Bitwise{op_type}", *e.inputs(node))

    return lower


for _class, _op_type in SAME_MEANING.items():
    ONNX.register(_class)(same_meaning(_op_type))
for _class, _op_type in _LOGICAL.items():
    ONNX.register(_class)(_logical(_op_type))


@ONNX.register(ops.Add)
def add(e: Emitter, op: ops.Add, node: Node) -> str:
    dtype = node.inputs[0].type.dtype
    # ONNX Runtime fuses an Add with the LayerNormalization after it into a kernel of a tenth of their speed; no Sum.
    before_norm = any(isinstance(reader, ops.LayerNorm) for reader in e.readers(node.outputs[0]))
    op_type = "Sum" if before_norm and e.has_kernel("Sum", dtype) else "Add"
    return e.typed(op_type, dtype, *e.inputs(node))


@ONNX.register(ops.Neg)
def neg(e: Emitter, op: ops.Neg, node: Node) -> str:
    dtype, x = node.inputs[0].type.dtype, e.name(node.inputs[0])
    # ONNX has no Neg of unsigned numbers, which wrap around.
    return e.typed("Sub", dtype, e.scalar(0, dtype), x) if dtype.startswith("u") else e.typed("Neg", dtype, x)


@ONNX.register(ops.Div)
def div(e: Emitter, op: ops.Div, node: Node) -> str:
    if node.inputs[0].type.is_float:
        return e.typed("Div", node.inputs[0].type.dtype, *e.inputs(node))
    return _floor_div_integers(e, node)


@ONNX.register(ops.FloorDiv)
def floor_div(e: Emitter, op: ops.FloorDiv, node: Node) -> str:
    return _floor_div_floats(e, node) if node.inputs[0].type.is_float else _floor_div_integers(e, node)


@ONNX.register(ops.Mod)
def mod(e: Emitter, op: ops.Mod, node: Node) -> str:
    x, y = e.inputs(node)
    dtype = node.inputs[0].type.dtype
    if node.inputs[0].type.is_float:
        remainder = e.typed("Mod", dtype, x, y, fmod=1)
        return e.typed_where(_other_sign(e, remainder, y, dtype), e.typed("Add", dtype, remainder, y), remainder, dtype)
    divisor, is_zero = _without_zeros(e, y, node.inputs[1])
    remainder = e.typed("Mod", dtype, x, divisor)
    return e.typed_where(is_zero, e.scalar(0, dtype), remainder, dtype) if is_zero else remainder


def _floor_div_integers(e: Emitter, node: Node) -> str:
    """``(x - x mod y) / y``, for ONNX rounds quotients towards zero; 0 where y is 0, as in numpy, not a trap."""
    x, y = e.inputs(node)
    dtype = node.inputs[0].type.dtype
    divisor, is_zero = _without_zeros(e, y, node.inputs[1])
    if not dtype.startswith("u"):
        x = e.typed("Sub", dtype, x, e.typed("Mod", dtype, x, divisor))
    quotient = e.typed("Div", dtype, x, divisor)
    return e.typed_where(is_zero, e.scalar(0, dtype), quotient, dtype) if is_zero else quotient


def _without_zeros(e: Emitter, y: str, value: Value) -> tuple[str, str]:
    """`y` with zeros replaced by 1, and where they were; nothing to do for a constant without any."""
    if value.constant is not None and np.all(value.constant):
        return y, ""
    dtype = value.type.dtype
    is_zero = e.typed("Equal", dtype, y, e.scalar(0, dtype), back=False)
    return e.typed_where(is_zero, e.scalar(1, dtype), y, dtype), is_zero


def _floor_div_floats(e: Emitter, node: Node) -> str:
    """``(x - x mod y) / y`` rounded, as numpy has it: the rounding of ``x / y`` cannot lift it over an integer."""
    x, y = e.inputs(node)
    dtype = node.inputs[0].type.dtype
    remainder = e.typed("Mod", dtype, x, y, fmod=1)
    whole = e.typed("Round", dtype, e.typed("Div", dtype, e.typed("Sub", dtype, x, remainder), y))
    step = e.cast(_other_sign(e, remainder, y, dtype), dtype)
    is_zero = e.typed("Equal", dtype, y, e.scalar(0, dtype), back=False)
    return e.typed_where(is_zero, e.typed("Div", dtype, x, y), e.typed("Sub", dtype, whole, step), dtype)


def _other_sign(e: Emitter, remainder: str, y: str, dtype: str) -> str:
    """Where a remainder and its divisor have opposite signs."""
    return e.typed("Less", dtype, e.typed("Mul", dtype, remainder, y), e.scalar(0, dtype), back=False)


@ONNX.register(ops.Clip)
def clip(e: Emitter, op: ops.Clip, node: Node) -> str:
    dtype = node.inputs[0].type.dtype
    kind = np.dtype(dtype).type
    bounds = [e.constant(np.asarray(kind(bound))) if np.isfinite(bound) else "" for bound in (op.min, op.max)]
    x, nearest = e.name(node.inputs[0]), e.nearest("Clip", dtype)
    if nearest == dtype:
        return e.node("Clip", x, *bounds)
    wide = [bound and e.cast(bound, nearest) for bound in bounds]
    return e.cast(e.node("Clip", e.cast(x, nearest), *wide), dtype)


@ONNX.register(ops.Cast)
def cast(e: Emitter, op: ops.Cast, node: Node) -> str:
    return e.cast(e.name(node.inputs[0]), op.dtype)


_COMPARISONS = {"==": "Equal", "!=": "Equal", "<": "Less", "<=": "LessOrEqual", ">": "Greater", ">=": "GreaterOrEqual"}


@ONNX.register(ops.Compare)
def compare(e: Emitter, op: ops.Compare, node: Node) -> str:
    dtype = node.inputs[0].type.dtype
    result = e.typed(_COMPARISONS[op.relation], dtype, *e.inputs(node), back=False)
    return e.node("Not", result) if op.relation == "!=" else result


@ONNX.register(ops.Where)
def where(e: Emitter, op: ops.Where, node: Node) -> str:
    condition, x, y = e.inputs(node)
    return e.typed_where(condition, x, y, node.inputs[1].type.dtype)
