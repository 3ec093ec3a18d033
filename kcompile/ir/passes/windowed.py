"""Convolutions before poolings, in training steps: their results in the order in which the pooling reads them.

A pooling of windows that do not overlap compares the results at one place of all windows with those at another. Where
these stand together, it and its gradient run over long pieces of memory; results in no whole window are not computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from kcompile.ir.graph import Builder, Graph, Node, Value, substitute
from kcompile.ir.ops import Conv, ConvFilterGradient, ConvInputGradient, MaxPool, MaxPoolGradient, Reshape, WindowedConv


@dataclass(frozen=True)
class _Match:
    """A convolution, the pooling after it, the pooling's gradient, and what takes that on to the convolution."""

    conv: Node
    pool: Node
    gradient: Node
    readers: tuple[Node, ...]


def pool_by_window(graph: Graph) -> Graph:
    """`graph` with convolutions in the order of the poolings that alone read them, and whose gradients they get."""
    b, replacements = Builder(graph.name), dict[Value, Value]()
    readers = _readers(graph)
    for node in graph.nodes:
        match = _match(node, readers)
        if match is not None:
            replacements |= _replacements(b, match)
    return substitute(graph, replacements)


def _readers(graph: Graph) -> dict[Value, list[Node | None]]:
    """The nodes that read each value; None for the graph itself."""
    found: dict[Value, list[Node | None]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            found.setdefault(value, []).append(node)
    for value in graph.outputs:
        found.setdefault(value, []).append(None)
    return found


def _match(pool: Node, readers: Mapping[Value, list[Node | None]]) -> _Match | None:
    conv = pool.inputs[0].producer if isinstance(pool.op, MaxPool) else None
    if conv is None or not _fits(conv, pool):
        return None
    others = [node for node in readers[conv.outputs[0]] if node is not pool]
    gradient = others[0] if len(others) == 1 else None
    if gradient is None or not isinstance(gradient.op, MaxPoolGradient) or gradient.op.of != pool.op:
        return None
    if gradient.inputs[:2] != (conv.outputs[0], pool.outputs[0]):
        return None
    last = [node for node in readers[gradient.outputs[0]] if node is not None and _is_gradient(node, conv, gradient)]
    whole = len(last) == len(readers[gradient.outputs[0]])
    return _Match(conv, pool, gradient, tuple(last)) if whole else None


def _fits(conv: Node, pool: Node) -> bool:
    of = pool.op
    if not isinstance(conv.op, Conv) or not isinstance(of, MaxPool) or conv.op.groups != 1:
        return False
    apart = of.strides == of.pool_size and conv.op.data_format == of.data_format == "channels_last"
    static = all(isinstance(extent, int) for extent in conv.outputs[0].type.shape[1:])
    return apart and static and not any(map(any, of.pads((conv.outputs[0].type,))))


def _is_gradient(node: Node, conv: Node, gradient: Node) -> bool:
    if not isinstance(node.op, ConvFilterGradient | ConvInputGradient):
        return False
    operand = node.op.operands.index("dy")
    return node.op.of == conv.op and not node.op.size and node.inputs[operand] is gradient.outputs[0]


def _replacements(b: Builder, match: _Match) -> dict[Value, Value]:
    conv, pool, gradient = match.conv, match.pool, match.gradient
    assert isinstance(conv.op, Conv)
    assert isinstance(pool.op, MaxPool)
    size = pool.op.pool_size
    with b.at(conv.source):
        ordered = b(WindowedConv(conv.op, size), *conv.inputs)
    batch, *rest = ordered.type.shape
    places, run = prod(size), prod(int(extent) for extent in rest[len(size) :])
    across = MaxPool((places,), (places,))
    with b.at(pool.source):
        flat = b(Reshape((batch, places, run)), ordered)
        most = b(across, flat)
        found = {pool.outputs[0]: b(Reshape(pool.outputs[0].type.shape), most)}
        dy = b(Reshape((batch, 1, run)), gradient.inputs[2])
        dx = b(Reshape(ordered.type.shape), b(MaxPoolGradient(across), flat, most, dy))
    for node in match.readers:
        assert isinstance(node.op, ConvFilterGradient | ConvInputGradient)
        operands = [dx if value is gradient.outputs[0] else value for value in node.inputs]
        with b.at(node.source):
            found[node.outputs[0]] = b(replace(node.op, size=size), *operands)
    return found
