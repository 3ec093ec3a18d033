"""The NumPy reference as a session: slow, and right by definition."""

from typing import Any

from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph
from kcompile.ir.rows import batch_of
from kcompile.ir.types import Array
from kcompile.runtime.extents import equalities, smallest_extents
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Plan, Signature, Structure


def graph_signature(graph: Graph, structure: Structure | None = None) -> Signature:
    """The signature of `graph`; unless `structure` says more, one output is an array and several are a list."""
    names = list(graph.output_names)
    arranged: Structure = structure if structure is not None else names[0] if len(names) == 1 else list(names)
    least = smallest_extents(graph)
    return Signature(
        graph.name,
        graph.input_types,
        graph.output_types,
        arranged,
        least,
        rows_meet=batch_of(graph) is None,
        equalities=equalities(graph),
    )


class ReferenceSession(Session):
    """A graph, evaluated node by node in its own dtypes."""

    engine = "reference"

    def __init__(self, graph: Graph, signature: Signature | None = None) -> None:
        super().__init__(signature or graph_signature(graph), threads=1)
        self.graph = graph

    def __reduce__(self) -> str | tuple[Any, ...]:
        return ReferenceSession, (self.graph, self.signature)

    def _execute(self, arrays: list[Array], plan: Plan) -> list[Array]:
        return list(evaluate(self.graph, dict(zip(self.inputs, arrays, strict=True))).values())
