"""Configs and weights of all layers: round trips, Keras's order, and which arguments are refused."""

import json
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import Input, layers
from kcompile.frontend.layer import LAYERS, Layer
from kcompile.frontend.layer_configs import deserialize_layer, serialize_layer
from kcompile.frontend.layers.images import RandomImageLayer
from kcompile.frontend.naming import reset_names, unique_name
from tests.frontend.errors import error_of
from tests.frontend.layers.support import weight_names

# The arguments that a layer cannot do without.
NEEDED: dict[str, dict[str, Any]] = {
    "Activation": {"activation": "relu"},
    "Bidirectional": {"layer": layers.LSTM(3)},
    "CategoryEncoding": {"num_tokens": 4},
    "CenterCrop": {"height": 2, "width": 3},
    "CustomScaleLayer": {"scale": 0.2},
    "Discretization": {"bin_boundaries": [0.0, 1.0]},
    "Dot": {"axes": 1},
    "EinsumDense": {"equation": "ab,bc->ac", "output_shape": 3},
    "Embedding": {"input_dim": 4, "output_dim": 2},
    "GroupQueryAttention": {"head_dim": 2, "num_query_heads": 4, "num_key_value_heads": 2},
    "HashedCrossing": {"num_bins": 5},
    "Hashing": {"num_bins": 5},
    "IntegerLookup": {"vocabulary": [3, 5]},
    "LayerScale": {"init_values": 0.1, "projection_dim": 3},
    "MaxNumBoundingBoxes": {"max_number": 3},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 3},
    "Permute": {"dims": (2, 1)},
    "Pipeline": {"layers": [layers.Rescaling(0.5), layers.Dense(3)]},
    "RNN": {"cell": layers.GRUCell(3)},
    "RandomCrop": {"height": 2, "width": 3},
    "RepeatVector": {"n": 3},
    "Rescaling": {"scale": 0.5},
    "Reshape": {"target_shape": (2, -1)},
    "Resizing": {"height": 2, "width": 3},
    "ReversibleEmbedding": {"input_dim": 4, "output_dim": 2},
    "SpectralNormalization": {"layer": layers.Dense(3)},
    "StackedRNNCells": {"cells": [layers.GRUCell(3), layers.LSTMCell(2)]},
    "StochasticDepth": {"drop_path_rate": 0.5},
    "StringLookup": {"vocabulary": ["a", "b"]},
    "TextVectorization": {"vocabulary": ["a", "b"]},
    "TimeDistributed": {"layer": layers.Dense(3)},
}


def arguments_of(name: str) -> dict[str, Any]:
    """Arguments for a layer class by name, guessed by family where the table has none."""
    if name in NEEDED:
        return NEEDED[name]
    if "Conv" in name:
        return {"kernel_size": 3} if name.startswith("Depthwise") else {"filters": 4, "kernel_size": 3}
    if name.startswith("Adaptive"):
        return {"output_size": 2}
    if name.startswith("AveragePooling"):
        return {"pool_size": 2}
    if name.endswith("Dropout") or name.startswith("SpatialDropout"):
        return {"rate": 0.5}
    if name in ("GaussianNoise",):
        return {"stddev": 0.5}
    if name in ("LSTM", "GRU", "SimpleRNN", "Dense") or name.endswith("Cell"):
        return {"units": 3}
    cls = LAYERS[f"keras>{name}"]
    if issubclass(cls, RandomImageLayer):
        fields = getattr(cls, "__dataclass_fields__", {})
        return {argument: 0.2 for argument in ("factor", "height_factor", "width_factor") if argument in fields}
    return {}


OWN = sorted({cls for name, cls in LAYERS.items() if cls.__module__.startswith("kcompile.frontend.layers")}, key=str)


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_every_layer_is_rebuilt_from_its_config(cls: type[Layer]) -> None:
    layer = cls(**arguments_of(cls.__name__))
    spec = serialize_layer(layer)
    again = deserialize_layer(json.loads(json.dumps(spec)))
    assert type(again) is cls
    assert json.dumps(serialize_layer(again)) == json.dumps(spec)


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_every_layer_stands_in_the_public_namespace_under_its_registered_name(cls: type[Layer]) -> None:
    assert getattr(layers, cls.__name__) is cls
    assert LAYERS[f"keras>{cls.__name__}"] is cls


def test_initializers_stand_in_configs_as_keras_writes_them() -> None:
    config = layers.Dense(3, kernel_initializer="he_normal").get_config()
    assert config["kernel_initializer"] == {
        "module": "keras.initializers",
        "class_name": "HeNormal",
        "config": {"seed": None, "input_axes": None, "output_axes": None},
        "registered_name": None,
    }
    assert (
        layers.Dense(3, activation=layers.LeakyReLU(0.1)).get_config()["activation"]["config"]["negative_slope"] == 0.1
    )


WEIGHTS: list[tuple[Any, tuple[int, ...], list[tuple[str, tuple[int, ...]]]]] = [
    (layers.Dense(4), (3,), [("kernel", (3, 4)), ("bias", (4,))]),
    (layers.Conv2D(4, (3, 2), groups=2), (9, 9, 6), [("kernel", (3, 2, 3, 4)), ("bias", (4,))]),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 9, 6), [("kernel", (3, 3, 6, 2)), ("bias", (12,))]),
    (
        layers.SeparableConv1D(4, 3, depth_multiplier=2),
        (9, 6),
        [("depthwise_kernel", (3, 6, 2)), ("pointwise_kernel", (1, 12, 4)), ("bias", (4,))],
    ),
    (layers.Conv2DTranspose(4, 3), (9, 9, 6), [("kernel", (3, 3, 4, 6)), ("bias", (4,))]),
    (
        layers.BatchNormalization(),
        (5, 3),
        [("gamma", (3,)), ("beta", (3,)), ("moving_mean", (3,)), ("moving_variance", (3,))],
    ),
    (
        layers.BatchNormalization(1, scale=False, center=False),
        (5, 3),
        [("moving_mean", (5,)), ("moving_variance", (5,))],
    ),
    (layers.LayerNormalization([1, 2]), (5, 3), [("gamma", (5, 3)), ("beta", (5, 3))]),
    (layers.Normalization(), (5, 3), [("mean", (3,)), ("variance", (3,)), ("count", ())]),
    (layers.LSTM(2), (5, 3), [("kernel", (3, 8)), ("recurrent_kernel", (2, 8)), ("bias", (8,))]),
    (layers.GRU(2), (5, 3), [("kernel", (3, 6)), ("recurrent_kernel", (2, 6)), ("bias", (2, 6))]),
    (layers.GRU(2, reset_after=False), (5, 3), [("kernel", (3, 6)), ("recurrent_kernel", (2, 6)), ("bias", (6,))]),
    (layers.PReLU(shared_axes=[1, 2]), (5, 4, 3), [("alpha", (1, 1, 3))]),
    (layers.SpectralNormalization(layers.Dense(4)), (3,), [("kernel", (3, 4)), ("vector_u", (1, 4)), ("bias", (4,))]),
]


@pytest.mark.parametrize(("layer", "shape", "expected"), WEIGHTS, ids=lambda v: type(v).__name__)
def test_weights_have_the_names_shapes_and_order_of_keras(layer: Layer, shape: Any, expected: Any) -> None:
    layer(Input(shape))
    assert weight_names(layer) == expected


def test_layers_inside_layers_have_the_names_that_files_give_them() -> None:
    x = Input((5, 3))
    both = layers.Bidirectional(layers.LSTM(2))
    both(x)
    assert list(both.sublayers) == ["forward_layer", "backward_layer"]
    assert [layer.name for layer in both.sublayers.values()] == [
        f"forward_{both.layer.name[8:]}",
        both.backward_layer.name,
    ]
    assert list(both.forward_layer.sublayers) == ["cell"]
    heads = layers.MultiHeadAttention(2, 3, use_gate=True)
    heads(x, x)
    assert list(heads.sublayers) == ["query_dense", "key_dense", "_gate_dense", "value_dense", "output_dense"]
    cells = layers.RNN([layers.LSTMCell(2), layers.GRUCell(2), layers.LSTMCell(2)])
    cells(x)
    assert list(cells.cell.sublayers) == ["cells/lstm_cell", "cells/gru_cell", "cells/lstm_cell_1"]


def test_the_forget_gate_of_a_new_lstm_is_open() -> None:
    layer = layers.LSTM(2)
    layer(Input((5, 3)))
    np.testing.assert_array_equal(layer.get_weights()[2], [0, 0, 1, 1, 0, 0, 0, 0])


REFUSED: list[tuple[Any, str]] = [
    (lambda: layers.Dense(0, name="d"), "`units` of layer `d` must be a positive integer. Received: units=0."),
    (
        lambda: layers.Conv2D(4, (3, 3, 3), name="c"),
        "`kernel_size` of layer `c` must be an integer from 1 on or 2 of them. Received: kernel_size=(3, 3, 3).",
    ),
    (
        lambda: layers.Conv2D(4, 3, padding="full", name="c"),
        '`padding` of layer `c` must be "valid" or "same". Received: padding=\'full\'.',
    ),
    (
        lambda: layers.Conv1D(4, 3, 2, dilation_rate=2, name="c"),
        "layer `c` takes strides or a dilation rate above 1, not both. strides=(2,), dilation_rate=(2,).",
    ),
    (
        lambda: layers.Conv2D(4, 3, data_format="nchw", name="c"),
        '`data_format` of layer `c` must be "channels_last" or "channels_first". Received: data_format=\'nchw\'.',
    ),
    (
        lambda: layers.Dropout(1.5, name="d"),
        "`rate` of layer `d` must be a number from 0 to 1. Received: rate=1.5.",
    ),
    (
        lambda: layers.ZeroPadding2D((1, 2, 3), name="z"),
        "`padding` of layer `z` must be an integer from 0 on, 2 of them, or 2 pairs. Received: padding=(1, 2, 3).",
    ),
    (
        lambda: layers.Reshape((-1, -1), name="r"),
        "`target_shape` of layer `r` must be integers, one of them -1. Received: target_shape=(-1, -1).",
    ),
    (
        lambda: layers.Bidirectional(layers.Dense(3), name="b"),
        "layer `b` (Bidirectional) wraps recurrent layers. Received: Dense.",
    ),
    (
        lambda: layers.RNN(layers.Dense(3), name="r"),
        "a cell of layer `r` must be one of Keras's or an UnrolledCell. Received: Dense.",
    ),
    (
        lambda: layers.Normalization(mean=1.0, name="n"),
        "layer `n` takes both `mean` and `variance`, or neither. Received: mean=1.0, variance=None.",
    ),
    (
        lambda: layers.Dense(3)(Input((None,), name="x")),
        "`kernel` of layer `dense` needs known extents. Received: ('T', 3). Give the model's Input a full shape.",
    ),
    (
        lambda: layers.Conv2D(4, 3, name="c")(Input((5, 3))),
        "layer `c` (Conv2D) takes inputs with 4 axes. Received: shape (N, 5, 3).",
    ),
    (
        lambda: layers.Conv2D(4, 3, groups=2, name="c")(Input((5, 5, 3))),
        "`groups` of layer `c` must divide the 3 channels of its input. Received: groups=2.",
    ),
    (
        lambda: layers.Reshape((4, 2), name="r")(Input((5,))),
        "`target_shape` of layer `r` must hold the 5 elements of a sample of f32[N, 5]. Received: target_shape=(4, 2).",
    ),
]


@pytest.mark.parametrize(("make", "text"), REFUSED)
def test_wrong_arguments_are_refused_with_the_law_and_the_layer(make: Any, text: str) -> None:
    reset_names()
    assert error_of(ModelError, make) == text


def test_an_unknown_activation_is_refused_with_those_there_are() -> None:
    text = error_of(ModelError, lambda: layers.Dense(3, "swoosh", name="d"))
    assert text.startswith("`activation` of layer `d` must be one of celu, elu, ")
    assert text.endswith(", or a layer without weights. Received: 'swoosh'.")


def test_an_activation_with_weights_is_refused() -> None:
    text = error_of(ModelError, lambda: layers.Dense(3, layers.PReLU())(Input((4,))))
    assert text == "an activation must have no weights, as PReLU has. Make it a layer of its own."


def test_a_merging_layer_wants_a_list() -> None:
    text = error_of(ModelError, lambda: layers.Add(name="a")(Input((5,))))
    assert text.startswith("layer `a` (Add) takes a list of tensors. Received: Value(f32[N, 5]")


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("Conv2DTranspose", "conv2d_transpose"),
        ("ConvLSTM2D", "conv_lstm2d"),
        ("GRU", "gru"),
        ("SimpleRNNCell", "simple_rnn_cell"),
        ("RMSNormalization", "rms_normalization"),
        ("GlobalAveragePooling1D", "global_average_pooling1d"),
    ],
)
def test_automatic_names_are_those_of_keras(class_name: str, expected: str) -> None:
    reset_names()
    assert [unique_name(class_name) for _ in range(3)] == [expected, f"{expected}_1", f"{expected}_2"]


@pytest.mark.parametrize("layer", [layers.Dense(3, name="l"), layers.Hashing(3, name="l"), layers.Flatten(name="l")])
def test_a_list_for_a_layer_of_one_tensor_is_refused(layer: Layer) -> None:
    text = error_of(ModelError, lambda: layer([Input((4,)), Input((4,))]))
    assert text.endswith(" takes one tensor. Received: several in a list (f32[N, 4], f32[N, 4]).")
