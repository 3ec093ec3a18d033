"""The verifier finds graphs that break a rule, and shows where."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from kcompile.errors import GraphError
from kcompile.ir.graph import Builder, Graph, Node, Value
from kcompile.ir.ops import Add, Full, Fused, Relu, Reshape, Tanh
from kcompile.ir.passes.manager import Pass, run
from kcompile.ir.types import TensorType
from kcompile.ir.verify import verify

F32 = TensorType("float32", ("N", 4))


def two_layers() -> Graph:
    b = Builder("net")
    x = b.input("x", F32)
    with b.source("first"):
        y = b(Relu(), x)
    with b.source("second"):
        z = b(Tanh(), y)
    return b.build({"y": z})


def test_a_graph_that_keeps_the_rules_passes() -> None:
    verify(two_layers())


def test_the_faulty_line_is_marked() -> None:
    graph = two_layers()
    tanh = graph.nodes[1]
    object.__setattr__(tanh.outputs[0], "type", TensorType("float32", ("N", 5)))
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert str(caught.value) == (
        "`tanh` must have the results f32[N, 4]. Received: f32[N, 5].\n"
        "graph @net(%x: f32[N, 4]) -> (y: f32[N, 5]) {\n"
        "  %0 = relu(%x) : f32[N, 4]  // first\n"
        ">>%1 = tanh(%0) : f32[N, 5]  // second\n"
        "  return %1\n"
        "}"
    )


def test_only_the_neighbourhood_of_a_fault_in_a_long_graph_is_shown() -> None:
    b = Builder("long")
    value = b.input("x", F32)
    for _ in range(60):
        value = b(Relu(), value)
    graph = b.build([value])
    object.__setattr__(graph.nodes[30].outputs[0], "type", TensorType("float32", ("N", 5)))
    with pytest.raises(GraphError) as caught:
        verify(graph)
    lines = str(caught.value).split("\n")
    assert any(line.startswith(">>%30 = relu(%29)") for line in lines)
    assert len(lines) < 35
    assert lines.count("...") == 2


def from_another_graph() -> Graph:
    stranger = Builder("other").input("stranger", F32)
    return dataclasses.replace(two_layers(), outputs=(Node(Add(), (stranger, stranger)).outputs[0],))


def with_an_output_that_is_a_foreign_input() -> Graph:
    return dataclasses.replace(two_layers(), outputs=(Builder("other").input("stranger", F32),))


def with_an_unknown_symbol() -> Graph:
    graph = two_layers()
    return dataclasses.replace(graph, outputs=(Builder()(Full(("M", 4))),))


def with_a_wrong_body() -> Graph:
    body = Builder("body")
    y = body(Relu(), body.input("x", F32))
    object.__setattr__(y, "type", F32)
    group = Fused("g", body.build([y]))
    b = Builder("net")
    graph = b.build([b(group, b.input("x", F32))])
    assert y.producer is not None
    object.__setattr__(y.producer, "op", Reshape((4, "N", 1)))
    object.__setattr__(y.producer.op, "shape", (5, "N"))
    return graph


def with_a_result_of_another_producer() -> Graph:
    graph = two_layers()
    relu = graph.nodes[0]
    object.__setattr__(relu, "outputs", (Value(F32, None, 0),))
    return graph


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (from_another_graph, "`add` reads a value that is defined nowhere before it."),
        (with_an_output_that_is_a_foreign_input, "output `y` must be an input of the graph or the result of a node."),
        (with_an_unknown_symbol, "the result of `full` has the symbols M, which no input has."),
        (with_a_wrong_body, "the body of `fused` is wrong: `reshape`: f32[5, N] has another number of elements."),
        (with_a_result_of_another_producer, "`relu` must be the producer of its own results."),
    ],
)
def test_every_rule_is_checked(make: Callable[[], Graph], law: str) -> None:
    with pytest.raises(GraphError) as caught:
        verify(make())
    assert law in str(caught.value)


def test_a_pass_that_makes_a_wrong_graph_is_named() -> None:
    with pytest.raises(GraphError, match="pass `breaks` made a wrong graph: `add` reads a value"):
        run(two_layers(), (Pass("breaks", lambda graph: from_another_graph()),))


def test_a_pass_that_changes_the_outputs_is_named() -> None:
    def renamed(graph: Graph) -> Graph:
        return dataclasses.replace(graph, output_names=("other",))

    with pytest.raises(GraphError, match="pass `renames` made a wrong graph: a pass must keep the names and types"):
        run(two_layers(), (Pass("renames", renamed),))


def test_changes_are_noted_once_and_no_change_keeps_the_object() -> None:
    graph = two_layers()
    assert run(graph, (Pass("nothing", lambda g: g),)) is graph
    counts = iter(range(3))

    def three_times(graph: Graph) -> Graph:
        return graph if next(counts, None) is None else dataclasses.replace(graph)

    assert run(graph, (Pass("some", three_times), Pass("nothing", lambda g: g))).notes == ("some",)


def test_passes_that_never_settle_are_stopped_and_noted() -> None:
    changed = run(two_layers(), (Pass("restless", dataclasses.replace),), max_rounds=3)
    assert changed.notes == ("restless", "still changing after 3 rounds")


def test_an_unknown_symbol_is_reported_where_it_comes_in_and_not_after() -> None:
    b = Builder("net")
    graph = b.build([b(Relu(), b(Full(("M", 4))))])
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert str(caught.value).count("has the symbols M") == 1
    assert str(caught.value).count(">>") == 1


def test_constants_of_a_graph_are_not_copied_by_verifying(rng: np.random.Generator) -> None:
    b = Builder("net")
    weights = rng.standard_normal((100, 100))
    graph = b.build([b.constant(weights)])
    verify(graph)
    assert np.shares_memory(weights, graph.nodes[0].outputs[0].constant)
