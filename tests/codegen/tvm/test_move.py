"""Ops that move elements, exact against the reference, over drawn shapes, dtypes and open extents."""

import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Graph
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
    (ops.BroadcastTo(("N", 4, 5)), [("N", 1, 5)]),
    (ops.BroadcastTo(("N", 3)), [("N", 1)]),
    (ops.Concat(1), [("N", 5, 3), ("N", 1, 3), ("N", "T", 3)]),
    (ops.Concat(-1), [("N", 3, 7), ("N", 3, 1)]),
    (ops.Concat(0), [(5,), (1,), ("N",)]),
    (ops.Concat(2), [(1, 1, 40), (1, 1, 25)]),
    (ops.Concat(0), [("N", 2)]),
    (ops.Pad((0, 1, 2, 0), (0, 2, 0, 0), "constant", 1.5), [("N", 3, 4, 5)]),
    (ops.Pad((0, 1, 0), (0, 2, 3), "constant", -2.0), [("N", "T", 4)]),
    (ops.Pad((0, 3, 0), (0, 0, 0)), [("N", 2, "T")]),
    (ops.Pad((1, 0), (0, 0)), [("N", 3)]),
    (ops.Pad((0, 0), (0, 0)), [("N", 3)]),
    (ops.Pad((0, 2, 1), (0, 1, 3), "edge"), [("N", 3, 4)]),
    (ops.Pad((0, 2, 1, 0), (0, 1, 0, 0), "reflect"), [("N", 3, "T", 17)]),
    (ops.Pad((0, 9), (0, 5), "reflect"), [("N", 4)]),
    (ops.Pad((0, 4), (0, 3), "reflect"), [("N", 1)]),
    (ops.Pad((0, 2, 5), (0, 1, 7), "symmetric"), [("N", 3, 4)]),
    (ops.Resize((6, 12)), [("N", 3, 4, 5)]),
    (ops.Resize((5, 3)), [("N", 3, 7, 19)]),
    (ops.Resize(("2*T",)), [("N", "T", 8)]),
    (ops.Resize((4, 6), data_format="channels_first"), [("N", 2, 2, 3)]),
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
        ops.Pad((0, 1, 3), (0, 0, 1), value=1.0),
        ops.Resize((12,)),
        ops.BroadcastTo(("N", 9, 21)),
    )
}

FILLED = [
    graph_of(op)
    for op in (ops.Full((3, 5), 1.5), ops.Full((), 7, "int64"), ops.Full((40,), 1, "bool"), ops.Full((5000,), -1.5))
]
# shapes of the table and of the indices, axis
GATHERS = [
    (("N", 37), (7,), 0),
    ((50, 5), ("N", "T"), 0),
    (("N", 9), (4, 2), 1),
    (("N", "T", 33), (3,), 1),
    (("N", 4, 5), (), -1),
]
GATHERED = {
    (case, dtype): graph_of(ops.Gather(case[2]), TensorType("float32", case[0]), TensorType(dtype, case[1]))
    for case in GATHERS
    for dtype in ("int32", "int64", "uint8")
}
BILINEAR = {
    op: graph_of(op, TensorType("float32", shape))
    for op, shape in (
        (ops.Resize((6, 12), "bilinear"), ("N", 3, 4, 5)),
        (ops.Resize((2, 3), "bilinear"), ("N", 7, 5, 19)),
        (ops.Resize((2, "T"), "bilinear", "channels_first"), ("N", 3, 7, "T")),
        (ops.Resize(("3*T",), "bilinear"), ("N", "T", 1)),
    )
}


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned([*GRAPHS.values(), *WIDTHS.values(), *FILLED, *GATHERED.values(), *BILINEAR.values()])


@pytest.mark.parametrize("name", GRAPHS)
def test_elements_move_as_the_reference_moves_them(planned: Planned, name: str):
    graph = GRAPHS[name]
    for symbols in ({"N": 3, "T": 11}, {"N": 1, "T": 1}, {"N": 9, "T": 16}, {"N": 0, "T": 3}):
        planned.check(graph, random_inputs(graph, **symbols))


@pytest.mark.parametrize("key", WIDTHS, ids=str)
def test_elements_of_every_width_move(planned: Planned, key: tuple):
    planned.check(WIDTHS[key], random_inputs(WIDTHS[key], N=2))


@pytest.mark.parametrize("graph", FILLED, ids=lambda graph: str(graph.nodes[0].op))
def test_a_full_tensor_holds_its_value_everywhere(planned: Planned, graph: Graph):
    planned.check(graph, {})


@pytest.mark.parametrize("key", GATHERED, ids=str)
def test_gathered_indices_are_clamped_into_the_table(planned: Planned, key: tuple):
    graph = GATHERED[key]
    for symbols in ({"N": 3, "T": 11}, {"N": 1, "T": 1}):
        inputs = random_inputs(graph, **symbols)
        planned.check(graph, inputs)
        if key[1] == "int64":
            planned.check(graph, {**inputs, "x1": inputs["x1"] * 2**40})
    planned(graph, random_inputs(graph, N=0, T=0))  # an empty table is not read: its guard pages would fault


@pytest.mark.parametrize("op", BILINEAR, ids=str)
def test_bilinear_resizing_matches_the_reference(planned: Planned, op: ops.Resize):
    graph = BILINEAR[op]
    for symbols in ({"N": 3, "T": 11}, {"N": 1, "T": 1}, {"N": 0, "T": 2}):
        planned.check(graph, random_inputs(graph, **symbols), rtol=1e-6, atol=1e-6)
