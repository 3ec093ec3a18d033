"""Verification: what it lets pass, what it refuses, and which layer it names."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from kcompile.codegen.parity import check_graph, compare, first_wrong_layer, layer_results, require_agreement, worst
from kcompile.codegen.tolerances import WHOLE_MODEL
from kcompile.errors import ModelError, UnsupportedOp, VerificationError
from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph, Node, Value, substitute
from kcompile.ir.op import Arrays, Op, Types
from kcompile.ir.types import TensorType
from kcompile.runtime.reference import ReferenceSession
from kcompile.runtime.session import Session


@dataclass(frozen=True)
class Off(Op, operands=("x",)):
    """``x`` with its first element moved by `amount` of the largest: a fault in a back end."""

    amount: float

    def infer(self, types: Types) -> Types:
        return types

    def kernel(self, args: Arrays) -> Arrays:
        y = args[0].copy()
        y.reshape(-1)[:1] += self.amount * np.abs(y).max(initial=0)
        return (y,)


def chain(count: int = 6) -> Graph:
    """Layers ``block/tanh_0``, ``block/tanh_1`` and so on, each ``tanh(x @ kernel)``, f32[N, 8]."""
    rng = np.random.default_rng(0)
    b = Builder("chain")
    x = b.input("x", TensorType("float32", ("N", 8)))
    with b.source("block"):
        for i in range(count):
            with b.source(f"tanh_{i}"):
                kernel = b.constant(rng.standard_normal((8, 8), np.float32), f"tanh_{i}/kernel")
                x = b(ops.Tanh(), b(ops.Dense(), x, kernel))
    return b.build({"y": x})


def faulty(graph: Graph, source: str, amount: float = 0.01) -> Graph:
    """`graph` with the result of the layer at `source` off."""
    last = [node for node in graph.nodes if node.source == source][-1:]
    replacements: dict[Value, Value] = {}
    for node in last:
        # The same op again, so that the replacement does not read the value that it replaces.
        again = Node(node.op, node.inputs, node.source).outputs[0]
        replacements[node.outputs[0]] = Node(Off(amount), (again,), node.source).outputs[0]
    return substitute(graph, replacements)


def broken_at(source: str, amount: float = 0.01):
    """A back end that gets one layer wrong."""
    return lambda graph: ReferenceSession(faulty(graph, source, amount))


def test_the_reference_agrees_with_itself() -> None:
    report = check_graph(chain(), ReferenceSession(chain()))
    assert report.agrees
    (difference,) = report.differences
    assert 0 < difference.relative < 1e-6
    assert difference.ulp < 100


@pytest.mark.parametrize("layer", range(6))
def test_the_first_layer_that_is_off_is_named(layer: int) -> None:
    graph = chain()
    compile = broken_at(f"block/tanh_{layer}")
    report = check_graph(graph, compile(graph))
    assert not report.agrees
    with pytest.raises(VerificationError) as caught:
        require_agreement(report, graph, compile, "model.onnx")
    first, second, last = str(caught.value).splitlines()
    assert first == "model.onnx disagrees with the reference:"
    assert re.fullmatch(r"  output `y` is off by \S+, where \S+ is allowed", second)
    assert last == f"The first layer whose value is off is `block/tanh_{layer}` (tanh)."


@pytest.mark.parametrize("layer", range(6))
def test_a_fault_that_shows_only_in_whole_graphs_is_found_by_bisection(layer: int) -> None:
    """As one in the fusion of layers is: where every value is asked for, nothing is fused."""

    def compile(graph: Graph) -> Session:
        return broken_at(f"block/tanh_{layer}")(graph) if len(graph.outputs) == 1 else ReferenceSession(graph)

    text = first_wrong_layer(chain(), compile, check_graph(chain(), compile(chain())).samples.inputs)
    assert text == f"The first layer whose value is off is `block/tanh_{layer}` (tanh)."


def test_a_fault_in_no_layer_is_said_to_be_none() -> None:
    graph = chain()
    inputs = check_graph(graph, ReferenceSession(graph)).samples.inputs
    assert first_wrong_layer(graph, ReferenceSession, inputs) == (
        "Every layer's value agrees when it is compiled anew, so the fault is not in one layer's code."
    )


def test_a_back_end_that_cannot_compile_parts_says_so() -> None:
    def compile(graph: Graph) -> Session:
        raise UnsupportedOp("no parts")

    graph = chain()
    inputs = check_graph(graph, ReferenceSession(graph)).samples.inputs
    assert first_wrong_layer(graph, compile, inputs) == "The first layer that is off cannot be found: no parts"


def test_a_fault_in_one_row_alone_is_seen() -> None:
    """A kernel for batch 1 is another one than for batch 2."""

    class Single(ReferenceSession):
        def _execute(self, arrays, plan):
            results = super()._execute(arrays, plan)
            return [y + 0.01 for y in results] if len(arrays[0]) == 1 else results

    assert not check_graph(chain(), Single(chain())).agrees


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_tolerance_tells_a_rounding_from_a_fault(factor: float) -> None:
    graph = chain(1)
    report = check_graph(graph, ReferenceSession(faulty(graph, "block/tanh_0", WHOLE_MODEL.relative * factor)))
    assert report.agrees == (factor < 1)


def test_small_outputs_are_held_to_their_own_size() -> None:
    reference = np.array([1e-7, 2e-7, 3e-7])
    assert not compare("y", np.zeros(3, np.float32), reference).agrees
    assert compare("y", reference.astype(np.float32), reference).agrees


def test_digits_that_float32_cannot_keep_are_not_asked_for() -> None:
    """``(x + 1e6) - 1e6`` keeps two digits in f32, whoever computes it."""
    b = Builder("cancel")
    x = b.input("x", TensorType("float32", ("N", 64)))
    large = b.constant(np.asarray(1e6, np.float32))
    graph = b.build({"y": b(ops.Sub(), b(ops.Add(), x, large), large)})
    report = check_graph(graph, ReferenceSession(graph))
    assert report.agrees
    assert report.differences[0].relative > 10 * WHOLE_MODEL.relative
    assert not check_graph(graph, ReferenceSession(faulty_output(graph, 0.5))).agrees


def faulty_output(graph: Graph, amount: float) -> Graph:
    return replace(graph, outputs=tuple(Node(Off(amount), (v,)).outputs[0] for v in graph.outputs))


def test_integers_must_be_equal() -> None:
    reference = np.array([[1, 5, 3]], np.int32)
    assert compare("y", reference, reference).agrees
    assert not compare("y", reference + 1, reference).agrees


def test_probabilities_must_choose_the_same_class_unless_it_is_a_tie() -> None:
    reference = np.array([[0.2, 0.5, 0.3]])
    # Rounded to half precision the same numbers are 1e-4 off.
    near = np.array([[0.2, 0.49997, 0.30003]], np.float32)
    assert compare("y", near, reference).agrees
    tie = np.array([[0.1, 0.45, 0.45]])
    assert compare("y", np.array([[0.1, 0.44999, 0.45001]], np.float32), tie).agrees
    assert not compare("y", np.array([[0.2, 0.3, 0.5]], np.float32), reference).agrees


def test_values_that_are_not_finite_must_be_the_same() -> None:
    nan, inf = np.nan, np.inf
    assert worst(np.array([nan, inf, -inf, 1.0]), np.array([nan, inf, -inf, 1.0])) == 0
    for y, reference in [(nan, 1.0), (1.0, nan), (inf, -inf), (inf, 1.0), (1.0, inf), (nan, inf)]:
        assert worst(np.array([y]), np.array([reference])) == np.inf


def test_a_wrong_shape_is_no_small_difference() -> None:
    with pytest.raises(VerificationError, match=r"output `y` must have shape \(2,\)\. Received: \(1,\)\."):
        compare("y", np.zeros(1), np.zeros(2))


def test_a_model_without_a_finite_output_cannot_be_verified() -> None:
    b = Builder("nan")
    x = b.input("x", TensorType("float32", ("N", 2)))
    graph = b.build({"y": b(ops.Log(), b(ops.Neg(), b(ops.Exp(), x)))})
    with pytest.raises(VerificationError, match="no output of nan is a finite number on drawn inputs"):
        check_graph(graph, ReferenceSession(graph))


def test_weights_that_are_no_numbers_are_named() -> None:
    b = Builder("net")
    x = b.input("x", TensorType("float32", ("N", 2)))
    broken, whole = b.constant(np.full(2, np.nan, np.float32), "d/bias"), b.constant(np.ones(2, np.float32), "d/kernel")
    graph = b.build({"y": b(ops.Add(), b(ops.Mul(), x, whole), broken)})
    law = "the weights of net must be finite numbers, or no output is one. Received: NaN or infinity in `d/bias`. "
    with pytest.raises(ModelError, match=re.escape(law)):
        check_graph(graph, ReferenceSession(graph))


def test_layers_stand_in_the_order_in_which_they_are_computed() -> None:
    assert [source for source, _ in layer_results(chain(3))] == ["block/tanh_0", "block/tanh_1", "block/tanh_2"]


@pytest.mark.parametrize(("largest", "off", "agrees"), [(5e-5, 1.5e-7, True), (5e-5, 1e-6, False), (1e-6, 2e-8, False)])
def test_saturated_outputs_may_be_off_by_what_engines_round_a_sigmoid_to(
    largest: float, off: float, agrees: bool
) -> None:
    reference = np.array([largest, largest / 2])
    y = (reference + np.array([off, 0])).astype(np.float32)
    assert compare("y", y, reference).agrees == agrees
