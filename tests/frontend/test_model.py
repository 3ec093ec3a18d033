"""What all models share: names, shapes, weights, tables, predictions."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile.errors import InputError, ModelError
from kcompile.frontend import Functional, Input, Model, Sequential, layers
from kcompile.frontend.naming import reset_names


@pytest.fixture(autouse=True)
def _fresh_names() -> None:
    reset_names()


def two_ended() -> Model:
    """Two inputs in a dict, two outputs in a list."""
    left, right = Input((3,), name="left"), Input((3,), name="right")
    shared = layers.Dense(4, name="shared")
    total = layers.Add(name="total")([shared(left), shared(right)])
    return Model({"left": left, "right": right}, [layers.Dense(2, name="head")(total), total], name="two_ended")


def test_model_of_inputs_and_outputs_is_functional() -> None:
    x = Input((3,))
    assert isinstance(Model(x, layers.Dense(2)(x)), Functional)
    assert isinstance(Model(inputs=x, outputs=layers.Dense(2)(x), name="named"), Functional)


def test_inputs_and_outputs_have_keras_names_and_shapes() -> None:
    model = two_ended()
    assert model.input_names == ["left", "right"]
    assert model.output_names == ["head", "total"]
    assert model.input_shape == {"left": (None, 3), "right": (None, 3)}
    assert model.output_shape == [(None, 2), (None, 4)]
    assert [layer.name for layer in model.layers] == ["left", "right", "shared", "total", "head"]


def test_an_output_that_is_given_twice_gets_a_second_name() -> None:
    x = Input((3,))
    dense = layers.Dense(2, name="head")
    assert Model(x, [dense(x), dense(x)]).output_names == ["head", "head_1"]


def test_outputs_in_a_dict_are_named_by_its_keys() -> None:
    x = Input((3,))
    model = Model(x, {"b": layers.Dense(2)(x), "a": layers.Dense(4)(x)})
    assert model.output_names == ["a", "b"]
    y = model.predict(np.ones((5, 3), np.float32))
    assert {key: value.shape for key, value in y.items()} == {"a": (5, 4), "b": (5, 2)}


def test_predict_takes_dicts_and_lists_and_batches_by_32(rng: np.random.Generator) -> None:
    model = two_ended()
    x = {name: rng.normal(size=(70, 3)) for name in ("right", "left")}
    head, total = model.predict(x)

    w, b, head_w, head_b = (weight.value for weight in model.weights)
    expected = (x["left"] + x["right"]) @ w + 2 * b
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(head, expected @ head_w + head_b, rtol=1e-4, atol=1e-5)
    for other in (model.predict([x["left"], x["right"]]), model.predict(x, batch_size=7)):
        np.testing.assert_allclose(other[0], head, rtol=1e-6, atol=1e-6)


def test_predict_of_no_samples_gives_no_samples() -> None:
    assert two_ended().predict([np.zeros((0, 3))] * 2)[0].shape == (0, 2)


def test_predict_refuses_inputs_of_other_names_numbers_and_lengths() -> None:
    model = two_ended()
    x = np.zeros((4, 3), np.float32)
    for wrong, text in (
        (x, "the model has 2 inputs, so `x` must be a list, tuple or dict of arrays. Received: ndarray."),
        ([x], "the model's inputs are left, right. Received: 1 arrays."),
        (
            {"left": x, "wrong": x},
            "input `right` is missing.\nthe model's inputs are `left`, `right`. Received: `wrong`.",
        ),
        ([x, x[:2]], "all inputs must have the same number of samples. Received: left: (4, 3), right: (2, 3)."),
    ):
        with pytest.raises(InputError) as raised:
            model.predict(wrong)
        assert str(raised.value) == text


def test_weights_are_listed_once_and_set_in_order() -> None:
    model = two_ended()
    assert [w.name for w in model.weights] == ["kernel", "bias", "kernel", "bias"]
    assert model.count_params() == 3 * 4 + 4 + 4 * 2 + 2
    values = [np.full(w.shape, i, np.float32) for i, w in enumerate(model.weights)]
    model.set_weights(values)
    for got, expected in zip(model.get_weights(), values, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_frozen_layers_have_no_trainable_weights() -> None:
    model = Sequential([Input((3,)), layers.Dense(2), layers.BatchNormalization()])
    assert [len(model.trainable_weights), len(model.non_trainable_weights)] == [4, 2]
    model.layers[0].trainable = False
    assert [len(model.trainable_weights), len(model.non_trainable_weights)] == [2, 4]
    model.trainable = False
    assert [len(model.trainable_weights), len(model.non_trainable_weights)] == [0, 6]
    model.layers[1].trainable = True
    assert not model.trainable_weights
    model.trainable = True
    assert [len(model.trainable_weights), len(model.non_trainable_weights)] == [4, 2]
    assert all(layer.trainable for layer in model.layers)


def test_freezing_reaches_the_layers_inside() -> None:
    wrapped = layers.Bidirectional(layers.LSTM(2))
    outer = Sequential([Input((3, 2)), Sequential([Input((3, 2)), wrapped])])
    outer.trainable = False
    assert not any(layer.trainable for layer in (outer.layers[0], wrapped, wrapped.forward_layer))
    wrapped.trainable = outer.layers[0].trainable = True
    assert not outer.trainable_weights
    assert len(outer.layers[0].trainable_weights) == 6


def test_layers_are_found_by_name_and_index() -> None:
    model = two_ended()
    assert model.get_layer("shared") is model.get_layer(index=2) is model.layers[2]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "other"}, "model `two_ended` has no layer `other`. Its layers: left, right, shared, total, head."),
        ({"index": 5}, "model `two_ended` has 5 layers. Received: index=5."),
        ({}, "`get_layer` takes either `name` or `index`. Received: name=None, index=None."),
    ]
    for arguments, text in cases:
        with pytest.raises(ModelError) as raised:
            model.get_layer(**arguments)
        assert str(raised.value) == text


def test_config_gives_an_equal_model(rng: np.random.Generator) -> None:
    model = two_ended()
    other = Functional.from_config(model.get_config())
    other.set_weights(model.get_weights())
    x = [rng.normal(size=(4, 3)), rng.normal(size=(4, 3))]
    assert other.input_names == model.input_names
    for got, expected in zip(other.predict(x), model.predict(x), strict=True):
        np.testing.assert_array_equal(got, expected)


STACK_SUMMARY = """\
Model: "stack"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━┓
┃ Layer (type)             ┃ Output Shape       ┃    Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━┩
│ dense (Dense)            │ (None, 300)        │      2,700 │
├──────────────────────────┼────────────────────┼────────────┤
│ batch_normalization      │ (None, 300)        │      1,200 │
│ (BatchNormalization)     │                    │            │
└──────────────────────────┴────────────────────┴────────────┘
 Total params: 3,900 (15.23 KB)
 Trainable params: 3,300 (12.89 KB)
 Non-trainable params: 600 (2.34 KB)"""

GRAPH_SUMMARY = """\
Model: "two_ended"
┏━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━┓
┃ Layer (type)       ┃ Output Shape     ┃   Param # ┃ Connected to     ┃
┡━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━┩
│ left (InputLayer)  │ (None, 3)        │         0 │ -                │
├────────────────────┼──────────────────┼───────────┼──────────────────┤
│ right (InputLayer) │ (None, 3)        │         0 │ -                │
├────────────────────┼──────────────────┼───────────┼──────────────────┤
│ shared (Dense)     │ (None, 4)        │        16 │ left[0][0],      │
│                    │                  │           │ right[0][0]      │
├────────────────────┼──────────────────┼───────────┼──────────────────┤
│ total (Add)        │ (None, 4)        │         0 │ shared[0][0],    │
│                    │                  │           │ shared[1][0]     │
├────────────────────┼──────────────────┼───────────┼──────────────────┤
│ head (Dense)       │ (None, 2)        │        10 │ total[0][0]      │
└────────────────────┴──────────────────┴───────────┴──────────────────┘
 Total params: 26 (104.00 B)
 Trainable params: 26 (104.00 B)
 Non-trainable params: 0 (0.00 B)"""


def summary_of(model: Model, line_length: int) -> str:
    lines: list[str] = []
    model.summary(line_length=line_length, print_fn=lines.append)
    return "\n".join(lines)


def test_summary_of_a_stack_is_keras_table() -> None:
    model = Sequential([Input((8,)), layers.Dense(300), layers.BatchNormalization()], name="stack")
    assert summary_of(model, 62) == STACK_SUMMARY


def test_summary_of_a_graph_shows_connections() -> None:
    assert summary_of(two_ended(), 72) == GRAPH_SUMMARY


def test_summary_of_an_unbuilt_stack_says_so() -> None:
    text = summary_of(Sequential([layers.Dense(3)], name="waiting"), 60)
    assert "│ dense (Dense)            │ ?                 │         0 │" in text
    assert "│                          │                   │ (unbuilt) │" in text


def test_summary_needs_room() -> None:
    with pytest.raises(ModelError, match="a summary needs a line of at least"):
        summary_of(two_ended(), 10)


def test_a_subclass_without_a_graph_is_refused_with_what_to_do() -> None:
    class Custom(Model):
        pass

    law = "a model is made from layers: kcompile.Model(inputs, outputs), kcompile.Sequential, or a `call`"
    with pytest.raises(ModelError) as raised:
        Custom(name="own")
    assert str(raised.value) == f"{law}. Received: Custom, a subclass that states none of them."


def test_predict_arranges_outputs_and_reads_inputs_as_a_loaded_model_does(tmp_path: Path) -> None:
    a, ids = Input((3,), name="left"), Input((), dtype="int32", name="ids")
    scores = layers.Dense(2)(a)
    model = Model({"first": a, "second": ids}, (scores, [layers.Embedding(4, 2)(ids)]))
    x = {"first": [[1, 2, 3]] * 5, "second": [[0.0], [1.0], [2.0], [3.0], [0.0]]}
    y = model.predict(x)
    assert isinstance(y, tuple)
    model.save(tmp_path / "m.keras")
    loaded = kcompile.load(tmp_path / "m.keras").predict(x)
    np.testing.assert_array_equal(y[0], loaded[0])
    np.testing.assert_array_equal(y[1][0], loaded[1][0])
    for wrong, text in (
        ({**x, "second": [0.5] * 5}, "input `ids` must have dtype int32. Received: float64 with values that int32 "),
        ({**x, "first": [[1, 2]] * 5}, "input `left` must have shape (N, 3). Received: (5, 2)."),
    ):
        for predict in (model.predict, kcompile.load(tmp_path / "m.keras").predict):
            with pytest.raises(InputError, match=re.escape(text)):
                predict(wrong)
