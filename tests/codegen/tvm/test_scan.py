"""Ops along one axis, exact against the reference."""

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.op import Op
from kcompile.ir.types import TensorType
from tests.codegen.tvm.plans import Planned, graph_of, random_inputs

SHAPES = [(("N", 10), -1), (("N", "T", 19), 1), (("N", 7, 70), 1), ((6, "N"), 0), (("N", "T"), 1), (("N", 1, 3), 1)]
DTYPES = ["float32", "float64", "float16", "int32", "int64", "uint8", "bool"]


def scans(axis: int) -> list[Op]:
    return [ops.ArgReduce(axis), ops.ArgReduce(axis, "min"), ops.CumSum(axis), ops.Sort(axis), ops.Sort(axis, True)]


GRAPHS = {(op, shape): graph_of(op, TensorType("float32", shape)) for shape, axis in SHAPES for op in scans(axis)}
TYPED = {
    (op, dtype): graph_of(op, TensorType(dtype, ("N", 9, 5)))
    for dtype in DTYPES
    for op in (ops.ArgReduce(1), ops.CumSum(1), ops.Sort(1))
}


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned([*GRAPHS.values(), *TYPED.values()])


@pytest.mark.parametrize("key", GRAPHS, ids=str)
def test_scans_along_any_axis_match_the_reference(planned: Planned, key: tuple):
    graph = GRAPHS[key]
    rounding = 1e-6 if isinstance(key[0], ops.CumSum) else 0
    for symbols in ({"N": 3, "T": 37}, {"N": 1, "T": 1}, {"N": 0, "T": 2}, {"N": 40, "T": 64}):
        planned.check(graph, random_inputs(graph, **symbols), rtol=rounding, atol=4 * rounding)


@pytest.mark.parametrize("key", TYPED, ids=str)
def test_scans_of_every_dtype_match_the_reference(planned: Planned, key: tuple):
    graph = TYPED[key]
    rounding = {"float16": 2e-3, "float64": 1e-15, "float32": 1e-6}.get(key[1], 0) * isinstance(key[0], ops.CumSum)
    planned.check(graph, random_inputs(graph, N=4), rtol=rounding, atol=4 * rounding)


def test_equal_elements_give_the_first_place_and_not_a_number_wins(planned: Planned):
    x = np.zeros((4, 10), np.float32)
    x[1, 3:5] = 2
    x[2, [4, 7]] = np.nan
    x[3] = -np.inf
    for which in ("max", "min"):
        graph = GRAPHS[ops.ArgReduce(-1, which), ("N", 10)]
        planned.check(graph, {"x0": x})


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 17, 100])
@pytest.mark.parametrize("descending", [False, True])
def test_sorting_puts_not_a_number_where_numpy_does(planned: Planned, length: int, descending: bool):
    random = np.random.default_rng(length)
    x = random.integers(0, 9, (8, length)).astype(np.float32)
    x[random.random(x.shape) < 0.2] = np.nan
    planned.check(GRAPHS[ops.Sort(1, descending), ("N", "T")], {"x0": x})
