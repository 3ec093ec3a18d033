"""The extents on which a graph works: the smallest ones, and those that make extents equal which must be.

A convolution without padding needs at least its window; a network that halves and doubles an extent needs an even one.
"""

from collections.abc import Iterator, Mapping

from kcompile.errors import GraphError
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.evaluate import bind_graph
from kcompile.ir.graph import Graph, Node, Value, substitute
from kcompile.ir.op import Types
from kcompile.ir.ops import ExpectExtent, Scan
from kcompile.runtime.equality import Equality

# Longer than the reach of any window; a graph that does not work on this works on nothing.
_LARGE = 1 << 24


def equalities(graph: Graph) -> tuple[Equality, ...]:
    """What must hold of the symbols of `graph`, each law once."""
    found: dict[tuple[Dim, Dim], Equality] = {}
    for node in _all_nodes(graph):
        if isinstance(node.op, ExpectExtent):
            pair = node.inputs[0].type.shape[node.op.axis], node.op.extent
            if pair[0] != pair[1]:
                found.setdefault(pair, Equality(*pair, node.source))
    return tuple(found.values())


def _all_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of the loops in it."""
    for node in graph.nodes:
        yield node
        if isinstance(node.op, Scan):
            yield from _all_nodes(node.op.body)


class _Unchecked(ExpectExtent):
    """The same for a search, where an extent that fits no more is not one that is too small."""

    def infer(self, types: Types) -> Types:
        shape = list(types[0].shape)
        shape[self.axis] = self.extent
        return (types[0].with_shape(shape),)


def _unchecked(graph: Graph) -> Graph:
    replacements: dict[Value, Value] = {}
    for node in graph.nodes:
        if isinstance(node.op, ExpectExtent):
            made = Node(_Unchecked(node.op.axis, node.op.extent), node.inputs, node.source)
            replacements[node.outputs[0]] = made.outputs[0]
    return substitute(graph, replacements)


def smallest_extents(graph: Graph) -> dict[str, int]:
    """For each symbol the smallest value from which on every op accepts its operands, where that is more than 0.

    No value of the graph may be empty, except for a batch (which leads every input) of 0 rows. Extents grow with their
    symbols, so bisection finds the value, the other symbols held at a large one.
    """
    shapes = [type.shape for type in graph.input_types.values()]
    leads = {shape[:1] for shape in shapes}
    symbols = sorted(dims.symbols(*(dim for shape in shapes for dim in shape)))
    open_dims = {dim for node in graph.nodes for v in node.outputs for dim in v.type.shape if isinstance(dim, str)}
    unchecked, least = _unchecked(graph), dict[str, int]()
    for symbol in symbols:
        search = _Search(unchecked, open_dims, dict.fromkeys(symbols, _LARGE), symbol)
        least[symbol] = search.smallest(0 if leads == {(symbol,)} else 1)
    return {symbol: value for symbol, value in least.items() if value > 0}


class _Search:
    """Tries values of one symbol, the others large."""

    def __init__(self, graph: Graph, open_dims: set[str], bindings: Mapping[str, Dim], symbol: str) -> None:
        self._graph = graph
        self._dims = [dim for dim in open_dims if symbol in dims.symbols(dim)]
        self._bindings = bindings
        self._symbol = symbol

    def smallest(self, floor: int) -> int:
        """The smallest value from `floor` on that works."""
        low, high = floor, max(floor, 1)
        while not self._works(high, floor):
            low, high = high + 1, high * 2
            if high > _LARGE:
                return _LARGE
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._works(middle, floor) else (middle + 1, high)
        return low

    def _works(self, value: int, floor: int) -> bool:
        bindings = {**self._bindings, self._symbol: value}
        extents = (dims.substitute(dim, bindings) for dim in self._dims)
        if any(isinstance(extent, int) and extent < floor for extent in extents):
            return False
        try:
            bind_graph(self._graph, bindings)
        except GraphError:
            return False
        return True
