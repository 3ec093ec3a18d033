"""Stacks of layers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import Input, InputLayer, Model, Sequential, layers
from tests.frontend.errors import error_of


def product(x: np.ndarray, model: Model) -> np.ndarray:
    """What a stack of linear Dense layers computes."""
    arrays = model.get_weights()
    for kernel, bias in zip(arrays[::2], arrays[1::2], strict=True):
        x = x @ kernel + bias
    return x


ENTRIES: dict[str, Callable[[], list[Any]]] = {
    "input": lambda: [Input((4,)), layers.Dense(3)],
    "input layer": lambda: [InputLayer(shape=(4,)), layers.Dense(3)],
    "input_shape": lambda: [layers.Dense(3, input_shape=(4,))],
    "model": lambda: [Sequential([Input((4,)), layers.Dense(3)])],
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_stack_is_built_as_soon_as_its_input_is_known(entry: str, rng: np.random.Generator) -> None:
    model = Sequential(ENTRIES[entry]())
    model.add(layers.Dense(2))
    x = rng.normal(size=(5, 4)).astype(np.float32)
    assert model.built
    assert model.input_shape == (None, 4)
    assert model.output_shape == (None, 2)
    np.testing.assert_allclose(model.predict(x), product(x, model), rtol=1e-5, atol=1e-6)


def test_stack_without_an_input_waits_for_build() -> None:
    model = Sequential([layers.Dense(3), layers.Dense(2)], name="waiting")
    assert not model.built
    assert model.weights == []
    text = (
        "Sequential model `waiting` does not know its input shape yet. "
        "Put kcompile.Input(shape) first, or call model.build((None, ...))."
    )
    assert error_of(ModelError, model.trace) == text
    model.build((None, 4))
    assert [w.shape for w in model.weights] == [(4, 3), (3,), (3, 2), (2,)]
    assert model.input_shape == (None, 4)


def test_stack_without_an_input_is_built_by_its_first_call() -> None:
    inner = Sequential([layers.Dense(3)])
    x = Input((7,))
    outer = Model(x, inner(x))
    assert inner.built
    assert outer.output_shape == (None, 3)


def test_an_empty_stack_says_so() -> None:
    text = (
        "Sequential model `empty` has no layers yet. Put kcompile.Input(shape) first, or call model.build((None, ...))."
    )
    assert error_of(ModelError, Sequential(name="empty").trace) == text


def test_pop_takes_the_last_layer_off(rng: np.random.Generator) -> None:
    model = Sequential([Input((4,)), layers.Dense(3), layers.Dense(2)])
    last = model.layers[-1]
    assert model.pop() is last
    assert model.output_shape == (None, 3)
    model.add(layers.Dense(5))
    x = rng.normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), product(x, model), rtol=1e-5, atol=1e-6)
    assert last.calls == []


def test_pop_of_an_empty_stack_is_refused() -> None:
    assert error_of(ModelError, Sequential(name="s").pop) == "there is no layer to take off Sequential model `s`."


def test_layers_leave_out_the_input_and_config_holds_it() -> None:
    model = Sequential([Input((4,), name="x"), layers.Dense(3, name="d")], name="s")
    assert [layer.name for layer in model.layers] == ["d"]
    config = model.get_config()
    assert [layer["class_name"] for layer in config["layers"]] == ["InputLayer", "Dense"]
    assert config["build_input_shape"] == (None, 4)
    assert Sequential.from_config(config).input_names == ["x"]


@pytest.mark.parametrize(
    ("stack", "text"),
    [
        (
            [Input((4,)), "dense"],
            "Sequential model `s` takes layers. Received: 'dense' (str).",
        ),
        (
            [Input((4,)), layers.Dense(2, name="d"), layers.Dense(2, name="d")],
            "the layers of Sequential model `s` must have names of their own. Received a second `d`.",
        ),
        (
            [layers.Dense(2), Input((4,), name="x")],
            "an input must be the first layer of Sequential model `s`. Received: `x` after 1 layers.",
        ),
        (
            [Input((4, 3)), layers.Conv2D(2, 3, name="c")],
            "layer `c` (Conv2D) takes inputs with 4 axes. Received: shape (N, 4, 3).",
        ),
    ],
    ids=["no layer", "name taken", "second input", "wrong rank"],
)
def test_what_does_not_fit_on_a_stack_is_refused(stack: list[Any], text: str) -> None:
    assert error_of(ModelError, lambda: Sequential(stack, name="s")) == text


def test_build_of_another_shape_is_refused() -> None:
    model = Sequential([Input((4,)), layers.Dense(2)], name="s")
    model.build((None, 4))
    text = "Sequential model `s` takes inputs of shape (None, 4). Received: (None, 5)."
    assert error_of(ModelError, lambda: model.build((None, 5))) == text
