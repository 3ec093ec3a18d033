"""Softmax and normalizations against the reference in float64."""

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import Op
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.types import TensorType
from tests.codegen.tvm.plans import Planned, graph_of, random_inputs

# shape, axis
SOFTMAX = [
    (("N", 10), -1),
    (("N", 1), 1),
    (("N", 16), 1),
    (("N", 1000), -1),
    (("N", "T"), -1),
    (("N", "T", 19), 1),
    (("N", 7, 83), 1),
    ((3, "N"), 0),
    (("N", 5, 1, "T"), 1),
    (("N", 3000), -1),
]
GRAPHS = {
    (cls, case): graph_of(cls(case[1]), TensorType("float32", case[0]))
    for cls in (ops.Softmax, ops.LogSoftmax)
    for case in SOFTMAX
}


def norm(op: Op, shape: tuple, weights: tuple, count: int, dtype: str = "float32", constant: bool = True) -> Graph:
    random = np.random.default_rng(5)
    if constant:
        operands = [random.uniform(0.5, 2, weights).astype(dtype) for _ in range(count)]
    else:
        operands = [TensorType(dtype, weights)] * count
    return graph_of(op, TensorType(dtype, shape), *operands)


NORMS = {
    "layer norm of 64": norm(ops.LayerNorm(1e-3), ("N", "T", 64), (64,), 2),
    "layer norm of 23": norm(ops.LayerNorm(1e-6), ("N", 3, 23), (23,), 2),
    "layer norm of 1": norm(ops.LayerNorm(1e-3), ("N", 1), (1,), 2),
    "layer norm of two axes": norm(ops.LayerNorm(1e-3), ("N", 5, 21), (5, 21), 2),
    "layer norm of an open axis": norm(ops.LayerNorm(1e-3), ("N", "T"), ("T",), 2, constant=False),
    "layer norm of many": norm(ops.LayerNorm(1e-3), ("N", 5000), (5000,), 2),
    "batch norm": norm(ops.BatchNorm(1e-3), ("N", "T", 37), (37,), 4),
    "batch norm of another axis": norm(ops.BatchNorm(1e-3, axis=1), ("N", 3, "T"), (3,), 4),
    "batch norm of open statistics": norm(ops.BatchNorm(1e-3), ("N", 3, 9), (9,), 4, constant=False),
}
HALVES = [
    graph_of(ops.Softmax(), TensorType("float16", ("N", 9))),
    norm(ops.LayerNorm(1e-3), ("N", 23), (23,), 2, "float16"),
]
DOUBLE = norm(ops.LayerNorm(1e-3), ("N", 23), (23,), 2, "float64")


def with_tail(extra: tuple) -> Graph:
    """``relu(layer_norm(x)) + other`` as one group; `other` has the shape `extra`."""
    b = Builder()
    x, other = b.input("x", TensorType("float32", ("N", 4, 23))), b.input("other", TensorType("float32", extra))
    weights = [b.constant(np.random.default_rng(i).normal(size=23).astype(np.float32)) for i in range(2)]
    y = b(ops.Relu(), b(ops.LayerNorm(1e-3), x, *weights))
    return fuse(b.build([b(ops.Add(), y, other)]))


TAILS = {extra: with_tail(extra) for extra in (("N", 4, 23), (23,), (4, 1), ("N", 4, 1))}


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned([*GRAPHS.values(), *NORMS.values(), DOUBLE, *HALVES, *TAILS.values()])


@pytest.mark.parametrize("key", GRAPHS, ids=str)
def test_softmax_along_any_axis_matches_the_reference(planned: Planned, key: tuple):
    for symbols in ({"N": 3, "T": 40}, {"N": 1, "T": 1}, {"N": 0, "T": 2}, {"N": 21, "T": 3}):
        inputs = {name: 8 * x for name, x in random_inputs(GRAPHS[key], **symbols).items()}
        planned.check(GRAPHS[key], inputs, rtol=2e-6, atol=2e-6 if key[0] is ops.LogSoftmax else 1e-9)


@pytest.mark.parametrize("cls", [ops.Softmax, ops.LogSoftmax])
def test_softmax_survives_large_scores_and_keeps_not_a_number(planned: Planned, cls: type):
    x = np.zeros((3, 10), np.float32)
    x[0, 3], x[1, 4], x[2] = 1e9, np.nan, -np.inf
    (y,) = planned(GRAPHS[cls, SOFTMAX[0]], {"x0": x}).values()
    chosen = np.eye(10)[3] if cls is ops.Softmax else np.where(np.eye(10)[3], 0, -1e9)
    np.testing.assert_array_equal(y[0], chosen)
    assert np.isnan(y[1:]).all()


@pytest.mark.parametrize("name", NORMS)
def test_normalizations_match_the_reference(planned: Planned, name: str):
    for symbols in ({"N": 3, "T": 40}, {"N": 1, "T": 1}, {"N": 0, "T": 2}):
        inputs = {key: np.abs(x) + 3 for key, x in random_inputs(NORMS[name], **symbols).items()}
        planned.check(NORMS[name], inputs, rtol=2e-5, atol=2e-5)


def test_layer_norm_of_doubles_is_as_exact_as_doubles(planned: Planned):
    planned.check(DOUBLE, random_inputs(DOUBLE, N=5), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("graph", HALVES, ids=lambda graph: str(graph.nodes[-1].op))
def test_half_precision_is_computed_in_single(planned: Planned, graph: Graph):
    planned.check(graph, random_inputs(graph, N=5), rtol=3e-3, atol=3e-3)


def test_layer_norm_is_not_disturbed_by_a_large_mean(planned: Planned):
    graph = NORMS["layer norm of 23"]
    x = (np.random.default_rng(0).normal(size=(2, 3, 23)) + 1000).astype(np.float32)
    planned.check(graph, {"x0": x}, rtol=0, atol=3e-3)


@pytest.mark.parametrize("extra", TAILS, ids=str)
def test_elementwise_ops_after_a_layer_norm_run_before_it_stores(planned: Planned, extra: tuple):
    assert len(TAILS[extra].nodes) - 2 == 1
    planned.check(TAILS[extra], random_inputs(TAILS[extra], N=3), rtol=1e-5, atol=1e-5)
