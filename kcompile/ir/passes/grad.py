"""Reverse accumulation: the gradient of a loss, written as more of the same graph.

    gradients = backward(b, loss, [kernel, bias])

Each op says how a gradient passes through it (`Op.vjp`). Nodes on no path from a wanted value to the loss are left out,
so that what lies there needs no rule; the gradients that a rule writes in vain are dead code, which no graph holds.
"""

from collections.abc import Sequence

from kcompile.errors import GraphError
from kcompile.ir.expression import zeros
from kcompile.ir.graph import Builder, Node, Value, nodes_of
from kcompile.ir.op import Gradients
from kcompile.ir.ops.arithmetic import Add
from kcompile.ir.ops.constant import Full


def backward(b: Builder, loss: Value, wrt: Sequence[Value]) -> list[Value]:
    """The gradient of `loss` by each of `wrt`, of the same type; zeros where the loss does not depend on one.

    Raises:
        GraphError: the loss is no float of rank 0, one of `wrt` is no float, or an op in between has no gradient.
    """
    if loss.type.rank or not loss.type.is_float:
        raise GraphError(f"a loss must be one float. Received: {loss.type}. Sum or average it first.")
    found = pullback(b, [loss], (b(Full((), 1.0, loss.type.dtype)),), wrt)
    return [zeros(b, x.type) if dx is None else dx for x, dx in zip(wrt, found, strict=True)]


def pullback(b: Builder, ys: Sequence[Value], dys: Gradients, wrt: Sequence[Value]) -> Gradients:
    """The gradient of a number by each of `wrt`, from its gradients `dys` by `ys`; None where none flows.

    Raises:
        GraphError: one of `wrt` is no float, or an op in between has no gradient.
    """
    wrong = [x.type for x in wrt if not x.type.is_float]
    if wrong:
        raise GraphError(f"gradients are taken by floats. Received: {', '.join(map(str, wrong))}.")
    gradients: dict[Value, Value] = {}
    for y, dy in zip(ys, dys, strict=True):
        if dy is not None:
            _add(b, gradients, y, dy)
    for node in reversed(_between(wrt, ys)):
        flowing = tuple(gradients.get(y) for y in node.outputs)
        if all(dy is None for dy in flowing):
            continue
        with b.at(node.source):
            for x, dx in zip(node.inputs, _through(b, node, flowing), strict=True):
                if dx is not None:
                    _add(b, gradients, x, dx)
    return tuple(gradients.get(x) for x in wrt)


def _between(wrt: Sequence[Value], ys: Sequence[Value]) -> list[Node]:
    """The nodes on the paths from `wrt` to `ys`, operands first; integers carry no gradient."""
    reached = set(wrt)
    path: list[Node] = []
    for node in nodes_of(ys):
        if any(x in reached for x in node.inputs):
            path.append(node)
            reached.update(y for y in node.outputs if y.type.is_float)
    return path


def _through(b: Builder, node: Node, dys: Gradients) -> Gradients:
    gradients = node.op.vjp(b, node.inputs, node.outputs, dys)
    for x, dx in zip(node.inputs, gradients, strict=True):
        if dx is not None and dx.type != x.type:
            law = f"`{node.op.op_name}` must give a gradient of its operand's type {x.type}"
            raise GraphError(f"{law}. Received: {dx.type}.")
    return gradients


def _add(b: Builder, gradients: dict[Value, Value], x: Value, dx: Value) -> None:
    before = gradients.get(x)
    gradients[x] = dx if before is None else b(Add(), before, dx)
