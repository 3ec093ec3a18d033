"""Ops that move elements, exact against the reference, over drawn shapes, dtypes and open extents."""

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.op import Op
from kcompile.ir.types import TensorType
from tests.codegen.tvm.plans import Planned, graph_of, random_inputs

# op, shapes of the operands
CASES: list[tuple[Op, list[tuple[int | str, ...]]]] = [
    (ops.Transpose((0, 2, 1)), [("N", 19, 37)]),
    (ops.Transpose((0, 2, 1)), [("N", "T", 8)]),
    (ops.Transpose((0, 2, 1)), [("N", 16, "T")]),
    (ops.Transpose((1, 0)), [("N", "T")]),
    (ops.Transpose((0, 3, 1, 2)), [("N", 5, 6, 3)]),
    (ops.Transpose((0, 2, 3, 1)), [("N", 3, 5, 7)]),
    (ops.Transpose((0, 2, 1, 3)), [("N", 4, 5, 17)]),
    (ops.Transpose((3, 1, 2, 0)), [(3, 9, "N", 10)]),
    (ops.Transpose((2, 1, 0)), [(3, "N", 2)]),
    (ops.Transpose((0, 2, 1)), [("N", 1, 4)]),
    (ops.Slice(1, 2, 5), [("N", 9, 4)]),
    (ops.Slice(-1, 1, 19, 3), [("N", 20)]),
    (ops.Slice(1, "T-1", "T"), [("N", "T", 5)]),
    (ops.Slice(0, 0, "N"), [("N", 3)]),
    (ops.Slice(1, 3, 3), [("N", 5)]),
    (ops.Reverse((1,)), [("N", 37)]),
    (ops.Reverse((1, 2)), [("N", "T", 5)]),
    (ops.Reverse((0, -1)), [("N", 4, 3)]),
    (ops.Tile((1, 3, 2)), [("N", 4, 5)]),
    (ops.Tile((2,)), [("N",)]),
    (ops.BroadcastTo((3, 7, 35)), [(7, 1)]),
    (ops.BroadcastTo(("N", "T", 5)), [("N", 1, 5)]),
    (ops.BroadcastTo(("N", 3)), [("N", 1)]),
    (ops.Concat(1), [("N", 5, 3), ("N", 1, 3), ("N", "T", 3)]),
    (ops.Concat(-1), [("N", 3, 7), ("N", 3, 1)]),
    (ops.Concat(0), [(5,), (1,), ("N",)]),
    (ops.Concat(2), [(1, 1, 40), (1, 1, 25)]),
    (ops.Concat(0), [("N", 2)]),
]
GRAPHS = {
    f"{i}: {op}": graph_of(op, *(TensorType("float32", shape) for shape in shapes))
    for i, (op, shapes) in enumerate(CASES)
}
DTYPES = ["float16", "float64", "int64", "int16", "uint8", "bool"]
WIDTHS = {
    (dtype, op): graph_of(op, TensorType(dtype, ("N", 9, 21)))
    for dtype in DTYPES
    for op in (
        ops.Transpose((0, 2, 1)),
        ops.Reverse((2,)),
        ops.Slice(1, 1, 8),
        ops.BroadcastTo(("N", 9, 21)),
    )
}


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned([*GRAPHS.values(), *WIDTHS.values()])


@pytest.mark.parametrize("name", GRAPHS)
def test_elements_move_as_the_reference_moves_them(planned: Planned, name: str):
    graph = GRAPHS[name]
    for symbols in ({"N": 3, "T": 11}, {"N": 1, "T": 1}, {"N": 9, "T": 16}, {"N": 0, "T": 3}):
        planned.check(graph, random_inputs(graph, **symbols))


@pytest.mark.parametrize("key", WIDTHS, ids=str)
def test_elements_of_every_width_move(planned: Planned, key: tuple):
    planned.check(WIDTHS[key], random_inputs(WIDTHS[key], N=2))
