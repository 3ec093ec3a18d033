"""Values, builders, substitution and evaluation: what the rest stands on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.errors import GraphError, InputError, TypeRuleError
from kcompile.ir.evaluate import bind_graph, evaluate
from kcompile.ir.graph import Builder, Graph, Value, inline, substitute
from kcompile.ir.op import Tensor
from kcompile.ir.ops import (
    Add,
    Cast,
    Clip,
    Conv,
    Dense,
    Full,
    Fused,
    Lstm,
    MatMul,
    Mul,
    Neg,
    ReduceMean,
    Relu,
    Reshape,
    Softmax,
    Tanh,
)
from kcompile.ir.passes.constants import fold_constants
from kcompile.ir.passes.simplify import simplify
from kcompile.ir.types import TensorType, bind_shapes

F32 = TensorType("float32", ("N", 4))


# ---- constants


def test_tensors_are_equal_by_content() -> None:
    first, second = np.zeros(10_000, "float32"), np.zeros(10_000, "float32")
    assert Tensor(first) == Tensor(second)
    assert hash(Tensor(first)) == hash(Tensor(second))
    second[5001] = 1e-30  # where the hash does not look
    assert Tensor(first) != Tensor(second)


@pytest.mark.parametrize(
    "other", [np.zeros(4, "int32"), np.zeros((2, 2), "float32"), np.zeros(3, "float32"), -np.zeros(4)]
)
def test_tensors_of_other_types_or_signs_of_zero_differ(other: np.ndarray) -> None:
    assert Tensor(np.zeros(4, "float32")) != Tensor(other)


def test_tensors_neither_copy_nor_freeze_an_array() -> None:
    array = np.ones((3, 4))
    tensor = Tensor(array)
    assert np.shares_memory(tensor.array, array)
    array[0, 0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        tensor.array[0, 0] = 3.0


def test_a_large_result_of_constants_that_takes_long_is_left_to_run_time() -> None:
    b = Builder()
    x = b.constant(np.ones((400, 400), "float32"))
    graph = b.build([b(MatMul(), x, b.constant(np.zeros((400, 400), "float32")))])
    assert fold_constants(graph) is graph


def test_a_large_fill_is_not_written_out() -> None:
    b = Builder()
    graph = b.build([b(Tanh(), b(Full((400, 400), 0.5)))])
    assert fold_constants(graph) is graph


def test_a_large_weight_with_other_uses_is_not_doubled() -> None:
    b = Builder()
    weights = b.constant(np.ones((200, 200), "float32"))
    assert fold_constants(graph := b.build([b(Neg(), weights), weights])) is graph
    assert fold_constants(graph := b.build([b(Neg(), weights)])) is not graph


# ---- building


def test_a_wrong_node_fails_on_the_line_that_makes_it() -> None:
    b = Builder()
    x = b.input("x", F32)
    with pytest.raises(TypeRuleError, match=r"`dense`: x must be \[\.\.\., K\] and the kernel \[K, M\]. Received: "):
        b(Dense(), x, b.constant(np.zeros((5, 2), "float32")))


def test_nodes_carry_the_path_of_their_layer() -> None:
    b = Builder()
    x = b.input("x", F32)
    with b.source("encoder"), b.source("act"):
        y = b(Relu(), x)
        with b.at("elsewhere"):
            z = b(Tanh(), y)
    assert [v.producer.source for v in (y, z) if v.producer] == ["encoder/act", "elsewhere"]
    assert (node := b(Relu(), x).producer)
    assert node.source == ""


def test_dead_code_is_in_no_graph() -> None:
    b = Builder()
    x = b.input("x", F32)
    y = b(Relu(), x)
    b(Tanh(), y)
    assert [node.op for node in b.build([y]).nodes] == [Relu()]


def test_unnamed_outputs_are_numbered_and_names_must_differ() -> None:
    b = Builder()
    x = b.input("x", F32)
    assert b.build([x, x]).output_names == ("output_0", "output_1")
    b.input("x", F32)
    with pytest.raises(GraphError, match="names of a graph's inputs and of its outputs must be unique"):
        b.build([x])


def test_very_deep_graphs_need_no_recursion() -> None:
    b = Builder()
    x = value = b.input("x", F32)
    for _ in range(5000):
        value = b(Neg(), value)
    graph = b.build([value])
    assert len(graph.nodes) == 5000
    assert simplify(graph).outputs == (x,)


def test_uses_count_readers_and_outputs() -> None:
    b = Builder()
    x = b.input("x", F32)
    y = b(Add(), x, x)
    uses = b.build([y, y]).uses
    assert (uses[x], uses[y]) == (2, 2)


# ---- substitution


def chain() -> tuple[Graph, Value, Value, Value]:
    b = Builder()
    x = b.input("x", F32)
    y = b(Relu(), x)
    z = b(Tanh(), y)
    return b.build([z, y]), x, y, z


def test_replaced_values_are_replaced_wherever_they_are_read() -> None:
    graph, x, y, _ = chain()
    changed = substitute(graph, {y: Builder()(Neg(), x)})
    assert [node.op for node in changed.nodes] == [Neg(), Tanh()]
    assert changed.outputs[1].op == Neg()


def test_replacements_may_be_replaced_themselves() -> None:
    graph, x, y, z = chain()
    changed = substitute(graph, {z: y, y: x})
    assert changed.outputs == (x, x)


def test_nothing_to_replace_keeps_the_object() -> None:
    graph, x, _, _ = chain()
    unread = Builder()(Neg(), x)
    assert substitute(graph, {}) is graph
    assert substitute(graph, {unread: x}) is graph


def test_a_replacement_of_another_type_is_refused() -> None:
    graph, x, y, _ = chain()
    with pytest.raises(GraphError, match=r"a value must be replaced by one of its type f32\[N, 4\]"):
        substitute(graph, {y: Builder()(Reshape((4, "N")), x)})


def test_a_cycle_is_refused() -> None:
    graph, _, y, z = chain()
    with pytest.raises(GraphError, match="a graph must not have cycles"):
        substitute(graph, {y: z})


def test_a_body_is_inlined_with_its_sources() -> None:
    graph, *_ = chain()
    b = Builder()
    x = b.input("x", F32)
    results = inline(b, graph, [b(Neg(), x)])
    assert [node.op for node in b.build(results).nodes] == [Neg(), Relu(), Tanh()]


# ---- evaluation


def test_evaluation_takes_any_batch(rng: np.random.Generator) -> None:
    graph, *_ = chain()
    for batch in (0, 1, 7):
        x = rng.standard_normal((batch, 4)).astype("float32")
        assert np.array_equal(evaluate(graph, {"x": x})["output_0"], np.tanh(np.maximum(x, 0)))


def test_evaluation_in_another_precision_does_all_arithmetic_in_it() -> None:
    b = Builder()
    x = b.input("x", F32)
    third = b.constant(np.array(1e-9, np.float32))
    graph = b.build([b(Add(), b(Add(), x, third), b(Full((4,), 1e-9)))])
    ones = np.ones((1, 4), "float32")
    assert evaluate(graph, {"x": ones})["output_0"].dtype == np.float32
    found = evaluate(graph, {"x": ones}, precision="float64")["output_0"]
    assert found.dtype == np.float64
    assert found[0, 0] == pytest.approx(1.0 + 2e-9, abs=1e-15)


def test_sums_of_halves_do_not_overflow() -> None:
    b = Builder()
    x = b.input("x", TensorType("float16", ("N", 300, 300)))
    graph = b.build([b(ReduceMean((1, 2)), x), b(Softmax(), b(Reshape(("N", 90_000)), x))])
    found = evaluate(graph, {"x": np.full((1, 300, 300), 10.0, "float16")})
    assert found["output_0"].tolist() == [10.0]
    np.testing.assert_allclose(found["output_1"].astype("float64").sum(), 1.0, rtol=0.01)


def test_casts_between_floats_do_not_round_in_a_finer_precision() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ("N",)))
    graph = b.build(
        [b(Cast("float32"), b(Cast("float16"), x)), b(Cast("int32"), x), b(Cast("float16"), b(Cast("int32"), x))]
    )
    third = {"x": np.array([7 / 3], "float32")}
    found = evaluate(graph, third, precision="float64")
    assert [array.dtype.name for array in found.values()] == ["float64", "int32", "float64"]
    assert [array[0] for array in found.values()] == [np.float32(7 / 3), 2, 2.0]
    assert evaluate(graph, third)["output_0"][0] == np.float16(7 / 3)


def test_inner_values_can_be_kept() -> None:
    graph, _, y, z = chain()
    found = evaluate(graph, {"x": np.full((1, 4), 2.0, "float32")}, keep=[y, z])
    assert found["%0"][0, 0] == 2.0
    assert found["%1"][0, 0] == np.tanh(np.float32(2.0))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "the model's inputs are x. Received: none."),
        ({"x": np.zeros((1, 4), "float32"), "y": np.zeros(1)}, "the model's inputs are x. Received: x, y."),
        ({"x": np.zeros((1, 4))}, "input `x` must have dtype float32. Received: float64."),
        ({"x": np.zeros((1, 5), "float32")}, "input `x` must have shape (N, 4). Received: (1, 5)."),
        ({"x": np.zeros((1, 4, 1), "float32")}, "input `x` must have shape (N, 4). Received: (1, 4, 1)."),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, np.ndarray], text: str) -> None:
    graph, *_ = chain()
    with pytest.raises(InputError) as caught:
        evaluate(graph, inputs)
    assert str(caught.value) == text


def test_a_symbol_has_one_value_everywhere() -> None:
    types = {"x": TensorType("float32", ("N", "T")), "y": TensorType("float32", ("N", "2*T"))}
    assert bind_shapes(types, {"x": (2, 3), "y": (2, 6)}) == {"N": 2, "T": 3}
    for y, where in (
        ((4, 5), ", where N is 2 from input `x` and T is 3 from input `x`"),
        ((4, 6), ", where N is 2 from input `x`"),
        ((2,), ""),
    ):
        with pytest.raises(InputError) as caught:
            bind_shapes(types, {"x": (2, 3), "y": y})
        assert str(caught.value) == f"input `y` must have shape (N, 2*T){where}. Received: {y}."


def test_all_inputs_that_do_not_fit_are_named_at_once() -> None:
    types = {"x": TensorType("float32", ("N", 3)), "y": TensorType("float32", (4,))}
    with pytest.raises(InputError) as caught:
        bind_shapes(types, {"x": (2, 4), "y": (5,)})
    assert len(str(caught.value).split("\n")) == 2


def test_symbols_are_bound_in_types_attributes_and_bodies() -> None:
    body = Builder("body")
    inner = body.build([body(Add(), body.input("x", F32), body(Full(("N", 4), 1.0)))])
    b = Builder()
    x = b.input("x", F32)
    graph = b.build([b(Reshape(("2*N", 2)), b(Fused("g", inner), x))])
    bound = bind_graph(graph, {"N": 3})
    assert bound.output_types == {"output_0": TensorType("float32", (6, 2))}
    zeros = np.zeros((3, 4), "float32")
    assert np.array_equal(evaluate(bound, {"x": zeros})["output_0"], evaluate(graph, {"x": zeros})["output_0"])


def test_work_is_counted_through_groups() -> None:
    types = (TensorType("float32", ("N", 8, 8, 3)), TensorType("float32", (3, 3, 3, 4)))
    body = Builder("body")
    inputs = [body.input(name, type) for name, type in zip("xk", types, strict=True)]
    op = Conv((1, 1), "same")
    fused = Fused("conv+relu", body.build([body(Relu(), body(op, *inputs))]))
    results = op.result_types(types)
    assert fused.macs(types, results) == op.macs(types, results) == f"{8 * 8 * 4 * 27}*N"


def test_work_of_a_recurrent_layer_is_its_products_at_every_step() -> None:
    types = tuple(TensorType("float32", shape) for shape in (("N", "T", 5), (5, 12), (3, 12), (12,)))
    assert Lstm().macs(types, Lstm().result_types(types)) == f"{(5 + 3) * 12}*N*T"


# ---- clips, with bounds in any order


@given(st.lists(st.tuples(*[st.sampled_from([-np.inf, -1.0, 0.0, 2.0, np.inf])] * 2), min_size=1, max_size=3))
def test_clips_in_a_row_are_one_clip_that_does_the_same(bounds: list[tuple[float, float]]) -> None:
    b = Builder()
    value = b.input("x", TensorType("float64", (9,)))
    for low, high in bounds:
        value = b(Clip(low, high), b(Mul(), value, b.constant(np.asarray(1.0))))
    graph = b.build([value])
    x = np.array([-np.inf, -3.0, -1.0, -0.5, 0.0, 1.0, 2.0, np.inf, np.nan])
    found, expected = (evaluate(each, {"x": x})["output_0"] for each in (simplify(graph), graph))
    np.testing.assert_array_equal(found, expected)
