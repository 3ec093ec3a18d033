"""Files of Keras 2: old spellings, old connections, old orders of weights."""

import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kcompile.frontend import Input, Model, Sequential, layers, load_model, model_from_json
from tests.frontend.old_files import dense_weights, functional, layer, sequential, write_groups, write_h5


def only(groups: dict[str, Any], name: str, weight: str) -> np.ndarray:
    return groups[name][f"{name}/{weight}:0"]


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(6, 4)).astype(np.float32)


def test_sequential_whose_config_is_a_bare_list_has_the_input_of_its_first_layer(
    tmp_path: Path, rng: np.random.Generator, x: np.ndarray
) -> None:
    spec = sequential(
        layer("Dense", name="dense_1", units=3, batch_input_shape=[None, 4], dtype="float32"),
        layer("Dense", name="dense_2", units=2),
    )
    spec["config"] = spec["config"]["layers"]
    groups = {"dense_1": dense_weights(rng, "dense_1", 4, 3), "dense_2": dense_weights(rng, "dense_2", 3, 2)}
    model = load_model(write_h5(tmp_path / "m.h5", spec, groups, "2.2.2"))

    assert model.input_names == ["dense_1_input"]
    assert model.input_shape == (None, 4)
    inner = x @ only(groups, "dense_1", "kernel") + only(groups, "dense_1", "bias")
    expected = inner @ only(groups, "dense_2", "kernel") + only(groups, "dense_2", "bias")
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-6)


def test_groups_are_found_by_exact_name_whatever_their_order(
    tmp_path: Path, rng: np.random.Generator, x: np.ndarray
) -> None:
    """Layers named like parts of each other, and like weights."""
    names = ["bias", "bias_1", "kernel"]
    spec = sequential(
        layer("InputLayer", name="in", batch_input_shape=[None, 4]),
        *(layer("Dense", name=name, units=4, activation="tanh") for name in names),
    )
    groups = {name: dense_weights(rng, name, 4, 4) for name in reversed(names)}
    model = load_model(write_h5(tmp_path / "m.h5", spec, groups))
    expected = x
    for name in names:
        expected = np.tanh(expected @ only(groups, name, "kernel") + only(groups, name, "bias"))
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-6)


def nested_model(first_call: int) -> dict[str, Any]:
    """``outer(x) = head(inner(inner(x)))``; references to calls of `inner` start at `first_call`."""
    inner = functional(
        "inner",
        [
            layer("InputLayer", name="inner_in", batch_input_shape=[None, 4]),
            layer("Dense", [["inner_in", 0, 0, {}]], name="dense", units=4),
            layer("BatchNormalization", [["dense", 0, 0, {}]], name="norm", axis=[1], epsilon=0.01),
        ],
        [["inner_in", 0, 0]],
        [["norm", 0, 0]],
    )
    called = {**inner, "name": "inner", "inbound_nodes": [[["x", 0, 0, {}]], [["inner", first_call, 0, {}]]]}
    return functional(
        "outer",
        [
            layer("InputLayer", name="x", batch_input_shape=[None, 4]),
            called,
            layer("Dense", [["inner", first_call + 1, 0, {}]], name="head", units=2),
        ],
        [["x", 0, 0]],
        [["head", 0, 0]],
    )


@pytest.mark.parametrize("first_call", [0, 1])
def test_calls_of_nested_models_are_counted_from_nought_or_one(
    tmp_path: Path, rng: np.random.Generator, x: np.ndarray, first_call: int
) -> None:
    norm = {
        key: rng.uniform(0.5, 1.5, 4).astype(np.float32) for key in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    dense = dense_weights(rng, "dense", 4, 4)
    groups = {
        "x": {},
        "inner": {**dense, **{f"norm/{key}:0": array for key, array in norm.items()}},
        "head": dense_weights(rng, "head", 4, 2),
    }
    model = load_model(write_h5(tmp_path / "m.h5", nested_model(first_call), groups))

    expected = x
    for _ in range(2):
        y = expected @ dense["dense/kernel:0"] + dense["dense/bias:0"]
        scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + 0.01)
        expected = (y - norm["moving_mean"]) * scale + norm["beta"]
    expected = expected @ only(groups, "head", "kernel") + only(groups, "head", "bias")
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)


def test_an_output_may_be_a_nested_model(tmp_path: Path, rng: np.random.Generator, x: np.ndarray) -> None:
    spec = nested_model(1)
    spec["config"]["layers"].pop()
    spec["config"]["output_layers"] = [["inner", 2, 0]]
    ones = {f"norm/{key}:0": np.ones(4, np.float32) for key in ("gamma", "beta", "moving_mean", "moving_variance")}
    identity = {"dense/kernel:0": np.eye(4, dtype=np.float32), "dense/bias:0": np.zeros(4, np.float32)}
    model = load_model(write_h5(tmp_path / "m.h5", spec, {"x": {}, "inner": {**identity, **ones}}))
    assert model.output_names == ["inner"]
    once = (x - 1) / np.sqrt(1.01) + 1
    np.testing.assert_allclose(model.predict(x), (once - 1) / np.sqrt(1.01) + 1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trainable_first", [False, True])
def test_weights_of_a_nested_model_come_in_either_order(
    tmp_path: Path, rng: np.random.Generator, x: np.ndarray, trainable_first: bool
) -> None:
    """Two layers of the same shapes: only the names tell which array is whose."""
    names = ("norm_a", "norm_b")
    keys = ("gamma", "beta", "moving_mean", "moving_variance")
    inner = sequential(
        layer("InputLayer", name="inner_in", batch_input_shape=[None, 4]),
        *(layer("BatchNormalization", name=name, axis=-1, epsilon=0.1) for name in names),
        name="inner",
    )
    spec = sequential(
        layer("InputLayer", name="in", batch_input_shape=[None, 4]), {**inner, "config": {**inner["config"]}}
    )
    paths = [(name, key) for name in names for key in keys]
    if trainable_first:
        paths.sort(key=lambda path: path[1].startswith("moving"))
    arrays = {f"{name}_1/{key}:0": rng.uniform(0.5, 1.5, 4).astype(np.float32) for name, key in paths}
    model = load_model(write_h5(tmp_path / "m.h5", spec, {"inner": arrays}))
    expected = x
    for name in names:
        gamma, beta, mean, variance = (arrays[f"{name}_1/{key}:0"] for key in keys)
        expected = (expected - mean) * gamma / np.sqrt(variance + 0.1) + beta
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)


def gate(spec: dict[str, Any], version: str, tmp_path: Path) -> np.ndarray:
    identity = {"d/kernel:0": np.eye(4, dtype=np.float32), "d/bias:0": np.zeros(4, np.float32)}
    model = load_model(write_h5(tmp_path / f"{version}.h5", spec, {"d": identity}, version))
    return model.predict(np.array([[-2.9, -1.0, 1.0, 2.9]], np.float32))[0]


def test_hard_sigmoid_means_what_it_meant_in_the_files_version(tmp_path: Path) -> None:
    spec = sequential(
        layer("InputLayer", name="in", batch_input_shape=[None, 4]),
        layer("Dense", name="d", units=4, activation="hard_sigmoid"),
    )
    np.testing.assert_allclose(gate(spec, "2.15.0", tmp_path), [0.0, 0.3, 0.7, 1.0], atol=1e-6)
    x = np.array([-2.9, -1.0, 1.0, 2.9])
    np.testing.assert_allclose(gate(spec, "3.0.0", tmp_path), (x + 3) / 6, atol=1e-6)


def test_gru_without_reset_after_resets_before(tmp_path: Path, rng: np.random.Generator) -> None:
    config = {"name": "gru_1", "units": 3, "activation": "tanh", "recurrent_activation": "sigmoid"}
    spec = sequential(layer("GRU", **config, batch_input_shape=[None, 5, 2]))
    shapes = {"kernel": (2, 9), "recurrent_kernel": (3, 9), "bias": (9,)}
    arrays = {f"gru_1/{key}:0": rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    model = load_model(write_h5(tmp_path / "m.h5", spec, {"gru_1": arrays}, "2.1.6"))
    x = rng.normal(size=(2, 5, 2)).astype(np.float32)
    w, u, b = arrays.values()
    h = np.zeros((2, 3))
    for step in range(5):
        a = x[:, step] @ w + b
        z = 1 / (1 + np.exp(-(a[:, :3] + h @ u[:, :3])))
        r = 1 / (1 + np.exp(-(a[:, 3:6] + h @ u[:, 3:6])))
        h = z * h + (1 - z) * np.tanh(a[:, 6:] + (r * h) @ u[:, 6:])
    np.testing.assert_allclose(model.predict(x), h, rtol=1e-4, atol=1e-5)


def test_integer_dtype_of_an_old_embedding_is_its_inputs(tmp_path: Path, rng: np.random.Generator) -> None:
    table = rng.normal(size=(10, 3)).astype(np.float32)
    for version in ("2.0.2", "2.3.0-tf"):
        spec = sequential(
            layer("Embedding", name="e", input_dim=10, output_dim=3, dtype="int32", batch_input_shape=[None, 4])
        )
        model = load_model(write_h5(tmp_path / "m.h5", spec, {"e": {"e/embeddings:0": table}}, version))
        assert model.inputs[0].dtype == "int32"
        ids = np.array([[1, 9, 0, 3]])
        np.testing.assert_array_equal(model.predict(ids), table[ids])


def test_neutral_arguments_that_newer_layers_lack_are_ignored(
    tmp_path: Path, rng: np.random.Generator, x: np.ndarray
) -> None:
    extra = {"bias_lr_multiplier": None, "input_length": 7, "kernel_regularizer": {"class_name": "L1L2", "config": {}}}
    unknown_initializer = {"class_name": "mypkg>Odd", "config": {"dtype": "float32"}}
    spec = sequential(
        layer("InputLayer", name="in", batch_input_shape=[None, 4], sparse=False, ragged=False),
        layer("Dense", name="d", units=3, kernel_initializer=unknown_initializer, **extra),
    )
    groups = {"d": dense_weights(rng, "d", 4, 3)}
    model = load_model(write_h5(tmp_path / "m.h5", spec, groups))
    np.testing.assert_allclose(
        model.predict(x), x @ only(groups, "d", "kernel") + only(groups, "d", "bias"), rtol=1e-5, atol=1e-6
    )


def test_activations_may_be_layers(tmp_path: Path, x: np.ndarray) -> None:
    leaky = {"class_name": "LeakyReLU", "config": {"name": "leaky", "alpha": {"type": "ndarray", "value": 0.25}}}
    spec = sequential(
        layer("InputLayer", name="in", batch_input_shape=[None, 4]), layer("Activation", name="a", activation=leaky)
    )
    model = load_model(write_h5(tmp_path / "m.h5", spec, {"a": {}}))
    np.testing.assert_allclose(model.predict(x), np.where(x > 0, x, 0.25 * x), rtol=1e-6)


def test_constants_and_tensors_among_keyword_arguments_are_understood(tmp_path: Path) -> None:
    spec = functional(
        "m",
        [
            layer("InputLayer", name="a", batch_input_shape=[None, 5, 4]),
            layer("InputLayer", name="h", batch_input_shape=[None, 4]),
            layer("LSTM", [["a", 0, 0, {}], ["h", 0, 0, {}], ["h", 0, 0, {}]], name="by_list", units=4),
            layer("LSTM", [["a", 0, 0, {"initial_state": [["h", 0, 0], ["h", 0, 0]]}]], name="by_name", units=4),
        ],
        [["a", 0, 0], ["h", 0, 0]],
        [["by_list", 0, 0], ["by_name", 0, 0]],
    )
    rng = np.random.default_rng(3)
    shapes = {"kernel": (4, 16), "recurrent_kernel": (4, 16), "bias": (16,)}
    arrays = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    groups = {name: {f"{name}/{key}:0": a for key, a in arrays.items()} for name in ("by_list", "by_name")}
    model = load_model(write_h5(tmp_path / "m.h5", spec, groups))
    x, h = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 4))
    by_list, by_name = model.predict([x, h])
    without = model.predict([x, np.zeros_like(h)])[0]
    np.testing.assert_array_equal(by_list, by_name)
    assert np.abs(by_list - without).max() > 1e-3


def test_names_of_many_weights_are_split_over_attributes(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [f"layer_with_quite_a_long_name_{i}" for i in range(6)]
    spec = sequential(
        layer("InputLayer", name="in", batch_input_shape=[None, 4]),
        *(layer("Dense", name=name, units=4) for name in names),
    )
    groups = {name: dense_weights(rng, name, 4, 4) for name in names}
    path = write_h5(tmp_path / "m.h5", spec, groups)
    whole = load_model(path).get_weights()
    with h5py.File(path, "r+") as root:
        stored = root["model_weights"].attrs
        listed = np.asarray(stored["layer_names"])
        del stored["layer_names"]
        stored["layer_names0"], stored["layer_names1"] = listed[:2], listed[2:]
    for got, expected in zip(load_model(path).get_weights(), whole, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_architecture_and_weights_may_stand_in_two_files(
    tmp_path: Path, rng: np.random.Generator, x: np.ndarray
) -> None:
    spec = sequential(layer("Dense", name="dense_1", units=3, batch_input_shape=[None, 4]))
    groups = {"dense_1": dense_weights(rng, "dense_1", 4, 3)}
    (tmp_path / "m.json").write_text(json.dumps({**spec, "keras_version": "2.0.8", "backend": "tensorflow"}))
    with h5py.File(tmp_path / "w.h5", "w") as root:
        write_groups(root, groups)
    model = load_model(tmp_path / "m.json", weights=tmp_path / "w.h5")
    expected = x @ only(groups, "dense_1", "kernel") + only(groups, "dense_1", "bias")
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-6)
    assert (model.provenance.keras_version, model.provenance.backend) == ("2.0.8", "tensorflow")


def test_weights_alone_go_into_a_model_made_in_python(tmp_path: Path, rng: np.random.Generator, x: np.ndarray) -> None:
    """The names of the layers differ: what counts is their order."""
    groups = {"dense_7": dense_weights(rng, "dense_7", 4, 3), "dense_8": dense_weights(rng, "dense_8", 3, 2)}
    with h5py.File(tmp_path / "w.h5", "w") as root:
        write_groups(root, {"dense_7": groups["dense_7"], "dropout_3": {}, "dense_8": groups["dense_8"]})
    model = Sequential([Input((4,)), layers.Dense(3), layers.Dropout(0.5), layers.Dense(2)])
    model.load_weights(tmp_path / "w.h5")
    inner = x @ only(groups, "dense_7", "kernel") + only(groups, "dense_7", "bias")
    expected = inner @ only(groups, "dense_8", "kernel") + only(groups, "dense_8", "bias")
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-6)


def test_json_of_old_versions_gives_a_model_with_new_weights() -> None:
    spec = sequential(layer("Dense", name="dense_1", units=3, batch_input_shape=[None, 4]))
    model = model_from_json(json.dumps(spec))
    assert isinstance(model, Model)
    assert np.abs(model.get_weights()[0]).max() > 0


def test_networks_that_halve_and_double_open_extents_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = functional(
        "unet",
        [
            layer("InputLayer", name="x", batch_input_shape=[None, None, 2]),
            layer("MaxPooling1D", [["x", 0, 0, {}]], name="half", pool_size=2, strides=2),
            layer("MaxPooling1D", [["half", 0, 0, {}]], name="quarter", pool_size=2, strides=2),
            layer("UpSampling1D", [["quarter", 0, 0, {}]], name="up", size=4),
            layer("Concatenate", [["x", 0, 0, {}], ["up", 0, 0, {}]], name="both", axis=-1),
        ],
        [["x", 0, 0]],
        [["both", 0, 0]],
    )
    model = load_model(write_h5(tmp_path / "m.h5", spec, {}))
    x = rng.normal(size=(3, 8, 2)).astype(np.float32)
    expected = np.concatenate([x, x.reshape(3, 2, 4, 2).max(2).repeat(4, axis=1)], axis=-1)
    np.testing.assert_array_equal(model.predict(x), expected)
    assert str(model.trace().inputs[0].type) == "f32[N, T, 2]"


def test_archives_of_2_13_count_layers_with_weights_twice(
    tmp_path: Path, rng: np.random.Generator, x: np.ndarray
) -> None:
    spec = sequential(
        layer("Dense", name="a", units=3, batch_input_shape=[None, 4]),
        layer("Dropout", name="b", rate=0.5),
        layer("Dense", name="c", units=2),
    )
    first, second = dense_weights(rng, "a", 4, 3), dense_weights(rng, "c", 3, 2)
    data = io.BytesIO()
    with h5py.File(data, "w") as root:
        for stored, arrays in (("dense", first), ("dense_2", second)):
            for number, array in enumerate(arrays.values()):
                root[f"_layer_checkpoint_dependencies/{stored}/vars/{number}"] = array
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.13.1"}))
        archive.writestr("config.json", json.dumps(spec))
        archive.writestr("model.weights.h5", data.getvalue())
    inner = x @ first["a/kernel:0"] + first["a/bias:0"]
    expected = inner @ second["c/kernel:0"] + second["c/bias:0"]
    np.testing.assert_allclose(load_model(tmp_path / "m.keras").predict(x), expected, rtol=1e-5, atol=1e-6)


def call_of(function: str, *connections: Any, kind: str = "TFOpLambda") -> dict[str, Any]:
    return layer(kind, *connections, name="f", function=function, dtype="float32", trainable=True)


TENSORFLOW: dict[str, tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = {
    "power": (call_of("math.pow", ["x", 0, 0, {"y": 3}]), lambda x: x**3),
    "number on the left": (
        call_of("math.subtract", ["_CONSTANT_VALUE", -1, 1.0, {"y": ["x", 0, 0]}]),
        lambda x: 1 - x,
    ),
    "slices": (
        call_of(
            "__operators__.getitem",
            [
                "x",
                0,
                0,
                {
                    "slice_spec": [
                        {"start": None, "stop": None, "step": None},
                        {"start": -2, "stop": None, "step": None},
                    ]
                },
            ],
            kind="SlicingOpLambda",
        ),
        lambda x: x[:, -2:],
    ),
    "reduction": (
        call_of("math.reduce_mean", ["x", 0, 0, {"axis": 1, "keepdims": True}]),
        lambda x: x.mean(1, keepdims=True),
    ),
    "list": (call_of("concat", [["x", 0, 0, {"axis": -1}], ["x", 0, 0, {"axis": -1}]]), lambda x: np.hstack([x, x])),
    "alias": (
        call_of("compat.v1.reduce_sum", ["x", 0, 0, {"axis": 1, "keep_dims": True}]),
        lambda x: x.sum(1, keepdims=True),
    ),
    "condition": (call_of("where", ["x", 0, 0, {"x": 1.0, "y": ["x", 0, 0]}]), lambda x: np.where(x != 0, 1.0, x)),
    "product": (
        call_of("linalg.matmul", ["x", 0, 0, {"b": ["x", 0, 0], "transpose_b": True}]),
        lambda x: x @ x.T,
    ),
    "position": (call_of("math.argmax", ["x", 0, 0, {"axis": 1}]), lambda x: x.argmax(1)),
    "unit vectors": (
        call_of("math.l2_normalize", ["x", 0, 0, {"axis": -1}]),
        lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True)),
    ),
    "running sum": (
        call_of("math.cumsum", ["x", 0, 0, {"axis": 1, "exclusive": True, "reverse": True}]),
        lambda x: np.cumsum(x[:, ::-1], 1)[:, ::-1] - x,
    ),
    "gathered": (call_of("compat.v1.gather", ["x", 0, 0, {"indices": [2, 0], "axis": 1}]), lambda x: x[:, [2, 0]]),
    "padded": (
        call_of("compat.v1.pad", ["x", 0, 0, {"paddings": [[0, 0], [1, 2]], "mode": "REFLECT"}]),
        lambda x: np.pad(x, ((0, 0), (1, 2)), "reflect"),
    ),
    "sorted": (call_of("sort", ["x", 0, 0, {"direction": "DESCENDING"}]), lambda x: -np.sort(-x)),
    "exact gelu": (
        call_of("nn.gelu", ["x", 0, 0, {}]),
        lambda x: np.array([[v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in row] for row in x.tolist()]),
    ),
    "reshape": (call_of("reshape", ["x", 0, 0, {"shape": [-1, 2, 2]}]), lambda x: x.reshape(-1, 2, 2)),
}


@pytest.mark.parametrize("name", TENSORFLOW)
def test_functions_of_tensorflow_stand_in_graphs(name: str, tmp_path: Path, x: np.ndarray) -> None:
    entry, meaning = TENSORFLOW[name]
    source = layer("InputLayer", name="x", batch_input_shape=[None, 4])
    spec = functional("m", [source, entry], [["x", 0, 0]], [["f", 0, 0]])
    model = load_model(write_h5(tmp_path / "m.h5", spec, {}))
    np.testing.assert_allclose(model.predict(x), meaning(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("version", "shape"), [("2.9.0", (2, 4, 4, 3)), ("3.9.0", (2, 8, 6, 3))])
def test_random_crops_resize_what_keras_2_predicts_and_leave_whole_what_keras_3_does(
    version: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    spec = sequential(
        layer("InputLayer", name="in", batch_input_shape=[None, 8, 6, 3]),
        layer("RandomCrop", name="crop", height=4, width=4, seed=None),
    )
    model = model_from_json(json.dumps({**spec, "keras_version": version, "backend": "tensorflow"}))
    x = rng.uniform(size=(2, 8, 6, 3)).astype(np.float32)
    got = model.predict(x)
    assert got.shape == shape
    whole = layers.Resizing(4, 4, crop_to_aspect_ratio=True)
    inputs = Input((8, 6, 3))
    expected = Model(inputs, whole(inputs)).predict(x) if shape[1] == 4 else x
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("implementation", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_locally_connected_layers_keep_their_weights_in_three_layouts(
    implementation: int, data_format: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    first, (places, channels, window, filters) = data_format == "channels_first", (5, 2, 3, 4)
    shape = [None, channels, places] if first else [None, places, channels]
    config = {"filters": filters, "kernel_size": [window], "strides": [2], "padding": "valid", "use_bias": False}
    entry = layer(
        "LocallyConnected1D",
        name="c",
        data_format=data_format,
        implementation=implementation,
        batch_input_shape=shape,
        **config,
    )
    w = rng.normal(size=(2, window, channels, filters)).astype(np.float32)
    whole = np.zeros((places, channels, 2, filters), np.float32)
    for place in range(2):
        whole[2 * place : 2 * place + window, :, place] = w[place]
    counts = np.zeros((places, 2), bool)
    counts[0:3, 0] = counts[2:5, 1] = True
    order = (1, 0, 3, 2) if first else (0, 1, 2, 3)
    counting = np.broadcast_to(counts[:, None, :, None], whole.shape).transpose(order)
    stored = {
        1: (w.transpose(0, 2, 1, 3) if first else w).reshape(2, -1, filters),
        2: np.where(counting, whole.transpose(order), np.float32(9)),
        3: whole.transpose(order).transpose(2, 3, 0, 1)[counting.transpose(2, 3, 0, 1)],
    }[implementation]
    path = write_h5(tmp_path / "m.h5", sequential(entry), {"c": {"c/kernel:0": stored}}, "2.4.0")
    x = rng.normal(size=(3, places, channels)).astype(np.float32)
    expected = np.einsum("npc,pcqf->nqf", x, whole)
    got = load_model(path).predict(x.transpose(0, 2, 1) if first else x)
    np.testing.assert_allclose(got, expected.transpose(0, 2, 1) if first else expected, rtol=1e-4, atol=1e-5)


def test_random_fourier_features(tmp_path: Path, rng: np.random.Generator, x: np.ndarray) -> None:
    arrays = {"kernel_scale": (1,), "unscaled_kernel": (4, 6), "bias": (6,)}
    stored = {f"f/{key}:0": rng.uniform(0.5, 2, shape).astype(np.float32) for key, shape in arrays.items()}
    entry = layer(
        "RandomFourierFeatures",
        name="f",
        output_dim=6,
        kernel_initializer="gaussian",
        scale=None,
        trainable=False,
        batch_input_shape=[None, 4],
    )
    model = load_model(write_h5(tmp_path / "m.h5", sequential(entry), {"f": stored}, "2.4.0"))
    expected = np.cos(x @ stored["f/unscaled_kernel:0"] / stored["f/kernel_scale:0"] + stored["f/bias:0"])
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)
