"""Runs passes over a graph, checks what they make, and says which ones changed it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kcompile.errors import GraphError
from kcompile.ir.graph import Graph
from kcompile.ir.passes import batch_norm, linear, simplify
from kcompile.ir.passes.constants import fold_constants
from kcompile.ir.passes.cse import share_common
from kcompile.ir.passes.rewrite import Skip, skips
from kcompile.ir.verify import verify

# What one pass leaves for another is settled after two or three rounds.
MAX_ROUNDS = 10


@dataclass(frozen=True)
class Pass:
    """A function from graphs to graphs that returns the same object where it changes nothing."""

    name: str
    apply: Callable[[Graph], Graph]


INFERENCE = (
    Pass("simplify", simplify.simplify),
    Pass("fold_batch_norm", batch_norm.fold_batch_norm),
    Pass("fold_into_linear", linear.fold_into_linear),
    Pass("fold_constants", fold_constants),
    Pass("share_common", share_common),
)


def run(graph: Graph, passes: Sequence[Pass], max_rounds: int = MAX_ROUNDS) -> Graph:
    """`graph` after `passes` in turn, round after round until a round changes nothing.

    Every change is verified, and noted in the graph under the pass's name. After `max_rounds` the graph is returned as
    it is, with a note that says so.

    Raises:
        GraphError: a pass made a graph that breaks a rule, or that has other inputs or outputs.
    """
    for _ in range(max_rounds):
        before = graph
        for each in passes:
            graph = _applied(each, graph)
        if graph is before:
            return graph
    return graph.with_note(f"still changing after {max_rounds} rounds")


def _applied(each: Pass, graph: Graph) -> Graph:
    changed = each.apply(graph)
    if changed is graph:
        return graph
    try:
        verify(changed)
        if changed.input_types != graph.input_types or changed.output_types != graph.output_types:
            raise GraphError("a pass must keep the types of inputs and outputs")
    except GraphError as error:
        raise GraphError(f"pass `{each.name}` made a wrong graph: {error}") from None
    return changed if each.name in changed.notes else changed.with_note(each.name)


def inference(graph: Graph) -> Graph:
    """`graph` as every back end wants it: simplified, batch normalizations and constants folded, nothing twice."""
    return run(graph, INFERENCE)


def explain(graph: Graph) -> list[Skip]:
    """What the passes for inference would have folded in `graph` but for the reasons given."""
    return skips(inference(graph), (*simplify.RULES, *batch_norm.RULES, *linear.RULES))
