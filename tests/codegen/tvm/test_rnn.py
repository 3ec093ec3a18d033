"""Recurrent layers against the reference in float64: every cell, odd sizes, masks, states, open batch and length."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from kcompile.codegen.tvm.targets import MACHINES, host
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph
from kcompile.ir.types import TensorType
from tests.codegen.tvm.model import Model
from tests.codegen.tvm.plans import Planned, graph_of, random_inputs

LAYERS = {
    "lstm": (ops.Lstm, 4, 2),
    "gru": (ops.Gru, 3, 1),
    "gru reset before": (ops.Gru, 3, 1),
    "simple": (ops.SimpleRnn, 1, 1),
}


@dataclass(frozen=True)
class Case:
    """A layer: its cell, units, the extents of x and the op's attributes."""

    cell: str
    hidden: int
    features: int = 3
    batch: int | str = "N"
    steps: int | str = "T"
    reverse: bool = False
    states: bool = False
    mask: bool = False
    zero: bool = False
    activations: bool = True
    outputs: tuple[int, ...] = (0, 1)

    def graph(self) -> Graph:
        """The layer with random weights; biases that differ from 0 wherever the op allows them."""
        cls, gates, states = LAYERS[self.cell]
        random = np.random.default_rng(7)
        width = gates * self.hidden

        def weights(*shape: int) -> np.ndarray:
            return random.normal(scale=0.5 / np.sqrt(shape[0] + 1), size=shape).astype(np.float32)

        operands: list = [TensorType("float32", (self.batch, self.steps, self.features))]
        operands += [weights(self.features, width), weights(self.hidden, width), weights(width)]
        if cls is ops.Gru:
            operands.append(weights(width))
        if self.states:
            operands += [TensorType("float32", (self.batch, self.hidden))] * states
        if self.mask:
            operands.append(TensorType("bool", (self.batch, self.steps)))
        op = cls(
            reverse=self.reverse,
            has_initial_state=self.states,
            has_mask=self.mask,
            zero_masked_output=self.zero,
        )
        if not self.activations:
            op = replace(op, activation=ops.Relu(), recurrent_activation=ops.HardSigmoid(0.2))
        if self.cell == "gru reset before":
            operands[4][2 * self.hidden :] = 0
            op = replace(op, reset_after=False)
        return graph_of(op, *operands, outputs=self.outputs)


CASES = [
    Case("lstm", 5),
    Case("lstm", 1, features=1, reverse=True),
    Case("lstm", 64, features=16, mask=True),
    Case("lstm", 130, features=20, outputs=(1, 2)),
    Case("lstm", 37, states=True, mask=True, reverse=True, outputs=(0, 1, 2)),
    Case("lstm", 16, states=True, mask=True, zero=True, outputs=(2, 0)),
    Case("lstm", 20, batch=1, steps=7, outputs=(0,)),
    Case("lstm", 100, features=5, states=True, batch=1),
    Case("lstm", 20, batch=5, steps=1, activations=False),
    Case("gru", 5, mask=True, zero=True),
    Case("gru", 64, features=8, outputs=(1,)),
    Case("gru", 150, states=True, mask=True),
    Case("gru", 33, reverse=True, mask=True, activations=False),
    Case("gru reset before", 5),
    Case("gru reset before", 130, features=9, reverse=True, states=True),
    Case("gru reset before", 48, mask=True),
    Case("gru", 12, batch=7, steps=4, outputs=(0,)),
    Case("simple", 3, mask=True),
    Case("simple", 70, states=True, reverse=True),
    Case("simple", 300, outputs=(1,)),
    Case("simple", 17, states=True, mask=True, batch=2),
]
GRAPHS = {case: case.graph() for case in CASES}


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned(list(GRAPHS.values()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_recurrent_layer_matches_the_reference(planned: Planned, case: Case):
    graph = GRAPHS[case]
    for batch in (1, 2, 5, 9, 0):
        for steps in (1, 7, 0):
            inputs = random_inputs(graph, seed=batch, N=batch, T=steps)
            planned.check(graph, inputs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.states and case.batch == "N"], ids=str)
def test_nan_and_infinity_go_where_the_reference_has_them(planned: Planned, case: Case):
    graph = GRAPHS[case]
    for bad in (np.nan, np.inf, -np.inf):
        for name in [value.name for value in graph.inputs if value.type.dtype == "float32"]:
            inputs = random_inputs(graph, N=2, T=4)
            inputs[name][0].flat[0] = bad
            with np.errstate(invalid="ignore"):
                planned.check(graph, inputs, rtol=1e-5, atol=2e-6)


def test_gates_that_are_0_and_1_multiply_as_such():
    """Sigmoids everywhere, of sums so large that one factor of a product is 0 while another is 1."""
    random = np.random.default_rng(1)
    weights = [random.choice([-400.0, 400.0], size=shape).astype(np.float32) for shape in ((2, 36), (9, 36), (36,))]
    op = ops.Lstm(activation=ops.Sigmoid())
    graph = graph_of(op, TensorType("float32", ("N", 4, 2)), *weights, outputs=(0,))
    Planned([graph]).check(graph, random_inputs(graph, N=6), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(host().architecture != "x86_64", reason="levels of x86-64")
@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3"])
def test_other_levels_agree(level: str):
    graphs = [case.graph() for case in (Case("lstm", 21), Case("gru", 9, mask=True), Case("gru reset before", 11))]
    planned = Planned(graphs, MACHINES[level])
    for graph in graphs:
        for batch in (1, 7):
            planned.check(graph, random_inputs(graph, N=batch, T=5), rtol=1e-5, atol=2e-6)


def test_long_sequences_do_not_drift(planned: Planned):
    graph = GRAPHS[CASES[2]]
    inputs = random_inputs(graph, N=1, T=300)
    planned.check(graph, inputs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", [CASES[2], CASES[15]], ids=str)
def test_threads_have_states_of_their_own(case: Case):
    model = Model(GRAPHS[case])
    inputs = random_inputs(GRAPHS[case], N=40, T=9)
    alone, shared = model.run(inputs), model.run(inputs, threads=4)
    expected = evaluate(GRAPHS[case], inputs, precision="float64")
    for name, y in alone.items():
        np.testing.assert_array_equal(y, shared[name])
        np.testing.assert_allclose(y, expected[name], 1e-5, 2e-6)
