"""Computes at compile time what depends on constants alone, where that makes the model no larger."""

import numpy as np

from kcompile.ir.evaluate import computed
from kcompile.ir.graph import Builder, Graph, Node, Value, substitute
from kcompile.ir.ops import DequantizeLinear, FromBfloat16
from kcompile.ir.passes.matching import constant_array

# A result may have this many bytes whatever it is computed from; a larger one must not exceed its operands.
SMALL_BYTES = 1 << 16

# Beyond this the compiler would compute longer than a few runs of the model do.
MAX_MACS = 10_000_000


def fold_constants(graph: Graph) -> Graph:
    """`graph` with nodes of constant operands replaced by their results.

    An op that expands its operands into something large stays, and so does one whose large operands are read elsewhere
    too, because either would make the artifact larger. Numbers of few bits stay what they are.
    """
    known: dict[Value, Value] = {}
    b = Builder(graph.name)
    for node in graph.nodes:
        arrays = [constant_array(known.get(value, value)) for value in node.inputs]
        arguments = tuple(array for array in arrays if array is not None)
        if isinstance(node.op, DequantizeLinear | FromBfloat16):
            continue
        if not arguments or len(arguments) < len(arrays) or not _is_worth_it(graph, node):
            continue
        with np.errstate(all="ignore"), b.at(node.source):
            results = tuple(b.constant(array) for array in computed(node.op, arguments))
        known.update(zip(node.outputs, results, strict=True))
    return substitute(graph, known)


def _is_worth_it(graph: Graph, node: Node) -> bool:
    types = tuple(value.type for value in node.outputs)
    if not all(type.is_static for type in types):
        return False
    macs = node.op.macs(tuple(value.type for value in node.inputs), types)
    if isinstance(macs, str) or macs > MAX_MACS:
        return False
    size = sum(int(type.size) * type.itemsize for type in types)
    constants = (value.constant for value in node.inputs if graph.uses[value] == 1)
    freed = sum(array.nbytes for array in constants if array is not None)
    return size <= max(freed, SMALL_BYTES)
