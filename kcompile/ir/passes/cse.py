"""Common subexpressions: what is computed twice from the same values is computed once."""

from kcompile.ir.graph import Graph, Node, Value, substitute
from kcompile.ir.op import Op


def share_common(graph: Graph) -> Graph:
    """`graph` with equal nodes, equal constants among them, made one; the same object where all differ."""
    first: dict[tuple[Op, tuple[Value, ...]], Node] = {}
    shared: dict[Value, Value] = {}
    for node in graph.nodes:
        key = (node.op, tuple(shared.get(value, value) for value in node.inputs))
        kept = first.setdefault(key, node)
        if kept is not node:
            shared.update(zip(node.outputs, kept.outputs, strict=True))
    return substitute(graph, shared)
