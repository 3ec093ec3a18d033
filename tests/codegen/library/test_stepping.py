"""Steps of recurrent models: equal to the whole sequence where there are any, refused with a reason where not."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen.library.backend import fixed
from kcompile.codegen.library.step_check import verify_steps
from kcompile.codegen.library.stepping import Step, step_of
from kcompile.errors import VerificationError
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph
from kcompile.ir.passes.pipeline import inference
from tests.codegen.library.test_backend import HERE, manifest, runs_here
from tests.edge.devices import unpacked
from tests.edge.models import build

LENGTH = 7


def graph_of(model: Any) -> Graph:
    return inference(fixed(model.trace(), "here"))


def sequence_model(*stack: Any) -> Any:
    return kcompile.Sequential([kcompile.Input((LENGTH, 4), name="x"), *stack], name="m")


def masked() -> Any:
    tokens = kcompile.Input((LENGTH,), dtype="int32", name="x")
    x = layers.Embedding(9, 6, mask_zero=True)(tokens)
    x = layers.GRU(5, return_sequences=True)(x)
    every = layers.Dense(2, activation="softmax", name="every")(x)
    return kcompile.Model(tokens, [every, layers.Dense(3, name="last")(layers.LSTM(4)(x))], name="m")


STEPPABLE: dict[str, Any] = {
    "stacked lstm": lambda: sequence_model(layers.LSTM(5, return_sequences=True), layers.LSTM(3), layers.Dense(2)),
    "gru": lambda: sequence_model(layers.GRU(5, return_sequences=True), layers.Dense(2, activation="softmax")),
    "gru of old": lambda: sequence_model(layers.GRU(5, reset_after=False)),
    "cells": lambda: sequence_model(layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True)),
    "norms": lambda: sequence_model(
        layers.Conv1D(3, 1), layers.BatchNormalization(), layers.SimpleRNN(4), layers.LayerNormalization()
    ),
    "masked": masked,
}


@pytest.mark.parametrize("name", STEPPABLE)
def test_steps_give_what_the_whole_sequence_gives(name: str):
    graph = graph_of(STEPPABLE[name]())
    step = step_of(graph)
    assert isinstance(step, Step)
    rng = np.random.default_rng(3)
    (source,) = graph.inputs
    shape = source.type.static_shape()
    x = rng.integers(0, 4, shape).astype(np.int32) if len(shape) == 2 else rng.standard_normal(shape, np.float32)
    expected = evaluate(graph, {"x": x})
    states = {name: np.zeros(type.static_shape(), np.float32) for name, type in step.states.items()}
    for t in range(LENGTH):
        outputs = evaluate(step.graph, {"x": x[:, t : t + 1], **states})
        states = {name: outputs[f"next {name}"] for name in states}
        for name in step.sequences:
            np.testing.assert_allclose(outputs[name][:, 0], expected[name][:, t], 1e-4, 1e-5)
    for name in set(expected) - set(step.sequences):
        np.testing.assert_allclose(outputs[name], expected[name], 1e-4, 1e-5)


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        ([layers.Bidirectional(layers.LSTM(3, name="l"), name="both")], "layer `both/backward_l` reads the sequence"),
        ([layers.GRU(3, go_backwards=True, name="back")], "layer `back` reads the sequence from its end"),
        ([layers.Conv1D(3, 3, name="wide"), layers.GRU(3)], "layer `wide` computes a step from others (conv)"),
        (
            [layers.GRU(3, return_sequences=True), layers.GlobalMaxPooling1D(name="most")],
            "layer `most` computes a step from others (reduce_max)",
        ),
    ],
)
def test_what_needs_other_steps_is_refused_with_its_layer(stack: list[Any], reason: str):
    said = step_of(graph_of(sequence_model(*stack)))
    assert isinstance(said, str)
    assert said.startswith(reason)


def test_a_model_without_recurrent_layers_has_no_step():
    assert step_of(graph_of(build("mlp"))) == ""


@runs_here
@pytest.mark.parametrize("weights", ["embedded", "external"])
def test_the_python_loader_takes_steps(weights: str, tmp_path: Path):
    path = kcompile.compile(build("lstm"), f"tvm:{HERE}", tmp_path / "m.kcb", weights=weights).path
    unpacked(path, tmp_path)
    code = (
        "import numpy as np, lstm; s = np.load('samples.npz'); m = lstm.Model(); state = m.start()\n"
        "for t in range(10): y = m.step({'steps': s['in0'][:, t:t + 1]}, state)['scores']\n"
        "assert np.allclose(y, s['out0'], 1e-4, 1e-5); assert abs(state).max() > 0"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_bundle_tells_of_its_step_or_why_it_has_none(tmp_path: Path):
    path = kcompile.compile(build("gru"), "tvm:cortex-m7", tmp_path / "gru.kcb").path
    (state,) = manifest(path)["program"]["step"]["states"]
    assert (state["type"], state["field"][-2:]) == ("f32[1, 20]", "_h")
    model = sequence_model(layers.Bidirectional(layers.LSTM(3), name="both"))
    path = kcompile.compile(model, "tvm:cortex-m7", tmp_path / "both.kcb").path
    assert "reads the sequence from its end" in manifest(path)["program"]["no_step"]
    assert "There is no step function: layer `both" in zipfile.ZipFile(path).read("README.md").decode()


@runs_here
def test_wrong_steps_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def forgetful(step: Any, program: Any, report: Any, name: str) -> None:
        def take(inputs: Any, outputs: Any) -> None:
            program.state[...] = 0
            program(inputs, outputs)

        verify_steps(step, take, report, name)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("kcompile.codegen.library.backend.verify_steps", forgetful)
    with pytest.raises(VerificationError, match=r"^the steps of gru must give what a run gives\. Received: output"):
        kcompile.compile(build("gru"), f"tvm:{HERE}", tmp_path / "m.kcb")
    assert not (tmp_path / "m.kcb").exists()
