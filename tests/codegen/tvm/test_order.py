"""The order of nodes: valid, and with less memory in use where branches leave a choice."""

import itertools

import numpy as np
import pytest

from kcompile.codegen.tvm.lower import lower
from kcompile.codegen.tvm.order import frugal_order
from kcompile.codegen.tvm.targets import MACHINES
from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph, Node, Value
from kcompile.ir.types import TensorType


def branches(widths: list[int], rng: np.random.Generator) -> Graph:
    """Branches that begin wide and end narrow, computed side by side as a careless author writes them."""
    b = Builder("branches")
    x = b.input("x", TensorType("float32", (1, 8)))
    wide = [b(ops.Dense(), x, b.constant(rng.standard_normal((8, width), np.float32))) for width in widths]
    bent = [b(ops.Softmax(-1), value) for value in wide]
    narrow = [
        b(ops.Dense(), v, b.constant(rng.standard_normal((w, 4), np.float32)))
        for v, w in zip(bent, widths, strict=True)
    ]
    return b.build([b(ops.Concat(1), *narrow)])


def peak(order: tuple[Node, ...], graph: Graph) -> int:
    """The most bytes of results that are still to be read, by a slow simulation."""
    remaining = {value: sum(n.inputs.count(value) for n in order) for n in order for value in n.outputs}
    held: set[Value] = set()
    most = 0
    for node in order:
        if isinstance(node.op, ops.Constant):
            continue
        held |= {value for value in node.outputs if value not in graph.outputs}
        most = max(most, sum(4 * int(value.type.size) for value in held))
        for value in node.inputs:
            remaining[value] = remaining.get(value, 0) - 1
        held = {value for value in held if remaining[value] > 0}
    return most


@pytest.mark.parametrize("seed", range(4))
def test_no_order_of_small_graphs_is_better(seed: int):
    rng = np.random.default_rng(seed)
    graph = branches([int(w) for w in rng.integers(4, 90, 2)], rng)
    found = frugal_order(graph)
    assert sorted(map(id, found)) == sorted(map(id, graph.nodes))
    constants = tuple(n for n in graph.nodes if isinstance(n.op, ops.Constant))
    others = [n for n in graph.nodes if not isinstance(n.op, ops.Constant)]

    def valid(order: tuple[Node, ...]) -> bool:
        places = {node: i for i, node in enumerate(order)}
        return all(places.get(v.producer, -1) < i for node, i in places.items() for v in node.inputs if v.producer)

    best = min(peak((*constants, *order), graph) for order in itertools.permutations(others) if valid(order))
    assert valid(tuple(n for n in found if n not in constants))
    assert peak(found, graph) == best


def test_wide_branches_run_one_after_another_on_small_machines():
    graph = branches([4000, 4000, 4000], np.random.default_rng(0))
    arena = lower(graph, MACHINES["cortex-m7"], "m").arena.bytes({})
    assert arena < 2 * 4 * 4000 + 1000
