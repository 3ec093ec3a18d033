"""Runs a step: plans its graph for each size of a batch, once, and stores what it changes."""

from collections.abc import Mapping, Sequence

from kcompile.frontend.training.state import Memory, array_of, assign
from kcompile.frontend.training.step import Step
from kcompile.ir.evaluate import bind_graph
from kcompile.ir.passes.pipeline import training
from kcompile.ir.plan import Held, Plan
from kcompile.ir.types import Array, bind_shapes

# Plans of other sizes than these last ones are let go.
_MAX_PLANS = 8


class Program:
    """A step that can be run.

    Args:
        step: what to run.
        kept: objects that the program is made for, which must not be replaced by others at their place in memory.
    """

    def __init__(self, step: Step, kept: Sequence[object] = ()) -> None:
        self.step, self.kept = step, kept
        self._memory = Memory([w for w in step.written if w in step.state.inputs and step.state.inputs[w].type.rank])
        held = {step.state.inputs[weight].name for weight in self._memory.arrays}
        self._arguments = [value.name for value in step.graph.inputs if value.name not in held]
        self._read = [(value.name, w) for w, value in step.state.inputs.items() if w not in self._memory.arrays]
        self._assigned = [weight for weight in step.written if weight not in self._memory.arrays]
        known = {value.name for value in step.state.inputs.values()}
        self._open = {value.name: value.type for value in step.graph.inputs if value.name not in known}
        self._plans: dict[tuple[tuple[int, ...], ...], Plan] = {}

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """The results for a batch by name; weights and state are changed.

        Args:
            batch: the graph's inputs that are no state.
        """
        self._memory.settle()
        plan = self._plan(batch)
        arrays = {**batch, **{name: array_of(weight) for name, weight in self._read}}
        found = plan.run([arrays[name] for name in self._arguments])
        count = len(self.step.results)
        assign(self._assigned, found[count:])
        return dict(zip(self.step.results, found[:count], strict=True))

    def _plan(self, batch: Mapping[str, Array]) -> Plan:
        """The plan for arrays of these shapes.

        Raises:
            InputError: the shapes do not go together.
        """
        key = tuple(batch[name].shape for name in self._open)
        if key not in self._plans:
            bindings = bind_shapes(self._open, dict(zip(self._open, key, strict=True)))
            if len(self._plans) == _MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            # With its extents known more of the graph is constant.
            self._plans[key] = Plan(training(bind_graph(self.step.graph, bindings)), self._held())
        return self._plans[key]

    def _held(self) -> list[Held]:
        first, state = len(self.step.results), self.step.state
        return [
            Held(state.inputs[weight].name, first + number, self._memory.arrays[weight])
            for number, weight in enumerate(self.step.written)
            if weight in self._memory.arrays
        ]
