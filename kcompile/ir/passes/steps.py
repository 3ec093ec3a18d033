"""Rewrites of training steps, where gradients of neighbours together are simpler than apart."""

from typing import TypeAlias

import numpy as np

from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.ops import (
    Add,
    AvgPoolGradient,
    Compare,
    CrossEntropyGradient,
    Div,
    MaxPool,
    MaxPoolGradient,
    Mul,
    Neg,
    ReduceSum,
    Relu,
    ScaledSum,
    Softmax,
    Sub,
    Where,
)
from kcompile.ir.passes.matching import uniform
from kcompile.ir.passes.rewrite import Context, Result, rewrite, rule

PoolGradient: TypeAlias = AvgPoolGradient | MaxPoolGradient


def _operand(value: Value | None, op: type) -> Value | None:
    """The first operand of the node of class `op` that computes `value`, where one does."""
    return value.producer.inputs[0] if value is not None and value.producer and isinstance(value.op, op) else None


@rule(MaxPool)
def pool_before_relu(c: Context, node: Node, op: MaxPool) -> Result:
    """The maximum of clipped elements is the clipped maximum."""
    x = _operand(node.inputs[0], Relu)
    return None if x is None else c.b(Relu(), c.b(op, x))


@rule(Where)
def gradient_before_relu(c: Context, node: Node, op: Where) -> Result:
    """``relu(x) > 0 ? max_pool_gradient(relu(x), relu(m), dy) : 0``, with ``m = max_pool(x)``, asks ``m > 0`` instead.

    Where a maximum is positive, it stands at the same place in ``x`` as in ``relu(x)``; elsewhere nothing passes.
    """
    condition, dx, other = node.inputs
    gradient, clipped = dx.producer, _operand(condition, Compare)
    if gradient is None or not isinstance(gradient.op, MaxPoolGradient) or clipped is not gradient.inputs[0]:
        return None
    if condition.op != Compare(">") or uniform(other) != 0 or uniform(_second(condition)) != 0:
        return None
    x, y, dy = _operand(clipped, Relu), gradient.inputs[1], gradient.inputs[2]
    m = _operand(y, Relu)
    if x is None or m is None or m.op != gradient.op.of or _operand(m, MaxPool) is not x:
        return None
    positive = c.b(Compare(">"), y, _second(condition))
    return c.b(gradient.op, x, m, c.b(Where(), positive, dy, other))


def _second(value: Value) -> Value:
    assert value.producer is not None
    return value.producer.inputs[1]


@rule(ReduceSum)
def sum_of_pool_gradient(c: Context, node: Node, op: ReduceSum) -> Result:
    """The sum of what a pooling's gradient spreads over windows is the sum of what it is given."""
    gradient = node.inputs[0].producer
    if gradient is None or not isinstance(gradient.op, PoolGradient):
        return None
    first = 1 if gradient.op.of.data_format == "channels_last" else 2
    spatial = range(first, first + len(gradient.op.of.pool_size))
    dy = gradient.inputs[-1]
    covers = set(spatial) <= {axis % dy.type.rank for axis in op.axes}
    return c.b(op, dy) if covers else None


@rule(Mul)
def entropy_of_softmax(c: Context, node: Node, op: Mul) -> Result:
    """``p * (dp - sum(dp * p))``, the gradient of the softmax ``p``, with that of its cross-entropy as ``dp``."""
    p, difference = node.inputs
    dp, total = _both(difference, Sub)
    gradient = dp.producer if dp is not None else None
    if gradient is None or not isinstance(gradient.op, CrossEntropyGradient) or gradient.inputs[0] is not p:
        return None
    last = isinstance(p.op, Softmax) and p.op.axis in (-1, p.type.rank - 1)
    summed = total.op if total is not None else None
    over = isinstance(summed, ReduceSum) and summed.keepdims and summed.axes in ((-1,), (p.type.rank - 1,))
    if not last or not over or _both(_operand(total, ReduceSum), Mul) != (dp, p):
        return None
    return c.b(CrossEntropyGradient(gradient.op.epsilon, through_softmax=True), *gradient.inputs)


def _both(value: Value | None, op: type) -> tuple[Value, Value] | tuple[None, None]:
    """The two operands of the node of class `op` that computes `value`, where one does."""
    if value is None or value.producer is None or not isinstance(value.op, op):
        return None, None
    return value.producer.inputs[0], value.producer.inputs[1]


@rule(Add)
def scaled_sum(c: Context, node: Node, op: Add) -> Result:
    """``a * x + b * y`` takes one pass instead of up to three, and so does ``y + a * (x - y)``, a mean that runs."""
    for y, other in (node.inputs, reversed(node.inputs)):
        difference, a = _scaled(other)
        if a is not None and isinstance(difference.op, Sub) and _second(difference) is y:
            return _sum(c, _operand(difference, Sub), a, y, c.b(Sub(), _one(c, a), a))
    (x, a), (y, b) = map(_scaled, node.inputs)
    return _sum(c, x, a, y, b)


@rule(Sub)
def scaled_difference(c: Context, node: Node, op: Sub) -> Result:
    """``y - a * x``; where x is a quotient, `a` may stand in its numerator."""
    (y, b), (x, a) = map(_scaled, node.inputs)
    if a is None and isinstance(x.op, Div):
        numerator, a = _scaled(_operand(x, Div) or x)
        x = x if a is None else c.b(Div(), numerator, _second(x))
    return None if a is None else _sum(c, x, c.b(Neg(), a), y, b)


def _scaled(value: Value) -> tuple[Value, Value | None]:
    """What a product scales, and the number by which."""
    one, other = _both(value, Mul)
    for x, a in ((one, other), (other, one)):
        if x is not None and a is not None and x.type.rank and not a.type.rank:
            return x, a
    return value, None


def _one(c: Context, like: Value) -> Value:
    return c.b.constant(np.ones((), like.type.dtype))


def _sum(c: Context, x: Value | None, a: Value | None, y: Value, b: Value | None) -> Result:
    if x is None or (a is None and b is None) or x.type != y.type or not x.type.is_float:
        return None
    given = a if a is not None else b
    assert given is not None
    return c.b(ScaledSum(), x, a if a is not None else _one(c, given), y, b if b is not None else _one(c, given))


RULES = (
    entropy_of_softmax,
    pool_before_relu,
    gradient_before_relu,
    sum_of_pool_gradient,
    scaled_sum,
    scaled_difference,
)


def simplify_step(graph: Graph) -> Graph:
    """`graph`, a step of training, with poolings before what they make smaller."""
    return rewrite(graph, RULES)
