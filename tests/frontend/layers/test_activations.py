"""Activations against their formulas, element by element."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import activations, layers
from kcompile.frontend.layer import LAYERS, register_layer
from kcompile.frontend.layers.regularization import Dropout
from tests.frontend.errors import error_of
from tests.frontend.layers.support import run

X = np.array([[-8.0, -3.0, -1.0, -0.5, -0.2, 0.0], [0.2, 0.5, 1.0, 2.0, 3.0, 7.0]], np.float32)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

FORMULAS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "relu": lambda x: max(x, 0),
    "relu6": lambda x: min(max(x, 0), 6),
    "leaky_relu": lambda x: x if x >= 0 else 0.2 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "celu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: SELU_SCALE * (x if x > 0 else SELU_ALPHA * (math.exp(x) - 1)),
    "sigmoid": sigmoid,
    "hard_sigmoid": lambda x: min(max(x / 6 + 0.5, 0), 1),
    "hard_sigmoid_v2": lambda x: min(max(0.2 * x + 0.5, 0), 1),
    "sparse_sigmoid": lambda x: min(max(0.5 * (x + 1), 0), 1),
    "log_sigmoid": lambda x: -softplus(-x),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "hard_silu": lambda x: x * min(max(x / 6 + 0.5, 0), 1),
    "hard_swish": lambda x: x * min(max(x / 6 + 0.5, 0), 1),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "tanh": math.tanh,
    "hard_tanh": lambda x: min(max(x, -1), 1),
    "tanh_shrink": lambda x: x - math.tanh(x),
    "hard_shrink": lambda x: x if abs(x) > 0.5 else 0,
    "soft_shrink": lambda x: math.copysign(max(abs(x) - 0.5, 0), x),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + abs(x)),
    "squareplus": lambda x: (x + math.sqrt(x * x + 4)) / 2,
    "sparse_plus": lambda x: 0 if x <= -1 else x if x >= 1 else (x + 1) ** 2 / 4,
    "exponential": math.exp,
    "mish": lambda x: x * math.tanh(softplus(x)),
}


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_elementwise_activations_follow_their_formulas(name: str) -> None:
    expected = [[FORMULAS[name](float(v)) for v in row] for row in X]
    np.testing.assert_allclose(run(layers.Activation(name), X), np.asarray(expected, np.float32), rtol=2e-6, atol=1e-6)


def test_every_name_has_a_test() -> None:
    assert {*FORMULAS, "softmax", "log_softmax", "glu", "sparsemax"} == activations.NAMES


def test_activations_along_the_last_axis_follow_their_formulas() -> None:
    powers = np.exp(X.astype(float))
    shares = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(layers.Activation("softmax"), X), shares, rtol=1e-6)
    np.testing.assert_allclose(run(layers.Activation("log_softmax"), X), np.log(shares), rtol=1e-6)
    gated = [[a * sigmoid(b) for a, b in zip(row[:3], row[3:], strict=True)] for row in X]
    np.testing.assert_allclose(run(layers.Activation("glu"), X), gated, rtol=1e-6)


def test_glu_refuses_an_odd_extent() -> None:
    text = error_of(ModelError, lambda: run(layers.Activation("glu"), X[:, :5]))
    assert text == 'activation "glu" halves the last axis, whose extent must be even. Received: f32[2, 5].'


def test_an_activation_may_be_a_name_a_config_or_a_layer() -> None:
    leaky = {"class_name": "LeakyReLU", "config": {"negative_slope": 0.5}}
    function = {"module": "builtins", "class_name": "function", "config": "relu6", "registered_name": "function"}
    expected = np.where(X >= 0, X, X * np.float32(0.5))
    for spec in (leaky, layers.LeakyReLU(0.5)):
        np.testing.assert_array_equal(run(layers.Activation(spec), X), expected)
    np.testing.assert_array_equal(run(layers.Activation(function), X), np.clip(X, 0, 6))
    np.testing.assert_array_equal(run(layers.Activation(None), X), X)


def test_a_registered_layer_stands_for_a_custom_activation() -> None:
    spec = {"module": "builtins", "class_name": "function", "config": "twice", "registered_name": "mine>twice"}

    @register_layer("mine>twice")
    class Twice(layers.ELU):
        pass

    try:
        np.testing.assert_array_equal(run(layers.Activation(spec), X), run(layers.ELU(), X))
    finally:
        del LAYERS["mine>twice"]
    assert issubclass(Twice, layers.ELU)


def test_a_layer_with_one_op_serves_as_a_recurrent_activation() -> None:
    assert activations.as_op(layers.LeakyReLU(0.5), "here") == layers.LeakyReLU(0.5).elementwise
    text = error_of(ModelError, lambda: activations.as_op(Dropout(0.5), "`activation` of layer `x`"))
    assert text.startswith("`activation` of layer `x` must be one of celu, elu, ")


def test_relu_with_all_its_arguments_is_piecewise_linear() -> None:
    layer = layers.ReLU(max_value=2.5, negative_slope=0.1, threshold=0.4)
    expected = [[min(v, 2.5) if v > 0.4 else 0.1 * (v - 0.4) for v in map(float, row)] for row in X]
    np.testing.assert_allclose(run(layer, X), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(run(layers.ThresholdedReLU(0.5), X), np.where(X > 0.5, X, 0))
