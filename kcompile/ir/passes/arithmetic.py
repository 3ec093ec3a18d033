"""Algebraic identities that hold for every number, infinities and NaN included; only the sign of a zero may change."""

import math

from kcompile.ir.graph import Node, Value
from kcompile.ir.ops import (
    Abs,
    Add,
    Clip,
    Div,
    LeakyRelu,
    Maximum,
    Minimum,
    Mul,
    Neg,
    Not,
    Pow,
    PRelu,
    Relu,
    Sub,
    Where,
)
from kcompile.ir.passes.matching import is_nonnegative, uniform
from kcompile.ir.passes.rewrite import Context, Result, rule


@rule(Add, Mul, Sub, Div, Pow)
def neutral_operand(c: Context, node: Node, op: Add | Mul | Sub | Div | Pow) -> Result:
    """``x + 0``, ``x - 0``, ``x * 1``, ``x / 1`` and ``x ** 1`` are ``x``."""
    neutral = 0.0 if isinstance(op, Add | Sub) else 1.0
    x, y = node.inputs
    if uniform(y) == neutral and x.type == node.outputs[0].type:
        return x
    commutes = isinstance(op, Add | Mul)
    return y if commutes and uniform(x) == neutral and y.type == node.outputs[0].type else None


@rule(Neg, Not)
def undone(c: Context, node: Node, op: Neg | Not) -> Result:
    """A negation of a negation is nothing."""
    inner = node.inputs[0].producer
    return inner.inputs[0] if inner is not None and type(inner.op) is type(op) else None


@rule(Abs)
def abs_of_nonnegative(c: Context, node: Node, op: Abs) -> Result:
    """The absolute value of a number from 0 on is that number."""
    return node.inputs[0] if is_nonnegative(node.inputs[0]) else None


@rule(Relu, Clip)
def clip_of_clip(c: Context, node: Node, op: Relu | Clip) -> Result:
    """Clips in a row, ReLU among them, are one clip; one that is open at both ends is nothing."""
    low, high = _bounds(op)
    x = node.inputs[0]
    if low == -math.inf and high == math.inf:
        return x
    if isinstance(op, Clip) and (low, high) == (0.0, math.inf):
        return c.b(Relu(), x)
    if isinstance(op, Relu) and is_nonnegative(x):
        return x
    inner = x.producer
    if inner is None or not isinstance(inner.op, Relu | Clip):
        return None
    inner_low, inner_high = _bounds(inner.op)
    if low > high or inner_low > inner_high:
        return None
    return c.b(Clip(*(min(max(bound, low), high) for bound in (inner_low, inner_high))), inner.inputs[0])


def _bounds(op: Relu | Clip) -> tuple[float, float]:
    return (0.0, math.inf) if isinstance(op, Relu) else (op.min, op.max)


@rule(Maximum, Minimum)
def clip_by_constant(c: Context, node: Node, op: Maximum | Minimum) -> Result:
    """The maximum and the minimum of ``x`` and one number are clips."""
    if not node.outputs[0].type.is_float:
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        bound = uniform(other)
        if bound is not None and not math.isnan(bound) and x.type == node.outputs[0].type:
            return c.b(Clip(bound, math.inf) if isinstance(op, Maximum) else Clip(-math.inf, bound), x)
    return None


@rule(LeakyRelu, PRelu)
def leaky_relu_of_known_slope(c: Context, node: Node, op: LeakyRelu | PRelu) -> Result:
    """A PReLU of one slope is a leaky ReLU; of slope 0, a ReLU, and of slope 1, nothing."""
    x = node.inputs[0]
    slope = op.negative_slope if isinstance(op, LeakyRelu) else uniform(node.inputs[1])
    if slope == 1 and x.type == node.outputs[0].type:
        return x
    if slope is None or x.type != node.outputs[0].type or (isinstance(op, LeakyRelu) and slope != 0):
        return None
    return c.b(Relu() if slope == 0 else LeakyRelu(slope), x)


@rule(Where)
def where_of_known_condition(c: Context, node: Node, op: Where) -> Result:
    """A choice that is the same everywhere is the operand chosen."""
    condition, x, y = node.inputs
    known = uniform(condition)
    if known is None:
        return None
    chosen: Value = x if known else y
    return chosen if chosen.type == node.outputs[0].type else None


RULES = (
    neutral_operand,
    undone,
    abs_of_nonnegative,
    clip_of_clip,
    clip_by_constant,
    leaky_relu_of_known_slope,
    where_of_known_condition,
)
