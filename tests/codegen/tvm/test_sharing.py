"""Results over operands and parts in their whole: less memory, and the same numbers."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest

from kcompile.codegen.tvm.library import Function, compile_library
from kcompile.codegen.tvm.lower import Lowered, lower
from kcompile.codegen.tvm.targets import MACHINES, host
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.types import Array, TensorType
from tests.codegen.tvm.harness import guarded, load_library

ROW = TensorType("float32", (1, 40))


def lowered(graph: Graph) -> Lowered:
    return lower(graph, MACHINES["cortex-m7"], "m")


def families(graph: Graph) -> list[str]:
    return [call.family for call in lowered(graph).table]


def run(graph: Graph, inputs: dict[str, Array]) -> list[Array]:
    """The results of a C library on guarded arrays, which it must leave as they are."""
    machine = replace(host(), threaded=False, alignment=8)
    made = compile_library(Function(graph, "m_run", len(graph.inputs), len(graph.outputs)), None, machine)
    assert made.shared
    function = load_library(made.shared).m_run
    given = [guarded(inputs[value.name]) for value in graph.inputs]
    results = [guarded(np.zeros([int(d) for d in v.type.shape], v.type.dtype)) for v in graph.outputs]
    workspace = guarded(np.full(-(-made.workspace // 64) * 64, 0xFF, np.uint8))

    def table(arrays: list[Array]) -> ctypes.Array[ctypes.c_void_p]:
        return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))

    assert function(table(given), table(results), ctypes.c_void_p(workspace.ctypes.data)) == 0
    for value, array in zip(graph.inputs, given, strict=True):
        np.testing.assert_array_equal(array, inputs[value.name])
    return results


def dense(b: Builder, x: Value, columns: int) -> Value:
    rows = int(x.type.shape[-1])  # type: ignore[arg-type]
    return b(ops.Dense(), x, b.constant(np.linspace(-1, 1, rows * columns, dtype=np.float32).reshape(rows, columns)))


def test_a_softmax_takes_the_place_of_what_it_reads():
    b = Builder("m")
    x = dense(b, b.input("x", ROW), 100)
    graph = b.build([dense(b, b(ops.Softmax(-1), x), 4)])
    assert lowered(graph).arena.bytes({}) == 400


def test_a_residual_sum_takes_the_place_of_its_operand():
    b = Builder("m")
    x = dense(b, b.input("x", ROW), 100)
    y = b(ops.Add(), dense(b, dense(b, x, 50), 100), x)
    graph = b.build([dense(b, y, 4)])
    assert lowered(graph).arena.bytes({}) == 4 * (100 + 50)


def test_what_is_read_later_keeps_its_place():
    b = Builder("m")
    x = dense(b, b.input("x", ROW), 100)
    y = b(ops.Softmax(-1), x)
    graph = b.build([dense(b, b(ops.Softmax(-1), y), 4), dense(b, x, 4), dense(b, y, 4)])
    given = {"x": np.random.default_rng(0).standard_normal((1, 40), np.float32)}
    for found, expected in zip(run(graph, given), evaluate(graph, given).values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_parts_of_the_first_long_axis_are_neither_cut_nor_joined_by_copies():
    b = Builder("m")
    x = b.input("x", TensorType("float32", (1, 8, 5)))
    parts = [dense(b, b(ops.Slice(1, start, start + 4), x), 6) for start in (0, 4)]
    whole = b(ops.Concat(1), *parts)
    graph = b.build([dense(b, whole, 3)])
    assert set(families(graph)) == {"matrix"}
    assert lowered(graph).arena.bytes({}) == 4 * 8 * 6


def test_parts_of_the_last_axis_are_copied():
    b = Builder("m")
    x = b.input("x", TensorType("float32", (1, 8, 6)))
    graph = b.build([dense(b, b(ops.Slice(2, 0, 4), x), 6)])
    assert families(graph) == ["copy_strided", "matrix"]


def test_inputs_are_copied_into_what_is_joined():
    b = Builder("m")
    x, y = b.input("x", ROW), b.input("y", ROW)
    graph = b.build([b(ops.Concat(0), x, y, x)])
    given = {"x": np.arange(40, dtype=np.float32)[None], "y": -np.ones((1, 40), np.float32)}
    np.testing.assert_array_equal(run(graph, given)[0], np.concatenate([given["x"], given["y"], given["x"]]))


def random_graph(rng: np.random.Generator) -> Graph:
    """Results that are reshaped, cut, joined, combined and read again, in any order."""
    b = Builder("m")
    values = [b.input(f"x{i}", TensorType("float32", (1, 12))) for i in range(2)]
    for _ in range(14):
        x = values[rng.integers(len(values))]
        y = values[rng.integers(len(values))]
        kind = rng.integers(6)
        if kind == 0:
            made = b(ops.Add(), x, b(ops.Tanh(), y))
        elif kind == 1:
            made = b(ops.Softmax(-1), x)
        elif kind == 2:
            made = dense(b, x, 12)
        elif kind == 3:
            joined = b(ops.Concat(1), x, y)
            start = int(rng.integers(12))
            made = b(ops.Slice(1, start, start + 12), joined)
        elif kind == 4:
            halves = [b(ops.Slice(1, start, start + 6), x) for start in (0, 6)]
            made = b(ops.Concat(1), b(ops.Relu(), halves[1]), halves[0])
        else:
            made = b(ops.Reshape((1, 12)), b(ops.Sigmoid(), b(ops.Reshape((3, 4)), x)))
        values.append(made)
    return b.build([values[-1], values[int(rng.integers(2, len(values)))], values[-1]])


@pytest.mark.parametrize("seed", range(8))
def test_sharing_changes_no_results(seed: int):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    given = {value.name: rng.standard_normal((1, 12), np.float32) for value in graph.inputs}
    for found, expected in zip(run(graph, given), evaluate(graph, given).values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
