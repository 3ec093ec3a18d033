"""Files of Keras 3 with weights of 8 bits: the numbers that its quantised layers compute, by formulas of their own."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kcompile
from kcompile.errors import ModelError
from kcompile.frontend import load_model
from tests.frontend.errors import error_of

QUANTIZER = {"class_name": "AbsMaxQuantizer", "config": {"value_range": [-127, 127], "epsilon": 1e-07}}


def quantized_config(activations: bool) -> dict[str, Any]:
    config = {"weight_quantizer": None, "activation_quantizer": QUANTIZER if activations else None}
    return {"module": "keras.quantizers", "class_name": "Int8QuantizationConfig", "config": config}


def write(path: Path, class_name: str, shape: list[Any], arrays: list[np.ndarray], mode: str, **config: Any) -> Path:
    """A Sequential model of one layer whose dtype policy is quantised."""
    policy = {"class_name": "QuantizedDTypePolicy", "config": {"mode": mode, "source_name": "float32"}}
    entry = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": shape, "name": "x"}}
    layer = {"module": "keras.layers", "class_name": class_name, "config": {"name": "q", "dtype": policy, **config}}
    spec = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [entry, layer]}}
    weights = io.BytesIO()
    with h5py.File(weights, "w") as root:
        group = root.create_group(
            {"EinsumDense": "layers/einsum_dense"}.get(class_name, f"layers/{class_name.lower()}")
        )
        for number, array in enumerate(arrays):
            group.create_dataset(f"vars/{number}", data=array)
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("config.json", json.dumps(spec))
        zipped.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        zipped.writestr("model.weights.h5", weights.getvalue())
    return path


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-127, 128, shape).astype(np.int8)


def rows(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs as integers, and their scales."""
    scale = 127 / (np.abs(x).max(axes, keepdims=True) + 1e-7)
    return np.round(x * scale), scale


@pytest.mark.parametrize("activations", [None, True, False])
def test_dense_quantises_each_row_of_its_input(
    tmp_path: Path, rng: np.random.Generator, activations: bool | None
) -> None:
    kernel, bias, scale = integers(rng, 6, 3), rng.normal(size=3), rng.uniform(50, 200, 3)
    config = {} if activations is None else {"quantization_config": quantized_config(activations)}
    arrays = [kernel, bias.astype(np.float32), scale.astype(np.float32)]
    path = write(tmp_path / "m.keras", "Dense", [None, 6], arrays, "int8", units=3, activation="tanh", **config)
    x = (rng.normal(size=(5, 6)) * np.array([[0.01], [1], [3], [100], [0]])).astype(np.float32)
    q, s = (x, 1.0) if activations is False else rows(x.astype(np.float64), (1,))
    expected = np.tanh(q @ kernel / (scale * s) + bias)
    model = load_model(path)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-6)
    artifact = kcompile.compile(model, output=tmp_path / "m.onnx")
    np.testing.assert_allclose(kcompile.load(artifact).predict(x), expected, rtol=1e-4, atol=1e-5)


def test_einsum_quantises_over_all_axes_that_it_sums(tmp_path: Path, rng: np.random.Generator) -> None:
    kernel, bias, scale = integers(rng, 2, 4, 5), rng.normal(size=5), rng.uniform(50, 200, (1, 5, 1))
    arrays = [kernel, bias[:, None].astype(np.float32), scale.astype(np.float32)]
    config = {"equation": "abcd,ced->aeb", "output_shape": [5, 3], "bias_axes": "e"}
    kernel = kernel.transpose(0, 2, 1)
    arrays[0] = kernel
    path = write(tmp_path / "m.keras", "EinsumDense", [None, 3, 2, 4], arrays, "int8", **config)
    x = rng.normal(size=(2, 3, 2, 4)).astype(np.float32)
    q, s = rows(x.astype(np.float64), (2, 3))
    sums = np.einsum("abcd,ced->aeb", q, kernel.astype(np.float64))
    expected = sums / (scale * s[:, :, 0, 0][:, None, :]) + bias[:, None]
    np.testing.assert_allclose(load_model(path).predict(x), expected, rtol=1e-5, atol=1e-5)


def test_embedding_has_a_scale_for_each_row(tmp_path: Path, rng: np.random.Generator) -> None:
    table, scale = integers(rng, 7, 3), rng.uniform(50, 200, 7).astype(np.float32)
    path = write(tmp_path / "m.keras", "Embedding", [None, 4], [table, scale], "int8", input_dim=7, output_dim=3)
    x = rng.integers(0, 7, (2, 4)).astype(np.float32)
    rows_of = x.astype(int)
    expected = table[rows_of] / scale[rows_of][..., None]
    np.testing.assert_allclose(load_model(path).predict(x), expected, rtol=1e-6)


def test_other_quantisations_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "m.keras", "Dense", [None, 6], [], "int4", units=3)
    assert error_of(ModelError, lambda: load_model(path)) == (
        "m.keras uses arguments that kcompile does not know:\n"
        "  layer `m/q` (Dense) is quantised to int4; kcompile reads int8."
    )


def test_saving_a_quantised_model_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = [integers(rng, 6, 3), np.ones(3, np.float32)]
    path = write(tmp_path / "m.keras", "Dense", [None, 6], arrays, "int8", units=3, use_bias=False)
    model = load_model(path)
    assert error_of(ModelError, lambda: model.save(tmp_path / "again.keras")) == (
        "layer `q` is quantised to int8, which kcompile reads and compiles but does not save. "
        "Save the model before `quantize`."
    )
