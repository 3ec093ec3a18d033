"""Recurrent layers against a loop over steps and samples, with masks, states and both directions."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile.errors import ModelError, UnsupportedOp
from kcompile.frontend import Functional, Input, layers
from kcompile.ir import ops
from tests.frontend.errors import error_of
from tests.frontend.layers.support import run, run_with_mask

LENGTH, FEATURES, UNITS = 5, 3, 2


def built(layer: Any, rng: np.random.Generator, features: int = FEATURES) -> Any:
    layer(Input((LENGTH, features)))
    layer.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in layer.weights])
    return layer


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_step(x: np.ndarray, h: np.ndarray, c: np.ndarray, weights: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    kernel, recurrent, bias = (w.astype(float) for w in weights)
    i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def lstm_loop(x: np.ndarray, weights: list[np.ndarray], mask: Any = None, order: Any = None) -> np.ndarray:
    """The output of each step, in the order of the steps."""
    outputs = np.zeros((len(x), LENGTH, UNITS))
    for n in range(len(x)):
        h, c, y = np.zeros(UNITS), np.zeros(UNITS), np.zeros(UNITS)
        for t in order or range(LENGTH):
            if mask is None or mask[n, t]:
                h, c = lstm_step(x[n, t], h, c, weights)
                y = h
            outputs[n, t] = y
    return outputs


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(4, LENGTH, FEATURES)).astype(np.float32)


MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)


def test_an_lstm_repeats_its_step(x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.LSTM(UNITS, return_sequences=True, return_state=True), rng)
    outputs, h, c = run(layer, x)
    expected = lstm_loop(x, layer.get_weights())
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(h, outputs[:, -1])
    assert c.shape == h.shape


def test_masked_steps_keep_the_state_and_repeat_the_output(x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.LSTM(UNITS, return_sequences=True), rng)
    expected = lstm_loop(x, layer.get_weights(), MASK)
    outputs, mask = run_with_mask(layer, x, masks=[MASK])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mask, MASK)
    layer.zero_output_for_mask = True
    np.testing.assert_allclose(run(layer, x, masks=[MASK]), expected * MASK[..., None], rtol=1e-5, atol=1e-6)
    layer.return_sequences = False
    last, mask = run_with_mask(layer, x, masks=[MASK])
    np.testing.assert_allclose(last, (expected * MASK[..., None])[:, -1], rtol=1e-5, atol=1e-6)
    assert mask is None


def test_going_backwards_gives_the_steps_in_the_order_of_the_run(x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.LSTM(UNITS, return_sequences=True, go_backwards=True), rng)
    expected = lstm_loop(x, layer.get_weights(), MASK, range(LENGTH - 1, -1, -1))[:, ::-1]
    np.testing.assert_allclose(run(layer, x, masks=[MASK]), expected, rtol=1e-5, atol=1e-6)
    layer.return_sequences = False
    np.testing.assert_allclose(run(layer, x, masks=[MASK]), expected[:, -1], rtol=1e-5, atol=1e-6)


def test_a_sequence_in_two_parts_equals_the_whole(x: np.ndarray, rng: np.random.Generator) -> None:
    for make in (layers.LSTM, layers.GRU, layers.SimpleRNN):
        layer = built(make(UNITS, return_state=True), rng)
        whole = run(layer, x)
        _, *states = run(layer, x[:, :3])
        parts = run(layer, x[:, 3:], *states)
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_time_may_come_first(x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.LSTM(UNITS, return_sequences=True), rng)
    expected = run(layer, x)
    layer.time_major = True
    np.testing.assert_array_equal(run(layer, x.swapaxes(0, 1).copy()), expected.swapaxes(0, 1))


def test_a_mask_that_is_carried_counts_beside_a_state_only_for_old_files(
    x: np.ndarray, rng: np.random.Generator
) -> None:
    layer = built(layers.GRU(UNITS), rng)
    state = rng.normal(size=(4, UNITS)).astype(np.float32)
    unmasked = run(layer, x, state)
    np.testing.assert_array_equal(run(layer, x, state, masks=[MASK, None]), unmasked)
    layer.masks_with_initial_state = True
    assert (run(layer, x, state, masks=[MASK, None])[1:] != unmasked[1:]).all()


def test_a_gru_of_each_kind_follows_its_formula(x: np.ndarray, rng: np.random.Generator) -> None:
    for reset_after in (True, False):
        layer = built(layers.GRU(UNITS, reset_after=reset_after), rng)
        kernel, recurrent, bias = (w.astype(float) for w in layer.get_weights())
        outer, inner = (bias[0], bias[1]) if reset_after else (bias, np.zeros(3 * UNITS))
        h = np.zeros((4, UNITS))
        for t in range(LENGTH):
            z_in, r_in, g_in = np.split(x[:, t] @ kernel + outer, 3, axis=1)
            z_re, r_re, g_re = np.split(h @ recurrent + inner, 3, axis=1)
            z, r = sigmoid(z_in + z_re), sigmoid(r_in + r_re)
            drive = r * g_re if reset_after else (r * h) @ recurrent[:, 2 * UNITS :]
            h = z * h + (1 - z) * np.tanh(g_in + drive)
        np.testing.assert_allclose(run(layer, x), h, rtol=1e-5, atol=1e-6)


def test_without_a_bias_there_is_none(x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.SimpleRNN(UNITS, use_bias=False), rng)
    kernel, recurrent = layer.get_weights()
    h = np.zeros((4, UNITS))
    for t in range(LENGTH):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent)
    np.testing.assert_allclose(run(layer, x), h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave", None])
def test_bidirectional_merges_both_directions(mode: str | None, x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True), mode), rng)
    weights = layer.get_weights()
    there = lstm_loop(x, weights[:3], MASK) * MASK[..., None]
    back = lstm_loop(x, weights[3:], MASK, range(LENGTH - 1, -1, -1)) * MASK[..., None]
    merge = {
        "concat": lambda: np.concatenate([there, back], axis=-1),
        "sum": lambda: there + back,
        "mul": lambda: there * back,
        "ave": lambda: (there + back) / 2,
        None: lambda: [there, back],
    }
    received = run(layer, x, masks=[MASK])
    for a, b in zip(np.array(received), np.array(merge[mode]()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_stacked_cells_equal_stacked_layers(x: np.ndarray, rng: np.random.Generator) -> None:
    stack = built(layers.RNN([layers.LSTMCell(UNITS), layers.GRUCell(4)], return_sequences=True), rng)
    weights = stack.get_weights()
    first = built(layers.LSTM(UNITS, return_sequences=True), rng)
    second = built(layers.GRU(4, return_sequences=True), rng, UNITS)
    first.set_weights(weights[:3])
    second.set_weights(weights[3:])
    np.testing.assert_allclose(run(stack, x), run(second, run(first, x)), rtol=1e-6)


def test_time_distributed_does_the_same_to_every_step(rng: np.random.Generator) -> None:
    frames = rng.normal(size=(2, 3, 6, 5, 2)).astype(np.float32)
    inner = layers.Conv2D(4, 3)
    together = run(layers.TimeDistributed(inner), frames)
    apart = np.stack([run(inner, frames[:, t]) for t in range(3)], axis=1)
    np.testing.assert_allclose(together, apart, rtol=1e-6)


def test_the_wrong_number_of_states_is_refused() -> None:
    def make() -> Any:
        return layers.LSTM(3, name="l")(Input((5, 2)), initial_state=[Input((3,))])

    assert error_of(ModelError, make) == "layer `l` takes 2 initial states. Received: 1."


def test_directions_must_differ() -> None:
    def make() -> Any:
        return layers.Bidirectional(layers.LSTM(3), backward_layer=layers.LSTM(3), name="b")

    law = "the two layers of `b` must agree in return_sequences and return_state, and differ in go_backwards"
    assert error_of(ModelError, make) == f"{law}. They do not in: go_backwards."


def test_cells_run_one_step(rng: np.random.Generator) -> None:
    cell = layers.LSTMCell(UNITS)
    cell(Input((FEATURES,)), [Input((UNITS,)), Input((UNITS,))])
    cell.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in cell.weights])
    x, h, c = (rng.normal(size=(2, n)).astype(np.float32) for n in (FEATURES, UNITS, UNITS))
    y, h_new, c_new = run_with_mask(cell, x, h, c, as_list=False)[0]
    for n in range(2):
        expected = lstm_step(x[n], h[n], c[n], cell.get_weights())
        np.testing.assert_allclose(y[n], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(c_new[n], expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y, h_new)
    assert math.isfinite(float(c_new.sum()))


def test_a_mask_named_in_the_call_counts_beside_a_state(x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.GRU(UNITS), rng)
    state = rng.normal(size=(4, UNITS)).astype(np.float32)
    model = Functional(
        [inputs := Input((LENGTH, FEATURES)), given := Input((UNITS,)), mask := Input((LENGTH,), dtype="bool")],
        layer(inputs, initial_state=given, mask=mask),
    )
    received = model.predict([x, state, MASK])
    np.testing.assert_allclose(received[0], run(layer, x, state)[0], rtol=1e-6)
    np.testing.assert_array_equal(received[3], np.zeros(UNITS))


def test_the_last_output_of_a_backward_run_is_that_of_the_first_step(x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.LSTM(UNITS, go_backwards=True), rng)
    expected = lstm_loop(x, layer.get_weights(), MASK, range(LENGTH - 1, -1, -1))[:, 0]
    layer.zero_output_for_mask = True
    np.testing.assert_allclose(run(layer, x, masks=[MASK]), expected * MASK[:, :1], rtol=1e-5, atol=1e-6)


def test_bidirectional_passes_the_mask_of_sequences_on(x: np.ndarray) -> None:
    for sequences in (True, False):
        layer = layers.Bidirectional(layers.GRU(UNITS, return_sequences=sequences))
        mask = run_with_mask(layer, x, masks=[MASK])[1]
        assert mask is None if not sequences else (mask == MASK).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_convolutional_lstm_on_single_pixels_is_an_lstm(
    rank: int, backwards: bool, x: np.ndarray, rng: np.random.Generator
) -> None:
    arguments: dict[str, Any] = {"return_sequences": True, "return_state": True, "go_backwards": backwards}
    plain = built(layers.LSTM(UNITS, **arguments), rng)
    layer = getattr(layers, f"ConvLSTM{rank}D")(UNITS, 1, **arguments)
    ones = (1,) * rank
    layer(Input((LENGTH, *ones, FEATURES)))
    kernel, recurrent, bias = plain.get_weights()
    layer.set_weights([kernel.reshape(*ones, *kernel.shape), recurrent.reshape(*ones, *recurrent.shape), bias])
    received = run(layer, x.reshape(4, LENGTH, *ones, FEATURES), masks=[MASK])
    for a, b in zip(received, run(plain, x, masks=[MASK]), strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-5, atol=1e-6)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_gates_may_be_softmaxes_each_by_itself(x: np.ndarray, rng: np.random.Generator) -> None:
    layer = built(layers.LSTM(UNITS, "softmax", "softmax", return_sequences=True), rng)
    kernel, recurrent, bias = (w.astype(float) for w in layer.get_weights())
    h, c = np.zeros((4, UNITS)), np.zeros((4, UNITS))
    received = run(layer, x)
    for t in range(LENGTH):
        i, f, g, o = (softmax(part) for part in np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1))
        c = f * c + i * g
        h = o * softmax(c)
        np.testing.assert_allclose(received[:, t], h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arguments", [{"reset_after": True}, {"reset_after": False}, {"use_bias": False}], ids=str)
def test_steps_of_a_gru_that_are_written_one_by_one_are_those_of_its_op(
    arguments: dict[str, Any], x: np.ndarray, rng: np.random.Generator
) -> None:
    arguments = {**arguments, "return_sequences": True, "return_state": True, "go_backwards": True}
    whole = built(layers.GRU(UNITS, "tanh", **arguments), rng)
    expected = run(whole, x, masks=[MASK])
    whole.cell.recurrent_activation = layers.Activation("sigmoid")
    for got, wanted in zip(run(whole, x, masks=[MASK]), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


class Leaky(layers.UnrolledCell):
    """A cell of a user: the running mean of its input."""

    def state_shapes(self, step: Any) -> Any:
        return [step]

    def step(self, t: Any, x: Any, states: Any) -> Any:
        mean = t(ops.Mul(), t(ops.Add(), states[0], x), t.constant(0.5))
        return mean, (mean,)


def test_a_cell_of_ones_own_runs_step_by_step(x: np.ndarray) -> None:
    received = run(layers.RNN(Leaky(), return_sequences=True), x, masks=[MASK])
    for n in range(4):
        mean, last = np.zeros(FEATURES), np.zeros(FEATURES)
        for t in range(LENGTH):
            if MASK[n, t]:
                mean = last = (mean + x[n, t]) / 2
            np.testing.assert_allclose(received[n, t], last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"go_backwards": True}, {"zero_output_for_mask": True}], ids=str)
def test_an_open_number_of_steps_is_a_loop(arguments: dict[str, Any], x: np.ndarray) -> None:
    layer = layers.RNN(Leaky(), return_sequences=True, return_state=True, **arguments)
    inputs, mask = Input((None, FEATURES)), Input((None,), dtype="bool")
    model = Functional([inputs, mask], list(layer(inputs, mask=mask)))
    assert [node.op.op_name for node in model.trace().nodes].count("scan") == 1
    for got, expected in zip(model.predict([x, MASK]), run(layer, x, masks=[MASK]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_images_in_an_open_number_of_steps(target: str, tmp_path: Path, rng: np.random.Generator) -> None:
    inputs = Input((None, 5, 4, 2), name="x")
    model = Functional(inputs, layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True)(inputs))
    x = rng.normal(size=(2, 4, 5, 4, 2)).astype(np.float32)
    path = tmp_path / ("m.onnx" if target == "onnx" else "m.kcb")
    if target == "tvm":
        text = error_of(UnsupportedOp, lambda: kcompile.compile(model, target, path))
        assert "compiled code has no loops of an open number of steps: fix it with `shapes`" in text
    kcompile.compile(model, target, path, shapes=None if target == "onnx" else {"x": (None, 4, 5, 4, 2)})
    np.testing.assert_allclose(kcompile.load(path).predict(x), model.predict(x), rtol=1e-4, atol=1e-5)
