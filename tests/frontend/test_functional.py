"""Graphs of layers: sharing, nesting, masks, symbols, and what is refused."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import Functional, Input, Model, Sequential, layers
from kcompile.frontend.layer import Layer
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Graph, Value
from kcompile.ir.ops.constant import Constant
from tests.frontend.errors import error_of


def constants(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes if isinstance(node.op, Constant)]


def sources(graph: Graph) -> list[str]:
    return [node.source for node in graph.nodes if not isinstance(node.op, Constant)]


@dataclass(eq=False)
class MaskProbe(Layer):
    """The mask of its input as numbers; ones where there is none."""

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        if t.masks[0] is None:
            return t(ops.Full(x.type.shape[:2], 1.0, "float32"))
        return t(ops.Cast("float32"), t.masks[0])


def test_weights_of_a_shared_layer_are_one_constant() -> None:
    a, b = Input((3,)), Input((3,))
    shared = layers.Dense(4, name="shared", use_bias=False)
    graph = Model([a, b], layers.Add(name="add")([shared(a), shared(b)])).trace()
    assert constants(graph) == ["shared/kernel"]
    assert sources(graph) == ["shared", "shared", "add"]


def test_nodes_of_nested_models_carry_their_path() -> None:
    block = Sequential([Input((3,)), layers.Dense(3, name="first"), layers.Dense(3, name="second")], name="block")
    x = Input((3,))
    encoder = Model(x, block(block(x)), name="encoder")
    y = Input((3,))
    graph = Model(y, encoder(y), name="whole").trace()
    assert sorted(constants(graph)) == sorted(
        f"encoder/block/{layer}/{weight}" for layer in ("first", "second") for weight in ("kernel", "bias")
    )
    assert sources(graph) == ["encoder/block/first", "encoder/block/second"] * 2


def test_tracing_copies_no_weights() -> None:
    model = Sequential([Input((300,)), layers.Dense(500)])
    kernel = model.weights[0].value
    arrays = [node.op.value.array for node in model.trace().nodes if isinstance(node.op, Constant)]
    assert any(np.shares_memory(array, kernel) for array in arrays)


def test_a_model_may_have_a_thousand_layers() -> None:
    x = y = Input((8,))
    for _ in range(1000):
        y = layers.Dense(8)(y)
    model = Model(x, y)
    assert len(model.trace().nodes) == 3000
    again = Functional.from_config(model.get_config())
    assert len(again.layers) == 1001


def test_graph_runs_in_the_structure_of_its_outputs(rng: np.random.Generator) -> None:
    x = Input((3,), name="x")
    double = layers.Activation("relu")
    model = Model({"x": x}, {"one": x, "more": (double(x), x)})
    array = rng.normal(size=(2, 3)).astype(np.float32)
    y = model.predict({"x": array})
    assert set(y) == {"one", "more"}
    assert isinstance(y["more"], tuple)
    np.testing.assert_array_equal(y["more"][1], array)


def test_one_output_in_a_list_is_that_output() -> None:
    x = Input((3,))
    assert Model([x], [layers.Dense(2)(x)]).predict(np.zeros((4, 3))).shape == (4, 2)


def test_inner_tensors_may_be_inputs(rng: np.random.Generator) -> None:
    x = Input((3,))
    middle = layers.Dense(4)(x)
    end = layers.Dense(2, name="end")(layers.Activation("relu")(middle))
    whole, head = Model(x, end), Model(middle, end)
    array = rng.normal(size=(5, 3)).astype(np.float32)
    inner = Model(x, middle).predict(array)
    assert head.input_shape == (None, 4)
    assert head.get_layer("end") is whole.get_layer("end")
    np.testing.assert_allclose(head.predict(inner), whole.predict(array), rtol=1e-6)


def test_open_extents_of_several_inputs_get_symbols_of_their_own() -> None:
    a, b = Input((None, 3), name="a"), Input((None, 3), name="b")
    graph = Model([a, b], [layers.Dense(2)(a), layers.Dense(2)(b)]).trace()
    assert [str(t) for t in graph.input_types.values()] == ["f32[N, T1, 3]", "f32[N, T2, 3]"]


def test_open_extents_share_a_symbol_where_the_model_needs_it() -> None:
    a, b = Input((None, 3), name="a"), Input((None, 3), name="b")
    graph = Model([a, b], layers.Add()([a, b])).trace()
    assert [str(t) for t in graph.input_types.values()] == ["f32[N, T, 3]", "f32[N, T, 3]"]


def test_only_those_inputs_share_a_symbol_that_must() -> None:
    query, value, key = (Input((None, 3), name=name) for name in ("q", "v", "k"))
    graph = Model([query, value, key], layers.Attention()([query, value, key])).trace()
    assert [str(t) for t in graph.input_types.values()] == ["f32[N, T1, 3]", "f32[N, T2, 3]", "f32[N, T2, 3]"]


def test_symbols_name_what_the_axes_mean() -> None:
    shapes = {(None, 4): "N, T, 4", (None, None, 3): "N, H, W, 3", (None, None, None, 1): "N, D, H, W, 1"}
    for shape, text in shapes.items():
        x = Input(shape)
        assert str(Model(x, layers.Activation("relu")(x)).trace().inputs[0].type) == f"f32[{text}]"


def test_batch_of_fixed_size_stays_fixed() -> None:
    x = Input((3,), batch_size=4)
    assert str(Model(x, layers.Dense(2)(x)).trace().outputs[0].type) == "f32[4, 2]"


def mask_after(*stack: Layer) -> np.ndarray:
    x = y = Input((5,), dtype="int32")
    for layer in (layers.Embedding(9, 4, mask_zero=True), *stack, MaskProbe()):
        y = layer(y)
    return Model(x, y).predict(np.array([[1, 0, 2, 0, 0]]))[0]


def test_masks_are_carried_as_keras_carries_them() -> None:
    masked, unmasked = [1, 0, 1, 0, 0], [1, 1, 1, 1, 1]
    assert mask_after().tolist() == masked
    assert mask_after(layers.Dropout(0.5), layers.Dense(4), layers.Activation("relu")).tolist() == masked
    assert mask_after(layers.Conv1D(4, 3, padding="same")).tolist() == unmasked
    assert mask_after(layers.LSTM(4, return_sequences=True)).tolist() == masked


def test_masks_go_through_nested_models() -> None:
    x = Input((5, 4))
    carrying = Model(x, layers.Dense(4)(layers.Dropout(0.1)(x)))
    dropping = Sequential([Input((5, 4)), layers.Conv1D(4, 1)])
    assert mask_after(carrying).tolist() == [1, 0, 1, 0, 0]
    assert mask_after(dropping).tolist() == [1, 1, 1, 1, 1]
    inner = Sequential([Input((5,), dtype="int32"), layers.Embedding(9, 4, mask_zero=True)])
    ids = Input((5,), dtype="int32")
    assert Model(ids, MaskProbe()(inner(ids))).predict(np.array([[1, 0, 2, 0, 0]]))[0].tolist() == [1, 0, 1, 0, 0]


def test_a_mask_that_is_given_goes_before_the_carried_one() -> None:
    ids, mask = Input((5,), dtype="int32"), Input((5,), dtype="bool")
    model = Model([ids, mask], MaskProbe()(layers.Embedding(9, 4, mask_zero=True)(ids), mask=mask))
    given = np.array([[True, True, False, False, True]])
    assert model.predict([np.array([[1, 0, 2, 0, 0]]), given])[0].tolist() == [1, 1, 0, 0, 1]


def test_an_output_without_its_input_is_refused() -> None:
    a, b = Input((3,), name="a"), Input((3,), name="b")
    text = (
        "every input that the outputs need must be among the model's inputs. Received: inputs=['a']. "
        "Missing: `b`. Add these tensors to `inputs`."
    )
    assert error_of(ModelError, lambda: Model(a, layers.Add()([a, b]))) == text


def test_layers_of_one_name_are_refused() -> None:
    x = Input((3,), name="x")
    y = layers.Dense(2, name="d")(layers.Dense(2, name="d")(x))
    text = "the layers of model `m` must have names of their own. Received more than one: `d`."
    assert error_of(ModelError, lambda: Model(x, y, name="m")) == text


def test_what_is_no_symbolic_tensor_is_refused() -> None:
    x = Input((3,))
    law = "of model `m` must hold symbolic tensors, as kcompile.Input and layers give"
    text = f"`outputs` {law}. Received: ndarray, Dense."
    assert error_of(ModelError, lambda: Model(x, [np.zeros(3), layers.Dense(2)], name="m")) == text
    text = f"`inputs` {law}. Received: none."
    assert error_of(ModelError, lambda: Model([], x, name="m")) == text


def test_a_nested_model_refuses_inputs_of_another_number_or_shape() -> None:
    inner = Model(x := Input((3,), name="x"), layers.Dense(2)(x), name="inner")
    y, z = Input((4,)), Input((3, 3))
    text = "input `x` of model `inner` must have shape (None, 3). Received: f32[N, 4]."
    assert error_of(ModelError, lambda: inner(y)) == text
    text = "input `x` of model `inner` must have shape (None, 3). Received: f32[N, 3, 3]."
    assert error_of(ModelError, lambda: inner(z)) == text
    text = "model `inner` takes 1 inputs (x). Received: 2."
    assert error_of(ModelError, lambda: inner([x, x])) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "input `x` takes either `shape` or `batch_shape`. Received: shape=None, batch_shape=None."),
        (
            {"shape": (3,), "batch_shape": (None, 3)},
            "input `x` takes either `shape` or `batch_shape`. Received: shape=(3,), batch_shape=(None, 3).",
        ),
        (
            {"shape": 3},
            "`shape` of input `x` must be a tuple of integers and Nones. Received: shape=3.",
        ),
        (
            {"shape": (3, -1)},
            "`shape` of input `x` must be a tuple of integers and Nones. Received: shape=(3, -1).",
        ),
        (
            {"shape": (3,), "dtype": "complex64"},
            "input `x`: `dtype` must be one of float16, float32, float64, int8, int16, int32, int64, uint8, uint16, "
            "uint32, uint64, bool, string. Received: 'complex64'.",
        ),
    ],
)
def test_an_input_without_a_proper_shape_is_refused(arguments: dict[str, Any], text: str) -> None:
    assert error_of(ModelError, lambda: Input(name="x", **arguments)) == text


def test_a_graph_with_a_circle_in_its_config_is_refused() -> None:
    x = Input((3,), name="x")
    second = layers.Dense(3, name="b")
    model = Model(x, second(layers.Dense(3, name="a")(x)), name="m")
    config = model.get_config()
    config["layers"][1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = ["b", 0, 0]
    text = (
        "every layer of model `m` must be reachable from its inputs, without circles. "
        "Received: `a`, `b` wait for results that never come."
    )
    assert error_of(ModelError, lambda: Functional.from_config(config)) == text


def test_a_config_that_reads_a_result_that_is_not_given_is_refused() -> None:
    x = Input((3,), name="x")
    config = Model(x, layers.Dense(3, name="a")(x), name="m").get_config()
    config["output_layers"] = ["a", 0, 4]
    text = "model `m` may read only results that its layers give. Received: result 4 of call 0 of `a`."
    assert error_of(ModelError, lambda: Functional.from_config(config)) == text
