"""Files of Keras 0.3 and 1: other words, kernels in other layouts, and one array per gate.

Layouts and formulas are those of the layers' own code in Keras 1.2.2 and 0.3.3.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kcompile.errors import ModelError, UnsupportedLayer
from kcompile.frontend import Model, load_model
from tests.frontend.errors import error_of
from tests.frontend.old_files import Groups, layer, sequential, write_groups, write_h5


def old_h5(path: Path, layers: list[dict[str, Any]], groups: Groups, version: str = "1.2.2") -> Path:
    """A Sequential model of Keras 1, whose config is a list; it did not state the backend."""
    entries = [{"class_name": entry["class_name"], "config": entry["config"]} for entry in layers]
    write_h5(path, {"class_name": "Sequential", "config": entries}, groups, version)
    with h5py.File(path, "a") as root:
        del root.attrs["backend"]
    return path


def load(path: Path, layers: list[dict[str, Any]], groups: Groups, version: str = "1.2.2") -> Model:
    return load_model(old_h5(path / "m.h5", layers, groups, version))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def named(name: str, arrays: Mapping[str, np.ndarray], theano: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a layer; TensorFlow ended the names of variables in ``:0``."""
    return {name: {f"{name}_{key}" + ":0" * (not theano): array for key, array in arrays.items()}}


def correlated(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``x: [N, C, H, W]``, ``w: [F, C, h, w]`` slid over it."""
    h, v = w.shape[2:]
    rows, columns = x.shape[2] - h + 1, x.shape[3] - v + 1
    y = np.zeros((len(x), len(w), rows, columns))
    for r in range(rows):
        for c in range(columns):
            y[:, :, r, c] = np.einsum("nchw,fchw->nf", x[:, :, r : r + h, c : c + v], w)
    return y


def assert_close(y: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


CONVOLUTION = {"nb_filter": 4, "nb_row": 2, "nb_col": 3, "border_mode": "valid", "subsample": [1, 1], "bias": True}


@pytest.mark.parametrize("theano", [False, True])
def test_kernels_with_the_filters_first_are_turned_and_those_of_theano_run_backwards(
    tmp_path: Path, rng: np.random.Generator, theano: bool
) -> None:
    config = {**CONVOLUTION, "dim_ordering": "th", "batch_input_shape": [None, 3, 5, 6], "init": "glorot_uniform"}
    w, b, x = normal(rng, 4, 3, 2, 3), normal(rng, 4), normal(rng, 2, 3, 5, 6)
    groups = named("c", {"W": w, "b": b}, theano)
    model = load(tmp_path, [layer("Convolution2D", name="c", activation="relu", **config)], groups)
    expected = correlated(x, w[:, :, ::-1, ::-1] if theano else w) + b[:, None, None]
    assert_close(model.predict(x), np.maximum(expected, 0))


def test_kernels_of_channels_last_stay_as_they_are(tmp_path: Path, rng: np.random.Generator) -> None:
    config = {**CONVOLUTION, "dim_ordering": "tf", "batch_input_shape": [None, 5, 6, 3], "input_dtype": "float32"}
    w, b, x = normal(rng, 2, 3, 3, 4), normal(rng, 4), normal(rng, 2, 5, 6, 3)
    model = load(tmp_path, [layer("Convolution2D", name="c", **config)], named("c", {"W": w, "b": b}))
    expected = correlated(x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1)).transpose(0, 2, 3, 1) + b
    assert_close(model.predict(x), expected)


def test_volumes_with_the_filters_first(tmp_path: Path, rng: np.random.Generator) -> None:
    sizes = {"kernel_dim1": 1, "kernel_dim2": 2, "kernel_dim3": 3}
    config = {"nb_filter": 4, **sizes, "border_mode": "valid", "subsample": [1, 1, 1], "bias": False}
    shape = {"dim_ordering": "th", "batch_input_shape": [None, 3, 2, 5, 6]}
    w, x = normal(rng, 4, 3, 1, 2, 3), normal(rng, 2, 3, 2, 5, 6)
    model = load(tmp_path, [layer("Convolution3D", name="c", **config, **shape)], named("c", {"W": w}))
    slices = [correlated(x[:, :, depth], w[:, :, 0]) for depth in (0, 1)]
    assert_close(model.predict(x), np.stack(slices, axis=2))


@pytest.mark.parametrize("filters_first", [False, True])
@pytest.mark.parametrize("class_name", ["Convolution1D", "AtrousConvolution1D"])
def test_convolution_along_one_axis_was_stored_as_one_over_an_image(
    tmp_path: Path, rng: np.random.Generator, class_name: str, filters_first: bool
) -> None:
    """``[length, 1, in, out]``; before 1.1 ``[out, in, length, 1]``."""
    config = {"nb_filter": 4, "filter_length": 3, "border_mode": "valid", "subsample_length": 1, "input_dim": 2}
    rate = {"atrous_rate": 2} if class_name.startswith("Atrous") else {}
    w, b, x = normal(rng, 3, 2, 4), normal(rng, 4), normal(rng, 2, 9, 2)
    stored = w.transpose(2, 1, 0)[..., None] if filters_first else w[:, None]
    entry = layer(class_name, name="c", batch_input_shape=[None, 9, 2], input_length=9, **config, **rate)
    model = load(tmp_path, [entry], named("c", {"W": stored, "b": b}), "1.0.8" if filters_first else "1.2.0")
    step = rate.get("atrous_rate", 1)
    length = 9 - 2 * step
    expected = sum(x[:, i * step : i * step + length] @ w[i] for i in range(3)) + b
    assert_close(model.predict(x), expected)


@pytest.mark.parametrize("height", [7, 8])
def test_transposed_convolutions_have_the_shape_that_the_file_declares(
    tmp_path: Path, rng: np.random.Generator, height: int
) -> None:
    config = {"nb_filter": 2, "nb_row": 3, "nb_col": 3, "border_mode": "valid", "subsample": [2, 2], "bias": False}
    shapes = {"dim_ordering": "tf", "batch_input_shape": [None, 3, 3, 4], "output_shape": [None, height, 7, 2]}
    w, x = normal(rng, 3, 3, 4, 2), normal(rng, 1, 3, 3, 4)
    model = load(tmp_path, [layer("Deconvolution2D", name="d", **config, **shapes)], named("d", {"W": w}))
    expected = np.zeros((1, height, 7, 2))
    for r in range(3):
        for c in range(3):
            expected[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3] += np.einsum("nc,hwcf->nhwf", x[:, r, c], w)
    assert_close(model.predict(x), expected)


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(0.2 * x + 0.5, 0, 1)


RECURRENT = {
    "inner_activation": "hard_sigmoid",
    "activation": "tanh",
    "inner_init": "orthogonal",
    "dropout_W": 0.1,
    "dropout_U": 0.0,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
}


def gates(rng: np.random.Generator, names: str, inputs: int, units: int) -> dict[str, np.ndarray]:
    shapes = {"W": (inputs, units), "U": (units, units), "b": (units,)}
    return {f"{kind}_{gate}": normal(rng, *shape) for gate in names for kind, shape in shapes.items()}


def lstm_steps(x: np.ndarray, p: Mapping[str, np.ndarray]) -> np.ndarray:
    h = c = np.zeros((len(x), len(p["b_i"])))
    outputs: list[np.ndarray] = []
    for step in range(x.shape[1]):
        total = {gate: x[:, step] @ p[f"W_{gate}"] + h @ p[f"U_{gate}"] + p[f"b_{gate}"] for gate in "icfo"}
        c = hard_sigmoid(total["f"]) * c + hard_sigmoid(total["i"]) * np.tanh(total["c"])
        h = hard_sigmoid(total["o"]) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("joined", [False, True])
def test_lstm_of_one_array_per_gate_or_for_the_gpu(tmp_path: Path, rng: np.random.Generator, joined: bool) -> None:
    """The number of inputs is that of the units: shapes alone do not tell the gates from the whole."""
    parts, x = gates(rng, "icfo", 5, 5), normal(rng, 2, 4, 5)
    arrays = parts
    if joined:
        arrays = {kind: np.concatenate([parts[f"{kind}_{g}"] for g in "ifco"], axis=-1) for kind in "WUb"}
    config = {"output_dim": 5, "return_sequences": True, "batch_input_shape": [None, 4, 5], **RECURRENT}
    entry = layer("LSTM", name="l", consume_less="gpu" if joined else "cpu", forget_bias_init="one", **config)
    assert_close(load(tmp_path, [entry], named("l", arrays)).predict(x), lstm_steps(x, parts))


def test_both_directions_are_joined_each_by_itself(tmp_path: Path, rng: np.random.Generator) -> None:
    forward, backward, x = gates(rng, "icfo", 3, 2), gates(rng, "icfo", 3, 2), normal(rng, 2, 4, 3)
    inner = layer("LSTM", name="l", output_dim=2, return_sequences=True, consume_less="mem", **RECURRENT)
    wrapped = {"class_name": "LSTM", "config": inner["config"]}
    entry = layer("Bidirectional", name="b", layer=wrapped, merge_mode="concat", batch_input_shape=[None, 4, 3])
    arrays = {f"{side}_{key}": a for side, p in (("f", forward), ("b", backward)) for key, a in p.items()}
    expected = [lstm_steps(x, forward), lstm_steps(x[:, ::-1], backward)[:, ::-1]]
    assert_close(load(tmp_path, [entry], named("b", arrays)).predict(x), np.concatenate(expected, axis=-1))


def test_gru_of_one_array_per_gate_resets_before(tmp_path: Path, rng: np.random.Generator) -> None:
    p, x = gates(rng, "zrh", 3, 2), normal(rng, 2, 4, 3)
    entry = layer("GRU", name="g", output_dim=2, return_sequences=False, batch_input_shape=[None, 4, 3], **RECURRENT)
    h = np.zeros((2, 2))
    for step in range(4):
        z, r = (hard_sigmoid(x[:, step] @ p[f"W_{g}"] + h @ p[f"U_{g}"] + p[f"b_{g}"]) for g in "zr")
        new = np.tanh(x[:, step] @ p["W_h"] + (r * h) @ p["U_h"] + p["b_h"])
        h = z * h + (1 - z) * new
    assert_close(load(tmp_path, [entry], named("g", p)).predict(x), h)


@pytest.mark.parametrize("version", ["1.0.3", "1.0.6", "1.0.7", "1.2.2"])
def test_batch_normalization_divides_by_what_its_version_stored(
    tmp_path: Path, rng: np.random.Generator, version: str
) -> None:
    """``running_std`` was the deviation, with epsilon added to it until 1.0.5, and the variance from 1.0.7 on."""
    gamma, beta, mean, x = (normal(rng, *shape) for shape in ((3,), (3,), (3,), (5, 3)))
    spread = np.array([0.2, 0.5, 2.0], np.float32)
    arrays = {"gamma": gamma, "beta": beta, "running_mean": mean, "running_std": spread}
    entry = layer(
        "BatchNormalization", name="n", epsilon=0.01, mode=0, axis=-1, momentum=0.9, batch_input_shape=[None, 3]
    )
    divisor = {"1.0.3": spread + 0.01, "1.0.6": spread}.get(version, np.sqrt(spread + 0.01))
    model = load(tmp_path, [entry], named("n", arrays), version)
    assert_close(model.predict(x), (x - mean) / divisor * gamma + beta)


@pytest.mark.parametrize("mode", [1, 2])
def test_batch_normalization_by_what_training_did_not_average(
    mode: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    entry = layer("BatchNormalization", name="n", mode=mode, axis=-1, epsilon=0.01, batch_input_shape=[None, 3])
    arrays = {name: normal(rng, 3) for name in ("gamma", "beta", "running_mean", "running_std")}
    x = normal(rng, 6, 3)
    spread = np.sqrt(x.var(2 - mode, keepdims=True) + 0.01) + (0.01 if mode == 1 else 0)
    expected = (x - x.mean(2 - mode, keepdims=True)) / spread * arrays["gamma"] + arrays["beta"]
    assert_close(load(tmp_path, [entry], named("n", arrays)).predict(x), expected)


MERGES = {
    "sum": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "ave": lambda a, b: (a + b) / 2,
    "max": np.maximum,
    "concat": lambda a, b: np.concatenate([a, b], axis=-1),
    "dot": lambda a, b: (a * b).sum(-1, keepdims=True),
    "cos": lambda a, b: ((a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))[:, None, None],
}


def dense(name: str, units: int, inputs: int | None = None) -> dict[str, Any]:
    shape = {} if inputs is None else {"batch_input_shape": [None, inputs], "input_dim": inputs}
    return layer("Dense", name=name, output_dim=units, activation="tanh", bias=True, W_regularizer=None, **shape)


@pytest.mark.parametrize("mode", MERGES)
def test_stacks_that_begin_with_a_merge_of_branches(tmp_path: Path, rng: np.random.Generator, mode: str) -> None:
    branches = [
        {"class_name": "Sequential", "config": [dense("d1", 3, 4), layer("Dropout", name="drop", p=0.5)]},
        {"class_name": "Sequential", "config": [dense("d2", 3, 5)]},
    ]
    merge = layer("Merge", name="merge_1", mode=mode, mode_type="raw", concat_axis=-1, dot_axes=[1, 1], layers=branches)
    arrays = {name: (normal(rng, inputs, 3), normal(rng, 3)) for name, inputs in (("d1", 4), ("d2", 5))}
    groups: dict[str, dict[str, np.ndarray]] = {"drop": {}}
    for name, (w, b) in arrays.items():
        groups |= named(name, {"W": w, "b": b})
    model = load(tmp_path, [merge, layer("Activation", name="last", activation="relu")], groups)
    xs = [normal(rng, 6, 4), normal(rng, 6, 5)]
    halves = [np.tanh(x @ w + b) for x, (w, b) in zip(xs, arrays.values(), strict=True)]
    assert model.input_names == ["d1_input", "d2_input"]
    assert_close(model.predict(xs), np.maximum(MERGES[mode](*halves), 0))


def test_merges_by_code_are_refused_by_name(tmp_path: Path) -> None:
    branches = [{"class_name": "Sequential", "config": [dense(name, 3, 4)]} for name in ("a", "b")]
    merge = layer("Merge", name="mix", mode=["4wAA", None, None], mode_type="lambda", layers=branches)
    message = error_of(UnsupportedLayer, lambda: load(tmp_path, [merge], {}))
    assert '@kcompile.register_layer("Lambda:mix")' in message


def test_maxout_and_highway_layers(tmp_path: Path, rng: np.random.Generator) -> None:
    maxout = {"W": normal(rng, 3, 4, 5), "b": normal(rng, 3, 5)}
    highway = {
        key: normal(rng, *shape) for key, shape in (("W", (5, 5)), ("W_carry", (5, 5)), ("b", (5,)), ("b_carry", (5,)))
    }
    entries = [
        layer("MaxoutDense", name="m", output_dim=5, nb_feature=3, init="glorot_uniform", batch_input_shape=[None, 4]),
        layer("Highway", name="h", transform_bias=-2, activation="tanh", init="glorot_uniform"),
    ]
    model = load(tmp_path, entries, {**named("m", maxout), **named("h", highway)})
    x = normal(rng, 6, 4)
    y = np.max([x @ maxout["W"][i] + maxout["b"][i] for i in range(3)], axis=0)
    gate = 1 / (1 + np.exp(-(y @ highway["W_carry"] + highway["b_carry"])))
    assert_close(model.predict(x), gate * np.tanh(y @ highway["W"] + highway["b"]) + (1 - gate) * y)


def test_activations_with_parameters_of_keras_1(tmp_path: Path, rng: np.random.Generator) -> None:
    s = {key: normal(rng, 4) for key in ("t_left", "a_left", "t_right", "a_right")}
    p = {key: normal(rng, 4) for key in ("alphas", "betas")}
    entries = [
        layer("SReLU", name="s", t_left_init="zero", a_left_init="one", batch_input_shape=[None, 4]),
        layer("ParametricSoftplus", name="p", alpha_init=0.2, beta_init=5.0),
    ]
    x = normal(rng, 50, 4) * 3
    y = x.copy()
    for row, column in np.ndindex(x.shape):
        left, right = s["t_left"][column], s["t_left"][column] + abs(s["t_right"][column])
        if x[row, column] >= right:
            y[row, column] = right + s["a_right"][column] * (x[row, column] - right)
        elif x[row, column] <= left:
            y[row, column] = left + s["a_left"][column] * (x[row, column] - left)
    expected = p["alphas"] * np.log1p(np.exp(p["betas"] * y))
    assert_close(load(tmp_path, entries, {**named("s", s), **named("p", p)}).predict(x), expected)


@pytest.mark.parametrize("ordering", ["tf", "th"])
def test_locally_connected_layers_have_other_weights_at_each_place(
    ordering: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    x, first = normal(rng, 2, 5, 6, 3), ordering == "th"
    w, b = normal(rng, 4, 2 * 3 * 3, 4), normal(rng, 2, 2, 4)
    config = {"nb_filter": 4, "nb_row": 2, "nb_col": 3, "subsample": [2, 3], "border_mode": "valid"}
    shape = [None, 3, 5, 6] if first else [None, 5, 6, 3]
    entry = layer("LocallyConnected2D", name="c", dim_ordering=ordering, batch_input_shape=shape, **config)
    expected = np.zeros((2, 2, 2, 4))
    for r, c in np.ndindex(2, 2):
        window = x[:, 2 * r : 2 * r + 2, 3 * c : 3 * c + 3]
        features = (window.transpose(0, 3, 1, 2) if first else window).reshape(2, -1)
        expected[:, r, c] = features @ w[2 * r + c]
    expected = expected.transpose(0, 3, 1, 2) + b.reshape(4, 2, 2) if first else expected + b
    model = load(tmp_path, [entry], named("c", {"W": w, "b": b}))
    assert_close(model.predict(x.transpose(0, 3, 1, 2) if first else x), expected)


def test_embedding_pooling_and_dense_over_time_in_the_words_of_keras_1(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    table, w, b = normal(rng, 7, 3), normal(rng, 3, 2), normal(rng, 2)
    shape = {"batch_input_shape": [None, 6], "input_dtype": "int32", "input_length": 6}
    entries = [
        layer("Embedding", name="e", input_dim=7, output_dim=3, init="uniform", dropout=0.2, mask_zero=False, **shape),
        layer("MaxPooling1D", name="p", pool_length=2, stride=2, border_mode="valid"),
        layer("TimeDistributedDense", name="t", output_dim=2, activation="linear", input_dim=3, bias=True),
        layer("UpSampling1D", name="u", length=2),
        layer("GaussianNoise", name="g", sigma=0.5),
        layer("ZeroPadding1D", name="z", padding={"left_pad": 1, "right_pad": 0}),
    ]
    model = load(tmp_path, entries, {**named("e", {"W": table}), **named("t", {"W": w, "b": b})})
    x = rng.integers(0, 7, (2, 6)).astype(np.int32)
    pooled = table[x].reshape(2, 3, 2, 3).max(2) @ w + b
    assert_close(model.predict(x), np.pad(np.repeat(pooled, 2, axis=1), ((0, 0), (1, 0), (0, 0))))


@pytest.mark.parametrize("strides", [1, 2])
def test_padding_same_of_theano_puts_half_of_each_window_before(
    strides: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    config = {**CONVOLUTION, "border_mode": "same", "subsample": [strides, strides], "dim_ordering": "th"}
    w, b, x = normal(rng, 4, 3, 2, 3), normal(rng, 4), normal(rng, 2, 3, 5, 6)
    entry = layer("Convolution2D", name="c", batch_input_shape=[None, 3, 5, 6], **config)
    model = load(tmp_path, [entry], named("c", {"W": w, "b": b}, theano=True))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 1)))
    expected = correlated(padded, w[:, :, ::-1, ::-1])[:, :, ::strides, ::strides] + b[:, None, None]
    assert_close(model.predict(x), expected)


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (5, 2), (3, 4), (1, 2)])
def test_padding_same_of_transposed_convolutions_on_theano_is_that_of_the_gradient(
    window: int, stride: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    w, x = normal(rng, window, window, 2, 3), normal(rng, 2, 4, 3, 3)
    config = {"filters": 2, "kernel_size": [window] * 2, "strides": [stride] * 2, "padding": "same", "use_bias": False}
    entry = layer("Conv2DTranspose", name="d", batch_input_shape=[None, 4, 3, 3], **config)
    path = write_h5(tmp_path / "m.h5", sequential(entry), {"d": {"d/kernel": w}}, "2.2.4", backend="theano")
    expected = np.zeros((2, 4 * stride, 3 * stride, 2), np.float32)
    # Output o of a convolution with half a window before the axis reads inputs from o * stride - window // 2 on.
    for row, column, i, j in np.ndindex(4, 3, window, window):
        y, z = row * stride + i - window // 2, column * stride + j - window // 2
        if 0 <= y < 4 * stride and 0 <= z < 3 * stride:
            expected[:, y, z] += x[:, row, column] @ w[window - 1 - i, window - 1 - j].T
    assert_close(load_model(path).predict(x), expected)


def test_transposed_convolutions_with_even_windows_padded_same_on_theano_are_refused(tmp_path: Path) -> None:
    config = {"filters": 1, "kernel_size": [2, 2], "strides": [2, 2], "padding": "same", "use_bias": False}
    entry = layer("Conv2DTranspose", name="d", batch_input_shape=[None, 4, 3, 3], **config)
    arrays = {"d": {"d/kernel": np.ones((2, 2, 1, 3), np.float32)}}
    path = write_h5(tmp_path / "m.h5", sequential(entry), arrays, "2.2.4", backend="theano")
    assert 'must not pad "same" with even or strided windows' in error_of(ModelError, lambda: load_model(path))


def test_padding_same_of_pooling_on_theano(tmp_path: Path, rng: np.random.Generator) -> None:
    x = normal(rng, 2, 3, 5, 7)
    config = {"border_mode": "same", "dim_ordering": "th", "pool_size": [2, 3], "strides": [2, 2]}
    entries = [
        layer("MaxPooling2D", name="p", batch_input_shape=[None, 3, 5, 7], **config),
        layer("Dense", name="d", output_dim=1, activation="linear"),
    ]
    groups = named("d", {"W": np.ones((4, 1), np.float32), "b": np.zeros(1, np.float32)}, theano=True)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 1)), constant_values=-np.inf)
    pooled = np.array([[padded[:, :, r : r + 2, c : c + 3].max((2, 3)) for c in (0, 2, 4, 6)] for r in (0, 2, 4)])
    assert_close(load(tmp_path, entries, groups).predict(x), pooled.transpose(2, 3, 0, 1).sum(-1, keepdims=True))


def test_a_model_that_pads_as_theano_did_is_not_saved_for_keras_3(tmp_path: Path, rng: np.random.Generator) -> None:
    config = {**CONVOLUTION, "border_mode": "same", "dim_ordering": "th", "batch_input_shape": [None, 3, 5, 6]}
    groups = named("c", {"W": normal(rng, 4, 3, 2, 3), "b": normal(rng, 4)}, theano=True)
    model = load(tmp_path, [layer("Convolution2D", name="c", **config)], groups)
    text = error_of(ModelError, lambda: model.save(tmp_path / "again.keras"))
    assert text.startswith('layer `c` pads "same" as Theano did')


def test_kernels_of_keras_2_on_theano_run_backwards_too(tmp_path: Path, rng: np.random.Generator) -> None:
    w, x = normal(rng, 3, 2, 4), normal(rng, 2, 8, 2)
    entry = layer("Conv1D", name="c", filters=4, kernel_size=[3], use_bias=False, batch_input_shape=[None, 8, 2])
    spec = {"class_name": "Sequential", "config": [{"class_name": "Conv1D", "config": entry["config"]}]}
    path = write_h5(tmp_path / "m.h5", spec, {"c": {"c/kernel": w}}, "2.1.2")
    with h5py.File(path, "a") as root:
        root.attrs["backend"] = b"theano"
    expected = sum(x[:, i : i + 6] @ w[2 - i] for i in range(3))
    assert_close(load_model(path).predict(x), np.asarray(expected))


def test_keras_0_gives_the_class_as_the_name_and_numbers_the_weights(tmp_path: Path, rng: np.random.Generator) -> None:
    """The format of Keras 0.3.3; its default backend was Theano."""
    convolution = {**CONVOLUTION, "name": "Convolution2D", "custom_name": "conv", "dim_ordering": "th"}
    layers = [
        {**convolution, "input_shape": [3, 5, 6], "activation": "linear", "cache_enabled": True},
        {"name": "Activation", "custom_name": "conv", "activation": "relu"},
        {"name": "Flatten", "custom_name": "flatten"},
        {"name": "Dense", "custom_name": "dense", "output_dim": 2, "activation": "linear", "input_dim": None},
    ]
    del convolution["bias"]
    (tmp_path / "a.json").write_text(json.dumps({"name": "Sequential", "layers": layers, "loss": "mse"}))
    w, b, k, c, x = (normal(rng, *s) for s in ((4, 3, 2, 3), (4,), (64, 2), (2,), (2, 3, 5, 6)))
    with h5py.File(tmp_path / "w.h5", "w") as root:
        root.attrs["nb_layers"] = 4
        for number, arrays in enumerate([(w, b), (), (), (k, c)]):
            group = root.create_group(f"layer_{number}")
            group.attrs["nb_params"] = len(arrays)
            for i, array in enumerate(arrays):
                group.create_dataset(f"param_{i}", data=array)
    model = load_model(tmp_path / "a.json", weights=tmp_path / "w.h5")
    inner = np.maximum(correlated(x, w[:, :, ::-1, ::-1]) + b[:, None, None], 0)
    assert [each.name for each in model.layers] == ["conv", "conv_2", "flatten", "dense"]
    assert_close(model.predict(x), inner.reshape(2, -1) @ k + c)


def cudnn_lstm(parts: Mapping[str, np.ndarray], order: str) -> dict[str, np.ndarray]:
    """Keras's gates as cuDNN keeps them: each kernel transposed, the input's in the memory of its old shape."""
    kernels = [np.ravel(parts[f"W_{g}"].T).reshape(parts[f"W_{g}"].shape) for g in order]
    recurrent = [parts[f"U_{g}"].T for g in order]
    biases = [parts[f"b_{g}"] * 0.25 for g in order] + [parts[f"b_{g}"] * 0.75 for g in order]
    joined = (np.concatenate(kernels, axis=1), np.concatenate(recurrent, axis=1), np.concatenate(biases))
    return dict(zip(("kernel", "recurrent_kernel", "bias"), joined, strict=True))


@pytest.mark.parametrize("class_name", ["CuDNNLSTM", "LSTM"])
def test_weights_of_cudnn_are_read_whichever_class_the_model_names(
    tmp_path: Path, rng: np.random.Generator, class_name: str
) -> None:
    parts, x = gates(rng, "ifco", 3, 2), normal(rng, 2, 4, 3)
    config = {"units": 2, "batch_input_shape": [None, 4, 3]}
    entry = {"class_name": class_name, "config": {"name": "l", **config}}
    arrays = {f"l/{key}:0": array for key, array in cudnn_lstm(parts, "ifco").items()}
    path = write_h5(tmp_path / "m.h5", {"class_name": "Sequential", "config": [entry]}, {"l": arrays}, "2.2.4")
    h = c = np.zeros((2, 2))
    for step in range(4):
        i, f, g, o = (x[:, step] @ parts[f"W_{n}"] + h @ parts[f"U_{n}"] + parts[f"b_{n}"] for n in "ifco")
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    assert_close(load_model(path).predict(x), h)


def test_gru_of_cudnn_resets_after_with_two_biases(tmp_path: Path, rng: np.random.Generator) -> None:
    parts, x = gates(rng, "zrh", 3, 2), normal(rng, 2, 4, 3)
    entry = {"class_name": "CuDNNGRU", "config": {"name": "g", "units": 2, "batch_input_shape": [None, 4, 3]}}
    arrays = {f"g/{key}:0": array for key, array in cudnn_lstm(parts, "zrh").items()}
    path = write_h5(tmp_path / "m.h5", {"class_name": "Sequential", "config": [entry]}, {"g": arrays}, "2.2.4")
    h = np.zeros((2, 2))
    for step in range(4):
        inner = {n: x[:, step] @ parts[f"W_{n}"] + parts[f"b_{n}"] * 0.25 for n in "zrh"}
        outer = {n: h @ parts[f"U_{n}"] + parts[f"b_{n}"] * 0.75 for n in "zrh"}
        z, r = (1 / (1 + np.exp(-(inner[n] + outer[n]))) for n in "zr")
        h = z * h + (1 - z) * np.tanh(inner["h"] + r * outer["h"])
    assert_close(load_model(path).predict(x), h)


def test_weights_of_keras_1_go_into_a_model_that_states_its_version(tmp_path: Path, rng: np.random.Generator) -> None:
    """Weights alone stated no version: the architecture's counts."""
    entry = layer("BatchNormalization", name="n", epsilon=0.01, mode=0, axis=-1, batch_input_shape=[None, 3])
    spec = [{"class_name": "BatchNormalization", "config": entry["config"]}]
    text = json.dumps({"class_name": "Sequential", "config": spec, "keras_version": "1.0.4"})
    (tmp_path / "a.json").write_text(text)
    ones, spread, x = np.ones(3, np.float32), np.array([0.2, 0.5, 2.0], np.float32), normal(rng, 4, 3)
    arrays = {"gamma": ones, "beta": 0 * ones, "running_mean": 0 * ones, "running_std": spread}
    with h5py.File(tmp_path / "w.h5", "w") as root:
        write_groups(root, named("n", arrays))
    model = load_model(tmp_path / "a.json", weights=tmp_path / "w.h5")
    assert_close(model.predict(x), x / (spread + 0.01))
