"""Tables of lowerings: for each back end, what every op becomes.

    ONNX = LoweringTable[Lowering]("onnx")

    @ONNX.register(ops.Relu)
    def relu(context: Context, node: Node) -> None: ...

An op without a lowering is decomposed where it can be; the rest are reported together, with their Keras layers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from kcompile.errors import UnsupportedOp
from kcompile.ir.graph import Builder, Graph, Node, Value, substitute
from kcompile.ir.op import OPS, Op
from kcompile.ir.ops import Cast

L = TypeVar("L")

# Decompositions of decompositions end long before this.
_MAX_ROUNDS = 10


class LoweringTable(Generic[L]):
    """Lowerings of one back end by op class.

    Args:
        backend: the name that errors use.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.lowerings: dict[type[Op], L] = {}
        self.unsupported: dict[type[Op], str] = {}

    def register(self, *classes: type[Op]) -> Callable[[L], L]:
        """Enter the decorated lowering for `classes`; a second one for the same class is a TypeError."""

        def enter(lowering: L) -> L:
            for cls in classes:
                if cls in self.lowerings or cls in self.unsupported:
                    raise TypeError(f"{self.backend}: two lowerings for `{cls.op_name}`")
                self.lowerings[cls] = lowering
            return lowering

        return enter

    def exclude(self, cls: type[Op], reason: str) -> None:
        """State that this back end cannot express `cls`, and why."""
        if cls in self.lowerings or cls in self.unsupported:
            raise TypeError(f"{self.backend}: `{cls.op_name}` has an entry already")
        self.unsupported[cls] = reason

    def __contains__(self, op: Op) -> bool:
        return type(op) in self.lowerings

    def __getitem__(self, op: Op) -> L:
        return self.lowerings[type(op)]

    def missing(self) -> Iterator[type[Op]]:
        """Ops that have neither a lowering nor a decomposition nor a reason."""
        known = {*self.lowerings, *self.unsupported}
        return (cls for cls in OPS.values() if cls not in known and cls.decompose is Op.decompose)

    def expand(self, graph: Graph) -> Graph:
        """`graph` with every op that has no lowering decomposed.

        Raises:
            UnsupportedOp: some ops have neither a lowering nor a decomposition.
        """
        for _ in range(_MAX_ROUNDS):
            foreign = [node for node in graph.nodes if node.op not in self]
            if not foreign:
                return graph
            replacements: dict[Value, Value] = {}
            failed: list[Node] = []
            b = Builder(graph.name)
            for node in foreign:
                with b.at(node.source):
                    results = node.op.decompose(b, node.inputs)
                if results is None:
                    failed.append(node)
                else:
                    replacements.update(zip(node.outputs, results, strict=True))
            if failed:
                raise self._refusal(failed)
            graph = substitute(graph, replacements)
        raise self._refusal([node for node in graph.nodes if node.op not in self])

    def _refusal(self, nodes: list[Node]) -> UnsupportedOp:
        lines = [
            f"  `{node.op.op_name}` at {node.source or 'the graph itself'}: "
            + self.unsupported.get(type(node.op), "no lowering is known")
            for node in nodes
        ]
        return UnsupportedOp(
            f"target {self.backend!r} cannot express {len(nodes)} op(s) of this model:\n" + "\n".join(lines)
        )


def in_single(b: Builder, op: Op, inputs: Sequence[Value]) -> tuple[Value, ...]:
    """The results of an op of float64, computed in float32."""
    narrow = [b(Cast("float32"), x) if x.type.dtype == "float64" else x for x in inputs]
    results = b.multi(op, *narrow)
    return tuple(b(Cast("float64"), y) if y.type.dtype == "float32" else y for y in results)
