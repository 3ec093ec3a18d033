"""Files of Keras 3 with quantised weights: the numbers that its layers compute, by formulas of their own."""

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
from kcompile.frontend.keras_file.packed_layers import as_float8
from kcompile.ir.evaluate import evaluate
from kcompile.ir.expression import lift
from kcompile.ir.graph import Builder
from kcompile.ir.types import TensorType
from tests.frontend.errors import error_of

QUANTIZER = {"class_name": "AbsMaxQuantizer", "config": {"value_range": [-127, 127], "epsilon": 1e-07}}


def quantized_config(activations: bool) -> dict[str, Any]:
    config = {"weight_quantizer": None, "activation_quantizer": QUANTIZER if activations else None}
    return {"module": "keras.quantizers", "class_name": "Int8QuantizationConfig", "config": config}


def write(
    path: Path,
    class_name: str,
    shape: list[Any],
    arrays: list[np.ndarray],
    mode: str,
    version: str = "3.15.1",
    **config: Any,
) -> Path:
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
        zipped.writestr("metadata.json", json.dumps({"keras_version": version}))
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
    config: dict[str, Any] = {} if activations is None else {"quantization_config": quantized_config(activations)}
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


def packed(numbers: np.ndarray, axis: int) -> np.ndarray:
    """Pairs of numbers in bytes, the first in the lower half."""
    even, odd = (np.take(numbers, range(start, numbers.shape[axis], 2), axis) for start in (0, 1))
    missing = [(0, even.shape[i] - odd.shape[i]) for i in range(numbers.ndim)]
    return ((even & 15) | (np.pad(odd, missing) & 15) << 4).astype(np.uint8)


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_dense_of_4_bits_in_groups(target: str, tmp_path: Path, rng: np.random.Generator) -> None:
    kernel, zero = rng.integers(-8, 8, (6, 3)), rng.integers(-8, 8, (3, 3)).astype(np.int8)
    scale, groups = rng.uniform(0.1, 0.2, (3, 3)).astype(np.float32), np.repeat(np.arange(3), 2)
    arrays = [packed(kernel, 1).view(np.int8), np.ones(3, np.float32), scale, zero, groups.astype(np.float32)]
    path = write(tmp_path / "m.keras", "Dense", [None, 6], arrays, "int4/2", units=3)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    expected = x @ ((kernel - zero[groups]) * scale[groups]) + 1
    model = load_model(path)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)
    artifact = tmp_path / ("m.onnx" if target == "onnx" else "m.kcb")
    kcompile.compile(model, target=target, output=artifact)
    np.testing.assert_allclose(kcompile.load(artifact).predict(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inputs", [6, 7])
def test_dense_of_4_bits_before_3_15_has_its_inputs_in_pairs(
    inputs: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    kernel, scale = rng.integers(-8, 8, (inputs, 3)), rng.uniform(5, 9, 3).astype(np.float32)
    arrays = [packed(kernel, 0).view(np.int8), np.ones(3, np.float32), scale]
    path = write(tmp_path / "m.keras", "Dense", [None, inputs], arrays, "int4", "3.12.0", units=3)
    x = rng.normal(size=(4, inputs)).astype(np.float32)
    q, s = rows(x.astype(np.float64), (1,))
    np.testing.assert_allclose(load_model(path).predict(x), q @ kernel / (scale * s) + 1, rtol=1e-5, atol=1e-6)


def test_dense_of_gptq_has_its_outputs_in_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    kernel, zero = rng.integers(0, 16, (3, 6)), rng.integers(0, 16, (3, 2)).astype(np.uint8)
    scale, groups = rng.uniform(0.1, 0.2, (3, 2)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0])
    arrays = [packed(kernel, 0), scale, zero, groups.astype(np.float32)]
    path = write(tmp_path / "m.keras", "Dense", [None, 6], arrays, "gptq/4/3", units=3, use_bias=False)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    expected = x @ ((kernel - zero[:, groups]) * scale[:, groups]).T
    np.testing.assert_allclose(load_model(path).predict(x), expected, rtol=1e-4, atol=1e-4)


def test_float8_rounds_to_three_bits_of_fraction() -> None:
    b = Builder()
    numbers = [0.0, 1.0, 1.06, 1.07, -17.0, 447.0, 500.0, -1e9, 0.0009, 0.001, 2.0**-6 * 1.07, 15.99]
    # The numbers of float8_e4m3fn below 16 are eighths of powers of two; below 2 ** -6, multiples of 2 ** -9.
    expected = [0.0, 1.0, 1.0, 1.125, -16.0, 448.0, 448.0, -448.0, 0.0, 2.0**-9, 2.0**-6 * 1.125, 16.0]
    x, one = lift(b, b.input("x", TensorType("float32", (12,))), b.constant(np.asarray(1, np.float32)))
    graph = b.build([as_float8(x, one).value])
    (got,) = evaluate(graph, {"x": np.array(numbers, np.float32)}).values()
    np.testing.assert_array_equal(got, np.array(expected, np.float32))


def test_other_quantisations_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "m.keras", "Embedding", [None, 6], [], "gptq/4/2", input_dim=3, output_dim=2)
    assert error_of(ModelError, lambda: load_model(path)) == (
        "m.keras uses arguments that kcompile does not know:\n"
        "  layer `m/q` (Embedding) is quantised to gptq/4/2, which kcompile does not read."
    )


def test_saving_a_quantised_model_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = [integers(rng, 6, 3), np.ones(3, np.float32)]
    path = write(tmp_path / "m.keras", "Dense", [None, 6], arrays, "int8", units=3, use_bias=False)
    model = load_model(path)
    assert error_of(ModelError, lambda: model.save(tmp_path / "again.keras")) == (
        "layer `q` is quantised, which kcompile reads and compiles but does not save. Save the model before `quantize`."
    )
