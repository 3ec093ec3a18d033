"""Runs passes over a graph, checks what they make, and says which ones changed it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kcompile.errors import GraphError
from kcompile.ir.graph import Graph
from kcompile.ir.verify import verify

# What one pass leaves for another is settled after two or three rounds.
MAX_ROUNDS = 10


@dataclass(frozen=True)
class Pass:
    """A function from graphs to graphs that returns the same object where it changes nothing."""

    name: str
    apply: Callable[[Graph], Graph]

    def __call__(self, graph: Graph) -> Graph:
        """The graph that the pass makes of `graph`, verified, with a note that names the pass.

        Raises:
            GraphError: the pass made a graph that breaks a rule, or that has other inputs or outputs.
        """
        changed = self.apply(graph)
        if changed is graph:
            return graph
        try:
            verify(changed)
            if changed.input_types != graph.input_types or changed.output_types != graph.output_types:
                raise GraphError("a pass must keep the names and types of inputs and outputs.")
        except GraphError as error:
            raise GraphError(f"pass `{self.name}` made a wrong graph: {error}") from None
        return changed if self.name in changed.notes else changed.with_note(self.name)


def run(graph: Graph, passes: Sequence[Pass], max_rounds: int = MAX_ROUNDS) -> Graph:
    """`graph` after `passes` in turn, round after round until a round changes nothing.

    After `max_rounds` the graph is returned as it is, with a note that says so.

    Raises:
        GraphError: a pass made a wrong graph.
    """
    for _ in range(max_rounds):
        before = graph
        for each in passes:
            graph = each(graph)
        if graph is before:
            return graph
    return graph.with_note(f"still changing after {max_rounds} rounds")
