"""Rounding errors of recurrent layers on both targets, against the graph in float64."""

import numpy as np
import pytest

from kcompile.codegen.backends import backend
from kcompile.frontend import Functional, Input, layers
from kcompile.ir.evaluate import evaluate

SHAPE = (30, 24)
LAYERS = {
    "lstm": lambda: layers.LSTM(40, return_sequences=True),
    "hard_lstm": lambda: layers.LSTM(40, return_sequences=True, recurrent_activation="hard_sigmoid"),
    "gru": lambda: layers.GRU(40, return_sequences=True),
    "gru_reset_before": lambda: layers.GRU(40, return_sequences=True, reset_after=False),
    "simple": lambda: layers.SimpleRNN(40, return_sequences=True),
    "both_ways": lambda: layers.Bidirectional(layers.LSTM(19, return_sequences=True)),
}


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, np.ndarray]]:
    """By target and layer: how far native code and ONNX Runtime are off, over rows and batches."""
    x = Input(SHAPE, name="x")
    model = Functional(x, {name: make()(x) for name, make in LAYERS.items()})
    random = np.random.default_rng(3)
    for weight in model.weights:
        shape = np.shape(weight.value)
        if len(shape) == 1 or shape[0] == 2:  # biases: those of forget gates stay near 1
            weight.assign(np.asarray(weight.value) + random.uniform(-0.1, 0.1, shape).astype(np.float32))
        else:
            weight.assign(random.normal(scale=shape[0] ** -0.5, size=shape).astype(np.float32))
    graph = model.trace()
    found: dict[str, dict[str, np.ndarray]] = {}
    batches = [random.normal(size=(rows, *SHAPE)).astype(np.float32) for rows in (1, 1, 1, 1, 9)]
    exact = [evaluate(graph, {"x": batch}, precision="float64") for batch in batches]
    for target in ("tvm", "onnx"):
        session = backend(target).session(graph)
        results = [session.run({"x": batch}) for batch in batches]
        found[target] = {
            name: np.concatenate([(y[name] - true[name]).ravel() for y, true in zip(results, exact, strict=True)])
            for name in graph.output_names
        }
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_native_code_errs_less_than_onnx_runtime(errors: dict[str, dict[str, np.ndarray]], name: str):
    native, peer = errors["tvm"][name], errors["onnx"][name]
    assert 0 < np.sqrt(np.mean(native**2)) < np.sqrt(np.mean(peer**2))
