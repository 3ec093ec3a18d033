"""Channels last: the one layout of this back end's kernels."""

from dataclasses import replace

from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph, Value, substitute
from kcompile.ir.passes.simplify import simplify

_SPATIAL = ops.Conv | ops.ConvTranspose | ops.MaxPool | ops.AvgPool | ops.Resize


def to_channels_last(graph: Graph) -> Graph:
    """`graph` with every channels-first convolution, pooling and resize between two transposes."""
    replacements: dict[Value, Value] = {}
    b = Builder(graph.name)
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, _SPATIAL) or op.data_format == "channels_last":
            continue
        x, result = node.inputs[0], node.outputs[0]
        rank = x.type.rank
        with b.at(node.source):
            moved = b(ops.Transpose((0, *range(2, rank), 1)), x)
            y = b(replace(op, data_format="channels_last"), moved, *node.inputs[1:])
            replacements[result] = b(ops.Transpose((0, rank - 1, *range(1, rank - 1))), y)
    return simplify(substitute(graph, replacements)) if replacements else graph
