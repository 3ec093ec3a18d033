"""Reductions against the reference in float64, over drawn shapes and open extents."""

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Graph
from kcompile.ir.types import TensorType
from tests.codegen.tvm.plans import Planned, graph_of, random_inputs

# shape (symbols are open extents), axes
SHAPES = [
    ((3, 4, 5), (0, 2)),
    (("N", 7, 7, 70), (1, 2)),
    (("N", "T", 33), (1,)),
    (("N", 9, "T", 3), (1, 2)),
    (("N", 1000), (1,)),
    (("N", 39), (-1,)),
    (("N", "T"), (1,)),
    ((5,), (0,)),
    (("N", 3, 4, 5, 6), (1, 3)),
    ((2, 3, 4, 5, 7), (0, 2, 4)),
    (("N", 1, 1), (2,)),
    (("N", 3, 2), ()),
    (("N", 2, 4100), (1, 2)),
]
CLASSES = [ops.ReduceSum, ops.ReduceMean, ops.ReduceMax, ops.ReduceMin, ops.ReduceProd]


def reduction(cls: type, shape: tuple, axes: tuple, dtype: str = "float32") -> Graph:
    return graph_of(cls(axes, keepdims=len(shape) == 3), TensorType(dtype, shape))


FLOATS = {(cls, case): reduction(cls, *case) for cls in CLASSES[:3] for case in SHAPES}
OTHERS = {
    (cls, dtype, axes): reduction(cls, (5, "N", 19), axes, dtype)
    for cls in CLASSES
    for dtype in ("float64", "int32", "int64", "uint8", "bool")
    for axes in ((1,), (1, 2))
    if (cls, dtype) != (ops.ReduceMean, "bool")
}
HALVES = {cls: reduction(cls, ("N", 40, 9), (1,), "float16") for cls in CLASSES[:3]}
LONG = {axes: reduction(ops.ReduceSum, ("N", 3), axes) for axes in ((0,), (0, 1))}


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned([*FLOATS.values(), *OTHERS.values(), *HALVES.values(), *LONG.values()])


@pytest.mark.parametrize("symbols", [{"N": 3, "T": 50}, {"N": 1, "T": 1}, {"N": 2, "T": 600}], ids=str)
@pytest.mark.parametrize("case", SHAPES, ids=str)
@pytest.mark.parametrize("cls", CLASSES[:3])
def test_a_reduction_over_any_axes_matches_numpy(planned: Planned, cls: type, case: tuple, symbols: dict):
    graph = FLOATS[cls, case]
    planned.check(graph, random_inputs(graph, **symbols), rtol=1e-6, atol=1e-4 if cls is ops.ReduceSum else 1e-6)


def test_a_reduction_of_no_rows_writes_nothing(planned: Planned):
    graph = FLOATS[ops.ReduceMean, SHAPES[1]]
    (y,) = planned(graph, random_inputs(graph, N=0)).values()
    assert y.shape == (0, 70)


@pytest.mark.parametrize("key", OTHERS, ids=str)
def test_integers_wrap_and_truth_values_are_any_and_all(planned: Planned, key: tuple):
    graph = OTHERS[key]
    exact = key[1] != "float64"
    planned.check(graph, random_inputs(graph, N=4), rtol=0 if exact else 1e-12, atol=0 if exact else 1e-12)


@pytest.mark.parametrize("cls", HALVES)
def test_half_precision_is_summed_in_single(planned: Planned, cls: type):
    planned.check(HALVES[cls], random_inputs(HALVES[cls], N=3), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("axes", LONG)
def test_long_sums_stay_accurate(planned: Planned, axes: tuple):
    x = np.full((400_000, 3), 0.1, np.float32)
    (y,) = planned(LONG[axes], {"x0": x}).values()
    np.testing.assert_allclose(y, x.sum(axes, dtype=np.float64), rtol=4e-6)


@pytest.mark.parametrize("place", [0, 17, 38])
@pytest.mark.parametrize("cls", [ops.ReduceMax, ops.ReduceMean])
def test_not_a_number_stays(planned: Planned, cls: type, place: int):
    x = np.zeros((2, 39), np.float32)
    x[1, place] = np.nan
    (y,) = planned(FLOATS[cls, SHAPES[5]], {"x0": x}).values()
    np.testing.assert_array_equal(y.ravel(), [0, np.nan])
