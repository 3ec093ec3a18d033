"""Recurrent layers, wrappers and their masks against Keras."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.layer_oracle import TARGETS, check

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(17)
ELEMENTWISE = ["tanh", "relu", "linear", "sigmoid", "hard_sigmoid", "softsign", "elu", "relu6", "silu", "gelu"]


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def padded(*shape: int) -> np.ndarray:
    """Sequences with steps of zeros at both ends and in between, and one of zeros only."""
    x = floats(*shape)
    x[RNG.random(shape[:2]) > 0.6] = 0
    x[0, 0] = 0
    x[1, -1] = 0
    x[-1] = 0
    return x


@st.composite
def layers(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A recurrent layer's name and arguments."""
    name = draw(st.sampled_from(["LSTM", "GRU", "SimpleRNN"]))
    arguments: dict[str, Any] = {"units": draw(st.integers(1, 5)), "activation": draw(st.sampled_from(ELEMENTWISE))}
    if name != "SimpleRNN":
        arguments["recurrent_activation"] = draw(st.sampled_from(["sigmoid", "hard_sigmoid", "tanh", None]))
    if name == "GRU":
        arguments["reset_after"] = draw(st.booleans())
    for flag in ("use_bias", "return_sequences", "return_state", "go_backwards", "unroll", "zero_output_for_mask"):
        arguments[flag] = draw(st.booleans())
    return name, arguments


@settings(max_examples=40)
@given(layers(), st.booleans())
def test_recurrent_layers_agree_with_and_without_masks(layer: tuple[str, dict[str, Any]], masked: bool) -> None:
    name, arguments = layer
    if arguments["unroll"] and masked:
        # An unrolled layer of Keras never zeroes the outputs of masked steps.
        arguments["zero_output_for_mask"] = False

    def build(L: Any, x: Any) -> Any:
        return getattr(L, name)(**arguments)(L.Masking()(x) if masked else x)

    check(build, padded(4, 6, 3), atol=1e-5)


@settings(max_examples=20)
@given(layers())
def test_recurrent_layers_take_initial_states(layer: tuple[str, dict[str, Any]]) -> None:
    name, arguments = layer
    states = [floats(3, arguments["units"]) for _ in range(2 if name == "LSTM" else 1)]

    def build(L: Any, x: Any, *given: Any) -> Any:
        return getattr(L, name)(**arguments)(x, initial_state=list(given))

    check(build, floats(3, 5, 2), *states, atol=1e-5)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("activation", ["softmax", "log_sigmoid", "soft_shrink"])
def test_activations_of_more_than_one_op_agree(name: str, activation: str) -> None:
    arguments: dict[str, Any] = {"activation": activation, "return_sequences": True, "go_backwards": True}
    if name != "SimpleRNN":
        arguments["recurrent_activation"] = "softmax"
    check(lambda L, x: getattr(L, name)(3, **arguments)(L.Masking()(x)), padded(4, 5, 3), atol=1e-5)


def test_a_mask_that_a_tensor_carries_is_not_used_beside_an_initial_state() -> None:
    def carried(L: Any, x: Any, h: Any) -> Any:
        return L.GRU(3, return_sequences=True)(L.Masking()(x), initial_state=h)

    def named(L: Any, x: Any, m: Any, h: Any) -> Any:
        return L.GRU(3, zero_output_for_mask=True, return_sequences=True)(x, initial_state=h, mask=m)

    check(carried, padded(3, 5, 2), floats(3, 3))
    check(named, floats(3, 5, 2), RNG.random((3, 5)) > 0.5, floats(3, 3))


def test_stacked_layers_pass_states_and_masks_on() -> None:
    def build(L: Any, x: Any) -> Any:
        y = L.Masking()(x)
        y, h, c = L.LSTM(4, return_sequences=True, return_state=True)(y)
        y = L.LSTM(4, return_sequences=True)(y, initial_state=[h, c])
        return L.GRU(3)(y)

    check(build, padded(4, 5, 3))


def test_open_lengths_and_one_step_agree() -> None:
    check(lambda L, x: L.LSTM(3, return_sequences=True)(x), floats(2, 5, 3), shapes=[(None, 3)])
    check(lambda L, x: L.Bidirectional(L.GRU(3))(L.Masking()(x)), padded(3, 5, 3), shapes=[(None, 3)])
    check(lambda L, x: L.GRU(3, return_state=True)(x), floats(2, 1, 3))


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_bidirectional_agrees_in_all_merge_modes(merge_mode: str | None, masked: bool, name: str) -> None:
    for sequences in (False, True):
        for states in (False, True):

            def build(L: Any, x: Any, sequences: bool = sequences, states: bool = states) -> Any:
                layer = getattr(L, name)(4, return_sequences=sequences, return_state=states)
                return L.Bidirectional(layer, merge_mode)(L.Masking()(x) if masked else x)

            check(build, padded(4, 5, 3), targets=list(TARGETS) if states and sequences else [])


def test_bidirectional_takes_its_own_backward_layer_and_states() -> None:
    def build(L: Any, x: Any, *states: Any) -> Any:
        backward = L.LSTM(3, activation="relu", go_backwards=True, return_sequences=True)
        layer = L.Bidirectional(L.LSTM(3, return_sequences=True), backward_layer=backward)
        return layer(x, initial_state=list(states))

    check(build, floats(2, 5, 3), *[floats(2, 3) for _ in range(4)])


def test_masks_pass_through_bidirectional() -> None:
    def build(L: Any, x: Any) -> Any:
        y = L.Bidirectional(L.LSTM(3, return_sequences=True))(L.Masking()(x))
        y = L.Bidirectional(L.GRU(2, return_sequences=True), "sum")(y)
        return [y, L.GlobalAveragePooling1D()(y)]

    x = padded(4, 5, 3)
    x[-1, 0] = 1  # the mean of no steps is NaN
    check(build, x)


@pytest.mark.parametrize(
    "cells",
    [
        lambda L: L.LSTMCell(3),
        lambda L: L.GRUCell(3, reset_after=False, use_bias=False),
        lambda L: L.SimpleRNNCell(3, "relu"),
        lambda L: [L.LSTMCell(3), L.GRUCell(2), L.LSTMCell(4)],
        lambda L: L.StackedRNNCells([L.GRUCell(2), L.SimpleRNNCell(4)]),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_rnn_over_cells_agrees(cells: Any, masked: bool) -> None:
    for sequences in (False, True):
        for states in (False, True):
            for backwards in (False, True):

                def build(
                    L: Any, x: Any, sequences: bool = sequences, states: bool = states, backwards: bool = backwards
                ) -> Any:
                    return L.RNN(cells(L), sequences, states, backwards)(L.Masking()(x) if masked else x)

                check(build, padded(4, 5, 3), targets=list(TARGETS) if sequences and states else [])


def test_a_cell_alone_runs_one_step() -> None:
    check(lambda L, x, h, c: L.LSTMCell(3)(x, [h, c]), floats(2, 4), floats(2, 3), floats(2, 3))
    check(lambda L, x, h: L.GRUCell(3)(x, [h]), floats(2, 4), floats(2, 3))


def test_time_distributed_agrees() -> None:
    check(lambda L, x: L.TimeDistributed(L.Dense(3, "relu"))(x), floats(2, 4, 5))
    check(lambda L, x: L.TimeDistributed(L.Conv2D(3, 2))(x), floats(2, 3, 5, 5, 2))
    check(lambda L, x: L.TimeDistributed(L.Flatten())(x), floats(2, 3, 5, 2))
    check(lambda L, x: L.TimeDistributed(L.LSTM(3))(x), floats(2, 3, 5, 2))
    check(lambda L, x: L.TimeDistributed(L.BatchNormalization())(x), floats(2, 3, 5))
    check(lambda L, x: L.TimeDistributed(L.Dropout(0.5))(x), floats(2, 3, 5))
    check(lambda L, x: L.TimeDistributed(L.GlobalMaxPooling2D())(x), floats(2, 3, 4, 4, 2), shapes=[(None, 4, 4, 2)])


def test_masks_pass_through_and_into_time_distributed() -> None:
    def through(L: Any, x: Any) -> Any:
        return L.LSTM(3, return_sequences=True)(L.TimeDistributed(L.Dense(4))(L.Masking()(x)))

    def into(L: Any, x: Any) -> Any:
        return L.TimeDistributed(L.LSTM(3))(L.Embedding(5, 4, mask_zero=True)(x))

    check(through, padded(4, 5, 3))
    check(into, RNG.integers(0, 5, (2, 3, 4)).astype(np.int32))


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=8)
@given(data=st.data())
def test_convolutional_lstms_agree(rank: int, data: st.DataObject) -> None:
    draw = data.draw
    arguments: dict[str, Any] = {
        "kernel_size": draw(st.integers(1, 3)),
        "strides": draw(st.integers(1, 2)),
        "padding": draw(st.sampled_from(["valid", "same"])),
        "data_format": draw(st.sampled_from(["channels_last", "channels_first"])),
        "activation": draw(st.sampled_from(["tanh", "relu", "softmax"])),
        "recurrent_activation": draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
    }
    for flag in ("use_bias", "return_sequences", "return_state", "go_backwards"):
        arguments[flag] = draw(st.booleans())
    first = arguments["data_format"] == "channels_first"
    if first:
        arguments["activation"] = "tanh"  # softmax there runs along another axis
    extents = (5, 4, 3)[:rank]
    x = floats(2, 3, *((2, *extents) if first else (*extents, 2)))
    # Keras's JAX backend takes no masks here.
    check(lambda L, x: getattr(L, f"ConvLSTM{rank}D")(3, **arguments)(x), x, atol=1e-5)
