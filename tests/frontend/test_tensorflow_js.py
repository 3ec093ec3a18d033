"""Models of TensorFlow.js: a config, and bytes beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import load_model
from tests.frontend.errors import error_of
from tests.frontend.old_files import layer, sequential


def write(folder: Path, change: Callable[[dict[str, Any]], object] = lambda config: None) -> Path:
    """A dense layer of 8-bit numbers, over two files that are cut in the middle of an array."""
    spec = sequential(layer("Dense", name="d", units=2, batch_input_shape=[None, 3]))
    quantized = {"min": -1.0, "scale": 0.5, "dtype": "uint8"}
    weights = [
        {"name": "d/kernel", "shape": [3, 2], "dtype": "float32", "quantization": quantized},
        {"name": "d/bias", "shape": [2], "dtype": "float32"},
    ]
    config = {
        "format": "layers-model",
        "modelTopology": {"keras_version": "2.2.4-tf", "model_config": spec},
        "weightsManifest": [{"paths": ["a.bin", "b.bin"], "weights": weights}],
    }
    change(config)
    data = np.arange(6, dtype=np.uint8).tobytes() + np.array([10.0, 20.0], "<f4").tobytes()
    (folder / "a.bin").write_bytes(data[:4])
    (folder / "b.bin").write_bytes(data[4:])
    (folder / "model.json").write_text(json.dumps(config))
    return folder / "model.json"


def test_arrays_of_few_bits_are_scaled_and_shards_are_joined(tmp_path: Path) -> None:
    x = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 2]], np.float32)
    kernel = np.array([[-1.0, -0.5], [0.0, 0.5], [1.0, 1.5]])
    model = load_model(write(tmp_path))
    np.testing.assert_allclose(model.predict(x), x @ kernel + [10, 20], rtol=1e-6)
    assert model.provenance.keras_version == "2.2.4-tf"


def manifest(config: dict[str, Any]) -> dict[str, Any]:
    return config["weightsManifest"][0]


WRONG: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (
        lambda c: c.update(weightsManifest=[None]),
        "a group of arrays in model.json must be a dict. Received: None.",
    ),
    (
        lambda c: manifest(c)["weights"][0].update(quantization={"dtype": "uint8", "scale": "x", "min": 0}),
        "`quantization` of array `d/kernel` in model.json must hold a dtype, and `scale` and `min` as numbers. "
        "Received: {'dtype': 'uint8', 'scale': 'x', 'min': 0}.",
    ),
    (lambda c: manifest(c).update(paths=["../a.bin"]), "model.json must name files beside it. Received: '../a.bin'."),
    (
        lambda c: manifest(c).update(paths=["a.bin", "c.bin"]),
        "model.json needs its file of weights c.bin, which must lie beside it.",
    ),
    (
        lambda c: manifest(c)["weights"][1].update(shape=[1 << 40]),
        "the files of model.json must hold array `d/bias` up to byte 4,398,046,511,110. Received: 14.",
    ),
    (
        lambda c: manifest(c)["weights"][0].update(quantization={"dtype": "int64"}),
        "array `d/kernel` in model.json must be of float16, float32, int32, uint8, uint16, bool. Received: 'int64'.",
    ),
    (
        lambda c: c.update(format="graph-model"),
        "model.json must be a layers-model of TensorFlow.js. "
        "Received: format 'graph-model', whose graph has no layers.",
    ),
    (
        lambda c: manifest(c)["weights"].pop(),
        "the weights in model.json must be those of the model:\n  layer `d` has 2 weights. Received: 1 ((3, 2)).",
    ),
]


@pytest.mark.parametrize(("change", "text"), WRONG)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], text: str) -> None:
    path = write(tmp_path, change)
    assert error_of(ModelError, lambda: load_model(path)) == text
