"""Weights that float16 holds: kernels and tables rounded, so that they can be stored in half the bytes."""

import numpy as np

from kcompile.errors import TargetError
from kcompile.ir.graph import Graph, Node, Value, substitute
from kcompile.ir.op import Tensor
from kcompile.ir.ops import Constant


def rounded(graph: Graph) -> Graph:
    """`graph` with every constant of float32 that has two axes or more rounded to the nearest float16.

    Raises:
        TargetError: a weight is too large for float16; all are named.
    """
    replacements: dict[Value, Value] = {}
    too_large: list[str] = []
    for node in graph.nodes:
        array = node.outputs[0].constant
        if not isinstance(node.op, Constant) or array is None or array.dtype != np.float32 or array.ndim < 2:
            continue
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.array_equal(np.isfinite(half), np.isfinite(array)):
            too_large.append(node.op.name or node.source)
        made = Node(Constant(Tensor(half.astype(np.float32)), node.op.name), (), node.source)
        replacements[node.outputs[0]] = made.outputs[0]
    if too_large:
        law = '`weights_dtype` "f16" holds weights up to 65504'
        raise TargetError(f"{law}. Received: larger ones in {', '.join(f'`{name}`' for name in too_large)}.")
    return substitute(graph, replacements)
