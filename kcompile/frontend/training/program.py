"""Runs a step: binds its graph to the size of a batch, once for each size, and stores what it changes."""

from collections.abc import Mapping, Sequence

import numpy as np

from kcompile.frontend.training.state import assign
from kcompile.frontend.training.step import Step
from kcompile.ir.evaluate import run_nodes
from kcompile.ir.types import Array, bind_shapes


class Program:
    """A step that can be run.

    Args:
        step: what to run.
        kept: objects that the program is made for, which must not be replaced by others at their place in memory.
    """

    def __init__(self, step: Step, kept: Sequence[object] = ()) -> None:
        self.step, self.kept = step, kept

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """The results for a batch by name; weights and state are changed.

        Args:
            batch: the graph's inputs that are no state.
        """
        graph = self.step.graph
        arrays = {**batch, **self.step.state.arrays()}
        bindings = bind_shapes(graph.input_types, {name: array.shape for name, array in arrays.items()})
        with np.errstate(all="ignore"):
            found = run_nodes(graph, tuple(arrays[value.name] for value in graph.inputs), bindings)
        count = len(self.step.results)
        assign(self.step.written, found[count:])
        return dict(zip(self.step.results, found[:count], strict=True))
