"""Plans compute what the reference computes, run after run."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.ir import ops
from kcompile.ir.evaluate import bind_graph, run_nodes
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import OPS, Op
from kcompile.ir.passes.grad import backward
from kcompile.ir.plan import Held, Plan
from kcompile.ir.types import TensorType, bind_shapes, type_of
from tests.strategies import GraphCase, OpCase, graphs, op_cases


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    # The dtype of texts says how long the longest is, of those that there were at some time.
    same_type = found.dtype == expected.dtype or found.dtype.kind == expected.dtype.kind == "U"
    return same_type and found.shape == expected.shape and _equal(found, expected)


def _equal(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.dtype.kind != "f":
        return bool((found == expected).all())
    # BLAS rounds sums of another layout in another order.
    tolerance = 1e-12 if found.dtype == np.float64 else 1e-5
    return np.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def check(graph: Graph, arrays: list[np.ndarray]) -> None:
    """Run a plan twice on two sets of arguments and compare with the reference."""
    bindings = bind_shapes(graph.input_types, {v.name: a.shape for v, a in zip(graph.inputs, arrays, strict=True)})
    bound = bind_graph(graph, bindings)
    plan = Plan(bound)
    with np.errstate(all="ignore"):
        expected = run_nodes(bound, tuple(arrays))
    copies = [array.copy() for array in arrays]
    first = plan.run(arrays)
    others = [np.flip(array).copy() for array in arrays]
    plan.run(others)
    assert all(same(found, e) for found, e in zip(first, expected, strict=True)), "another run changed results"
    assert all(same(found, e) for found, e in zip(plan.run(arrays), expected, strict=True))
    assert all(np.array_equal(a, c, equal_nan=a.dtype.kind == "f") for a, c in zip(arrays, copies, strict=True))


@pytest.mark.parametrize("cls", OPS.values(), ids=OPS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_op(cls: type[Op], dtype: str) -> None:
    @given(op_cases(cls, dtype))
    def each(case: OpCase) -> None:
        b = Builder("case")
        xs = [b.input(f"x{i}", type_of(array)) for i, array in enumerate(case.arrays)]
        inner = b.multi(case.op, *xs)
        # Read again, so that the first results are kept in arrays of the plan.
        again = [b(ops.Reshape((y.type.size,)), y) for y in inner]
        check(b.build([*again, inner[0]]), list(case.arrays))
        check(b.build(again), list(case.arrays))

    each()


@given(graphs())
def test_random_graphs(case: GraphCase) -> None:
    check(case.graph, [case.inputs[value.name] for value in case.graph.inputs])


@given(graphs(), st.integers(0, 2**16))
def test_gradients_of_random_graphs(case: GraphCase, seed: int) -> None:
    graph = case.graph
    floats = [x for x in graph.inputs if x.type.is_float]
    results = [y for y in graph.outputs if y.type.is_float]
    if not floats or not results:
        return
    b = Builder("gradients")
    b._inputs = list(graph.inputs)  # pyright: ignore[reportPrivateUsage]
    total = b(ops.ReduceSum(tuple(range(results[0].type.rank))), results[0]) if results[0].type.rank else results[0]
    check(b.build(backward(b, total, floats)), [case.inputs[value.name] for value in graph.inputs])


def test_an_operand_that_is_read_through_a_view_is_not_overwritten() -> None:
    b = Builder("view")
    x = b.input("x", TensorType("float64", (3, 3)))
    doubled = b(ops.Add(), x, x)
    turned = b(ops.Transpose((1, 0)), doubled)
    check(b.build([b(ops.Neg(), b(ops.Sub(), doubled, turned))]), [np.arange(9.0).reshape(3, 3)])


def test_arrays_are_shared_by_values_whose_lives_do_not_meet() -> None:
    b = Builder("chain")
    x = b.input("x", TensorType("float64", (1000,)))
    y = x
    for _ in range(20):
        y = b(ops.Tanh(), b(ops.Add(), y, x))
    plan = Plan(b.build([b(ops.Neg(), y)]))
    assert plan.workspace <= 2 * 8000


def test_results_of_rank_zero_keep_their_dtypes() -> None:
    b = Builder("scalars")
    x, n = b.input("x", TensorType("float32", ())), b.input("n", TensorType("int64", ()))
    positive = b(ops.Compare(">"), x, b.constant(np.array(0, np.float32)))
    outputs = [
        b(ops.Pow(), x, b(ops.Cast("float32"), n)),
        b(ops.Add(), n, b.constant(np.array(1, np.int64))),
        b(ops.Not(), positive),
        b(ops.Where(), positive, x, b(ops.Neg(), x)),
        b(ops.Div(), n, b.constant(np.array(2, np.int64))),
        b(ops.Cast("float32"), b(ops.Not(), positive)),
        x,
    ]
    check(b.build(outputs), [np.asarray(-1.5, np.float32), np.asarray(3, np.int64)])


def check_state(graph: Graph, pairs: dict[str, int], arrays: dict[str, np.ndarray]) -> None:
    """Run a plan three times that holds these inputs as state, and compare with the reference."""
    plan = Plan(graph, held := [Held(name, number, arrays[name].copy()) for name, number in pairs.items()])
    state = {name: arrays[name] for name in pairs}
    for _ in range(3):
        with np.errstate(all="ignore"):
            expected = run_nodes(graph, tuple({**arrays, **state}[value.name] for value in graph.inputs))
        found = plan.run([arrays[value.name] for value in graph.inputs if value.name not in pairs])
        state = {name: expected[number] for name, number in pairs.items()}
        assert all(same(each.array, expected[each.output]) for each in held)
        results = [array for number, array in enumerate(expected) if number not in pairs.values()]
        assert all(same(a, b) for a, b in zip(found, results, strict=True))


STEPS = {
    "written in place": lambda b, s, u: ([b(ops.Add(), s, u), b(ops.Mul(), u, u)], u),
    "read again after it": lambda b, s, u: ([y := b(ops.Add(), s, u), b(ops.Mul(), y, u)], b(ops.Mul(), s, s)),
    "swapped": lambda b, s, u: ([u, s], b(ops.Add(), s, u)),
    "each from both": lambda b, s, u: ([b(ops.Sub(), s, u), b(ops.Mul(), s, u)], u),
    "returned as it was": lambda b, s, u: ([b(ops.Exp(), s), b(ops.Neg(), u)], b(ops.Reverse((0,)), s)),
    "from a view of itself": lambda b, s, u: ([b(ops.Add(), s, b(ops.Reverse((0,)), s)), u], u),
    "a view of the other": lambda b, s, u: ([b(ops.Reverse((0,)), u), b(ops.Reverse((1,)), s)], s),
    "the same twice": lambda b, s, u: ([y := b(ops.Tanh(), s), y], y),
    "as it was": lambda b, s, u: ([s, b(ops.Exp(), u)], s),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_state_is_replaced_where_it_lies(step: Any) -> None:
    b, rng = Builder("step"), np.random.default_rng(0)
    s, u = (b.input(name, TensorType("float64", (3, 4))) for name in ("s", "u"))
    (first, second), result = step(b, s, u)
    graph = b.build([b(ops.Relu(), result), first, second])
    check_state(graph, {"s": 1, "u": 2}, {name: rng.normal(size=(3, 4)) for name in ("s", "u")})
    check_state(graph, {"u": 2}, {name: rng.normal(size=(3, 4)) for name in ("s", "u")})


@given(graphs(), st.data())
def test_any_graph_keeps_any_state(case: GraphCase, data: st.DataObject) -> None:
    graph, arrays = case.graph, case.inputs
    bindings = bind_shapes(graph.input_types, {name: array.shape for name, array in arrays.items()})
    bound = bind_graph(graph, bindings)
    pairs: dict[str, int] = {}
    for value in bound.inputs:
        fits = [
            n
            for n, y in enumerate(bound.outputs)
            if y.type == value.type and value.type.rank and n not in pairs.values()
        ]
        if fits and data.draw(st.booleans()):
            pairs[value.name] = data.draw(st.sampled_from(fits))
    check_state(bound, pairs, arrays)


def test_operands_are_written_where_a_concatenation_would_copy_them() -> None:
    b, rng = Builder("pack"), np.random.default_rng(0)
    x = b.input("x", TensorType("float64", (2, 3)))
    first, second, third = b(ops.Exp(), x), b(ops.Sin(), x), b(ops.Cos(), x)
    flat = [b(ops.Reshape((6,)), value) for value in (first, second, first, x, third)]
    whole = b(ops.Concat(0), *flat)
    # `second` is read again later, when the array of the concatenation has been written over.
    result = b(ops.Add(), b(ops.Tanh(), whole), b(ops.Concat(0), *[flat[1]] * 5))
    graph = b.build([b(ops.Neg(), result)])
    check(graph, [rng.normal(size=(2, 3))])
    plan = Plan(b.build([b(ops.Neg(), b(ops.Concat(0), flat[0], flat[4]))]))
    assert plan.workspace == 12 * 8


def test_what_stops_gradients_keeps_the_memory_of_its_operand() -> None:
    b = Builder("stopped")
    x = b.input("x", TensorType("float32", (2, 8)))
    stopped = b(ops.StopGradient(), b(ops.Mul(), x, x))
    other = b(ops.Exp(), b(ops.Neg(), b(ops.Add(), x, x)))
    graph = b.build([b(ops.Sub(), stopped, other)])
    check(graph, [np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)])
