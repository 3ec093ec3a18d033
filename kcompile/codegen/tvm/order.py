"""The order of a graph's nodes in which the least memory is in use at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kcompile.ir import ops
from kcompile.ir.graph import Graph, Node, Value

# Partial orders that are followed at once; more of them find the best order of graphs with more branches.
_BEAM = 200


@dataclass(frozen=True)
class _Partial:
    """Nodes that have run, in order, with the most bytes so far and the bytes that are still needed."""

    peak: int
    live: int
    order: tuple[int, ...]
    done: int


def frugal_order(graph: Graph) -> tuple[Node, ...]:
    """The nodes of a graph of known extents, each after its operands; constants come first.

    A search in breadth: of partial orders of the same nodes the one of the lowest peak goes on, and of all of one
    length the best ones.
    """
    constants = [node for node in graph.nodes if isinstance(node.op, ops.Constant)]
    nodes = [node for node in graph.nodes if not isinstance(node.op, ops.Constant)]
    search = _Search(graph, nodes)
    beam = {0: _Partial(0, 0, (), 0)}
    for _ in nodes:
        following: dict[int, _Partial] = {}
        for partial in beam.values():
            for made in search.extensions(partial):
                known = following.get(made.done)
                if known is None or (made.peak, made.live) < (known.peak, known.live):
                    following[made.done] = made
        best = sorted(following.values(), key=lambda partial: (partial.peak, partial.live, partial.order))
        beam = {partial.done: partial for partial in best[:_BEAM]}
    (last,) = beam.values()
    return (*constants, *(nodes[i] for i in last.order))


class _Search:
    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        number = {node: i for i, node in enumerate(nodes)}
        self._needs = [_mask(number[v.producer] for v in n.inputs if v.producer in number) for n in nodes]
        readers: dict[Value, set[int]] = {}
        for i, node in enumerate(nodes):
            for value in node.inputs:
                readers.setdefault(_root(value), set()).add(i)
        kept = {_root(value) for value in graph.outputs}
        # Memory of the caller is not counted, nor are other shapes of the same memory.
        self._sizes = {
            value: int(value.type.size) * value.type.itemsize
            for node in nodes
            for value in node.outputs
            if _root(value) is value and value not in kept and value in readers
        }
        self._last = {value: _mask(readers[value]) for value in self._sizes}
        self._reads = [{_root(v) for v in node.inputs} & set(self._sizes) for node in nodes]

    def extensions(self, partial: _Partial) -> list[_Partial]:
        """`partial` with one more node, for each that can run."""
        ready = [
            i for i, needs in enumerate(self._needs) if not partial.done >> i & 1 and needs & partial.done == needs
        ]
        return [self._extended(partial, i) for i in ready]

    def _extended(self, partial: _Partial, i: int) -> _Partial:
        done = partial.done | 1 << i
        live = partial.live + sum(self._sizes.get(value, 0) for value in self._nodes[i].outputs)
        freed = sum(self._sizes[v] for v in self._reads[i] if self._last[v] & done == self._last[v])
        return _Partial(max(partial.peak, live), live - freed, (*partial.order, i), done)


def _mask(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in set(numbers))


def _root(value: Value) -> Value:
    """The value in whose memory a reshaped one lies."""
    while value.producer and isinstance(value.producer.op, ops.Reshape):
        value = value.producer.inputs[0]
    return value
