"""Every pass keeps what a graph means, on graphs drawn at random."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from numpy.typing import NDArray

from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph, Node
from kcompile.ir.ops import Conv, ConvTranspose, Fused, MaxPool
from kcompile.ir.parse import parse
from kcompile.ir.passes.batch_norm import fold_batch_norm
from kcompile.ir.passes.constants import fold_constants
from kcompile.ir.passes.cse import share_common
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.layout import to_channels_first, to_channels_last
from kcompile.ir.passes.linear import fold_into_linear
from kcompile.ir.passes.pipeline import explain, inference
from kcompile.ir.passes.simplify import simplify
from kcompile.ir.passes.steps import simplify_step
from kcompile.ir.text import constants_of, to_text
from kcompile.ir.verify import verify
from tests.strategies import GraphCase, graphs
from tests.tolerances import REWRITE, assert_close

PASSES = {
    each.__name__: each
    for each in (
        simplify,
        simplify_step,
        fold_batch_norm,
        fold_into_linear,
        fold_constants,
        share_common,
        inference,
        to_channels_first,
        to_channels_last,
        fuse,
    )
}


def assert_same_meaning(before: Graph, after: Graph, inputs: dict[str, NDArray]) -> None:
    assert after.input_types == before.input_types
    assert after.output_types == before.output_types
    expected, actual = evaluate(before, inputs), evaluate(after, inputs)
    for name, array in expected.items():
        assert_close(actual[name], array, REWRITE)


@pytest.mark.parametrize("name", PASSES)
def test_pass_keeps_the_meaning_of_a_graph(name: str) -> None:
    @given(graphs())
    def check(drawn: GraphCase) -> None:
        graph, inputs = drawn.graph, drawn.inputs
        changed = PASSES[name](graph)
        verify(changed)
        assert_same_meaning(graph, changed, inputs)

    check()


def test_passes_of_both_back_ends_in_a_row_keep_the_meaning_of_a_graph() -> None:
    @given(graphs(steps=16))
    def check(drawn: GraphCase) -> None:
        graph, inputs = drawn.graph, drawn.inputs
        for passes in ((inference, to_channels_first, inference), (inference, to_channels_last, fuse)):
            changed = graph
            for each in passes:
                changed = each(changed)
            verify(changed)
            assert_same_meaning(graph, changed, inputs)

    check()


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_that_has_run_changes_nothing_more(name: str) -> None:
    apply: Callable[[Graph], Graph] = PASSES[name]

    @given(graphs())
    def check(drawn: GraphCase) -> None:
        once = apply(drawn.graph)
        assert apply(once) is once

    check()


@given(graphs(steps=16))
def test_inference_settles_before_the_limit_of_rounds(drawn: GraphCase) -> None:
    assert not any("rounds" in note for note in inference(drawn.graph).notes)


@given(graphs())
def test_text_of_a_graph_reads_back_as_the_same_graph(drawn: GraphCase) -> None:
    graph, inputs = drawn.graph, drawn.inputs
    for each in (graph, inference(graph), fuse(inference(graph))):
        text = to_text(each)
        again = parse(text, constants_of(each))
        assert to_text(again) == text
        for name, array in evaluate(each, inputs).items():
            assert (evaluate(again, inputs)[name] == array).all()


@given(graphs())
def test_layouts_leave_no_op_of_the_other_format(drawn: GraphCase) -> None:
    for apply, name in ((to_channels_first, "channels_first"), (to_channels_last, "channels_last")):
        for node in apply(drawn.graph).nodes:
            assert not isinstance(node.op, Conv | ConvTranspose | MaxPool) or node.op.data_format == name


def all_nodes(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        if isinstance(node.op, Fused):
            yield from all_nodes(node.op.body)
        else:
            yield node


@given(graphs())
def test_fusion_computes_nothing_twice(drawn: GraphCase) -> None:
    def work(graph: Graph) -> Counter[str]:
        names = (node.op.op_name for node in all_nodes(graph))
        return Counter(name for name in names if name not in ("constant", "batch_norm", "add", "mul", "sub"))

    graph = inference(drawn.graph)
    assert work(fuse(graph)) == work(graph)


@given(graphs())
def test_explain_gives_a_reason_and_a_place_for_everything_it_names(drawn: GraphCase) -> None:
    for skip in explain(drawn.graph):
        assert skip.reason
        assert skip.rule
        assert skip.node is not None
        assert skip.source == skip.node.source
