"""Attention against the reference in float64: open and odd lengths, masks of every shape, grouped heads, weights."""

from dataclasses import dataclass

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph
from kcompile.ir.types import TensorType
from tests.codegen.tvm.model import Model
from tests.codegen.tvm.plans import Planned, graph_of, random_inputs


@dataclass(frozen=True)
class Case:
    """Extents of an attention, and its options."""

    queries: int | str
    keys: int | str
    heads: int = 2
    groups: int = 2
    depth: int = 8
    value_depth: int = 8
    mask: tuple[int | str, ...] | None = None
    causal: bool = False
    weights: bool = False

    def graph(self) -> Graph:
        """The op on inputs."""
        operands = [
            TensorType("float32", ("N", self.queries, self.heads, self.depth)),
            TensorType("float32", ("N", self.keys, self.groups, self.depth)),
            TensorType("float32", ("N", self.keys, self.groups, self.value_depth)),
        ]
        if self.mask is not None:
            operands.append(TensorType("bool", self.mask))
        op = ops.Attention(self.depth**-0.5, self.causal)
        return graph_of(op, *operands, outputs=(0, 1) if self.weights else (0,))


CASES = [
    Case(1, 1, heads=1, groups=1, depth=1, value_depth=1),
    Case(5, 7, depth=3, value_depth=13),
    Case(64, 64, depth=32, value_depth=32),
    Case(33, 700, heads=1, groups=1),
    Case(40, 21, heads=6, mask=("N", 1, 1, 21)),
    Case(19, 30, mask=(19, 30), weights=True),
    Case("T", "T", depth=16, value_depth=16, mask=("N", 1, 1, "T")),
    Case("T", "T", depth=9, value_depth=5, causal=True),
    Case("T", "T", causal=True, mask=("N", 1, "T", "T")),
    Case("T", "K", heads=1, groups=1, mask=("N", 2 - 1, 1, 1), weights=True),
    Case("T", 3, heads=4, groups=1, causal=True, weights=True),
    Case(3, "K", mask=("N", 2, 3, "K"), weights=True),
]
GRAPHS = {case: case.graph() for case in CASES}


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned(list(GRAPHS.values()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_matches_the_reference(planned: Planned, case: Case):
    graph = GRAPHS[case]
    for symbols in ({"N": 2, "T": 37, "K": 50}, {"N": 1, "T": 1, "K": 1}, {"N": 0, "T": 4, "K": 4}):
        inputs = random_inputs(graph, **symbols)
        if case.mask:
            inputs["x3"][..., 0] = True
        planned.check(graph, inputs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nan_and_infinity_go_where_the_reference_has_them(planned: Planned, case: Case):
    """To every query, if they stand in a value, as even weights of 0 make them NaN."""
    graph, extents = GRAPHS[case], {"N": 2, "T": 37, "K": 21}
    for bad in (np.nan, np.inf, -np.inf):
        # A query whose only key has the score -infinity would attend to hidden keys; hence not the first ones.
        for name, place in (("x0", -1), ("x1", -1), ("x2", 0), ("x2", -1)):
            inputs = random_inputs(graph, **extents)
            if case.mask:
                inputs["x3"][..., 0] = True
            inputs[name][1].flat[place] = bad
            with np.errstate(invalid="ignore"):
                planned.check(graph, inputs, rtol=1e-5, atol=2e-6)


def test_long_keys_run_in_blocks(planned: Planned):
    graph = GRAPHS[CASES[9]]
    planned.check(graph, random_inputs(graph, N=1, T=20, K=900), rtol=1e-5, atol=2e-6)


def test_large_scores_do_not_overflow(planned: Planned):
    graph = GRAPHS[CASES[3]]
    inputs = {name: 30 * x if name != "x2" else x for name, x in random_inputs(graph, N=1).items()}
    planned.check(graph, inputs, rtol=1e-3, atol=2e-4)


def test_fully_masked_queries_attend_to_all_keys_alike(planned: Planned):
    graph = GRAPHS[CASES[5]]
    inputs = {**random_inputs(graph, N=1), "x3": np.zeros((19, 30), bool)}
    inputs["x0"] *= 100
    (_, weights) = planned(graph, inputs).values()
    np.testing.assert_allclose(weights, 1 / 30, rtol=1e-5)


def test_keys_hidden_by_mask_and_cause_count_as_those_hidden_by_one(planned: Planned):
    graph = GRAPHS[CASES[8]]
    inputs = random_inputs(graph, N=2, T=9)
    inputs["x3"][...] = False
    planned.check(graph, inputs, rtol=1e-5, atol=2e-6)


def test_threads_have_scores_of_their_own():
    graph = GRAPHS[CASES[6]]
    model = Model(graph)
    inputs = random_inputs(graph, N=3, T=70)
    alone, shared = model.run(inputs), model.run(inputs, threads=4)
    expected = evaluate(graph, inputs, precision="float64")
    np.testing.assert_array_equal(alone["output_0"], shared["output_0"])
    np.testing.assert_allclose(alone["output_0"], expected["output_0"], 1e-5, 2e-6)
