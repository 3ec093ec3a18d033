"""Recurrent layers keep their meaning: states, masks anywhere, both directions, every activation, open lengths."""

import itertools

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import Elementwise
from kcompile.ir.types import TensorType
from tests.codegen.onnx.harness import check, draw

KINDS = (ops.Lstm, ops.Gru, ops.SimpleRnn)
_FEATURES, _UNITS = 3, 5


def recurrent_graph(
    op: ops.Lstm | ops.Gru | ops.SimpleRnn,
    rng: np.random.Generator,
    dtype: str = "float32",
    length: int | str = "T",
    constant_weights: bool = True,
) -> Graph:
    """One recurrent layer on ``x``, with initial states ``s0``, ``s1`` and a ``mask`` where the op takes them."""
    b = Builder("recurrent")
    wide = op.gates * _UNITS
    x = b.input("x", TensorType(dtype, ("N", length, _FEATURES)))
    shapes = [(_FEATURES, wide), (_UNITS, wide), *[(wide,)] * op.biases]
    if constant_weights:
        weights = [
            b.constant((rng.standard_normal(s) * 0.5).astype(dtype), f"layer/w{i}") for i, s in enumerate(shapes)
        ]
    else:
        weights = [b.input(f"w{i}", TensorType(dtype, s)) for i, s in enumerate(shapes)]
    states = [b.input(f"s{i}", TensorType(dtype, ("N", _UNITS))) for i in range(op.states * op.has_initial_state)]
    masks = [b.input("mask", TensorType("bool", ("N", length)))] if op.has_mask else []
    with b.source("encoder/layer"):
        return b.build(b.multi(op, x, *weights, *states, *masks))


def _inputs(graph: Graph, rng: np.random.Generator, **symbols: int) -> dict[str, np.ndarray]:
    arrays = {name: draw(type_, rng, **symbols) for name, type_ in graph.input_types.items()}
    if "mask" in arrays and symbols["N"] > 2:
        arrays["mask"][0] = False  # a row without any valid step
        arrays["mask"][1] = True
    return arrays


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reverse", "initial", "mask", "zero"), list(itertools.product([False, True], repeat=4)))
def test_states_masks_and_directions_mean_what_they_mean(
    kind: type, reverse: bool, initial: bool, mask: bool, zero: bool, rng: np.random.Generator
) -> None:
    op = kind(reverse=reverse, has_initial_state=initial, has_mask=mask, zero_masked_output=zero)
    graph = recurrent_graph(op, rng)
    model = check(graph, _inputs(graph, rng, N=6, T=7))
    assert sum(node.op_type in ("LSTM", "GRU", "RNN") for node in model.graph.node) == 1
    assert "Scan" not in [node.op_type for node in model.graph.node]


def test_a_gru_may_reset_before_the_product(rng: np.random.Generator) -> None:
    for mask in (False, True):
        graph = recurrent_graph(ops.Gru(reset_after=False, has_mask=mask), rng)
        model = check(graph, _inputs(graph, rng, N=4, T=5))
        assert "GRU" in [node.op_type for node in model.graph.node]


def test_a_bias_that_is_filled_in_counts_as_known(rng: np.random.Generator) -> None:
    b = Builder("recurrent")
    x = b.input("x", TensorType("float32", ("N", 4, _FEATURES)))
    weights = [
        draw(TensorType("float32", s), rng) for s in ((_FEATURES, 3 * _UNITS), (_UNITS, 3 * _UNITS), (3 * _UNITS,))
    ]
    zeros = b(ops.Full((3 * _UNITS,)))
    graph = b.build(b.multi(ops.Gru(), x, *(b.constant(w) for w in weights), zeros))
    model = check(graph, _inputs(graph, rng, N=2))
    assert "GRU" in [node.op_type for node in model.graph.node]


NATIVE: list[Elementwise | None] = [
    None,
    ops.Relu(),
    ops.Sigmoid(),
    ops.HardSigmoid(),
    ops.HardSigmoid(0.2),
    ops.Elu(0.7),
    ops.LeakyRelu(0.3),
    ops.Softsign(),
    ops.Softplus(),
]
FOREIGN: list[Elementwise] = [ops.Selu(), ops.Gelu(), ops.Silu(), ops.Sin(), ops.Mish()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", NATIVE, ids=str)
def test_activations_of_onnx_stay_in_one_operator(
    kind: type, activation: Elementwise | None, rng: np.random.Generator
) -> None:
    for op in (kind(activation=activation), kind(activation=ops.Tanh(), recurrent_activation=activation)):
        graph = recurrent_graph(op, rng)
        model = check(graph, _inputs(graph, rng, N=3, T=4))
        assert "Scan" not in [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", FOREIGN, ids=str)
@pytest.mark.parametrize(("mask", "zero"), [(False, False), (True, False), (True, True)])
def test_other_activations_become_a_loop(
    kind: type, activation: Elementwise, mask: bool, zero: bool, rng: np.random.Generator
) -> None:
    op = kind(activation=activation, has_mask=mask, zero_masked_output=zero, has_initial_state=mask, reverse=zero)
    graph = recurrent_graph(op, rng)
    model = check(graph, _inputs(graph, rng, N=3, T=4))
    assert "Scan" in [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("kind", KINDS)
def test_float64_and_weights_that_are_operands_are_computed_in_a_loop(kind: type, rng: np.random.Generator) -> None:
    for mask in (False, True):
        graph = recurrent_graph(kind(has_mask=mask), rng, "float64")
        check(graph, _inputs(graph, rng, N=3, T=4))
        graph = recurrent_graph(kind(has_mask=mask), rng, constant_weights=False)
        check(graph, _inputs(graph, rng, N=3, T=4))
    graph = recurrent_graph(ops.Gru(reset_after=False), rng, "float64")
    check(graph, _inputs(graph, rng, N=3, T=4))


@pytest.mark.parametrize("kind", KINDS)
def test_known_lengths_and_one_step_work(kind: type, rng: np.random.Generator) -> None:
    for mask, length in itertools.product([False, True], [1, 6]):
        graph = recurrent_graph(kind(has_mask=mask), rng, length=length)
        check(graph, _inputs(graph, rng, N=4))


def test_stacked_layers_stay_time_major_between_them(rng: np.random.Generator) -> None:
    b = Builder("stack")
    x = b.input("x", TensorType("float32", ("N", "T", 4)))
    for i in range(3):
        with b.source(f"lstm{i}"):
            weights = [draw(TensorType("float32", s), rng) * np.float32(0.4) for s in ((4, 16), (4, 16), (16,))]
            x, *_ = b.multi(ops.Lstm(), x, *(b.constant(w) for w in weights))
    graph = b.build({"lstm2": x})
    model = check(graph, {"x": draw(TensorType("float32", (2, 5, 4)), rng)})
    assert [node.op_type for node in model.graph.node].count("Transpose") == 2


def test_both_directions_of_a_bidirectional_stack_stay_time_major(rng: np.random.Generator) -> None:
    b = Builder("bidirectional")
    x = b.input("x", TensorType("float32", ("N", "T", 4)))
    for i, features in enumerate((4, 8)):
        with b.source(f"bidirectional{i}"):
            both: list = []
            for reverse in (False, True):
                shapes = ((features, 12), (4, 12), (12,), (12,))
                weights = [draw(TensorType("float32", s), rng) * np.float32(0.4) for s in shapes]
                both.append(b.multi(ops.Gru(reverse=reverse), x, *(b.constant(w) for w in weights))[0])
            x = b(ops.Concat(2), *both)
    model = check(b.build({"y": x}), {"x": draw(TensorType("float32", (3, 6, 4)), rng)})
    assert [node.op_type for node in model.graph.node].count("Transpose") == 2
