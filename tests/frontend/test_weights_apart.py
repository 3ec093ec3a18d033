"""Weights in a file of their own: with an architecture as JSON or YAML, or for a model made in Python."""

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kcompile
from kcompile.errors import MissingExtra, ModelError
from kcompile.frontend import Input, Model, Sequential, layers, load_model
from tests.frontend.errors import error_of
from tests.frontend.old_files import dense_weights, write_groups

YAML = """\
backend: tensorflow
class_name: Sequential
config:
- class_name: Dense
  config:
    activation: relu
    batch_input_shape: !!python/tuple [null, 4]
    kernel_initializer: &id001
      class_name: VarianceScaling
      config: {distribution: uniform, mode: fan_avg, scale: 1.0, seed: null}
    name: a
    units: 3
- class_name: Dense
  config: {activation: linear, kernel_initializer: *id001, name: b, units: 2, use_bias: true}
keras_version: 2.1.6
"""
NAMES = ("a", "b")


@pytest.fixture
def groups(rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    return {"a": dense_weights(rng, "a", 4, 3), "b": dense_weights(rng, "b", 3, 2)}


@pytest.fixture
def weights(tmp_path: Path, groups: dict[str, dict[str, np.ndarray]]) -> Path:
    with h5py.File(tmp_path / "w.h5", "w") as root:
        root.attrs["keras_version"] = b"2.1.6"
        write_groups(root, groups)
    return tmp_path / "w.h5"


@pytest.fixture
def expected(rng: np.random.Generator, groups: dict[str, dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """An input and its output."""
    (k, b), (k2, b2) = (list(groups[name].values()) for name in NAMES)
    x = rng.normal(size=(5, 4)).astype(np.float32)
    return x, np.maximum(x @ k + b, 0) @ k2 + b2


def in_python(units: int = 3, names: tuple[str, str] = NAMES) -> Model:
    first = layers.Dense(units, activation="relu", name=names[0])
    return Sequential([Input((4,)), first, layers.Dense(2, name=names[1])])


def json_file(folder: Path) -> Path:
    path = folder / "a.json"
    path.write_text(in_python().to_json())
    return path


def yaml_file(folder: Path) -> Path:
    path = folder / "a.yaml"
    path.write_text(YAML)
    return path


@pytest.mark.parametrize("architecture", [json_file, yaml_file])
def test_architecture_and_weights_come_from_two_files(
    tmp_path: Path, weights: Path, expected: tuple[np.ndarray, np.ndarray], architecture: Any
) -> None:
    x, y = expected
    model = load_model(architecture(tmp_path), weights=weights)
    np.testing.assert_allclose(model.predict(x), y, rtol=1e-5, atol=1e-6)


def test_yaml_that_names_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("class_name: !!python/object/apply:os.system ['touch /tmp/never']\n")
    assert error_of(ModelError, lambda: load_model(path)).startswith("the config in a.yaml must be YAML without code (")


def test_yaml_whose_aliases_grow_without_bound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path.write_text("\n".join(["a0: &a0 [1, 1]", *levels]))
    assert "fewer than 2,000,000 parts" in error_of(ModelError, lambda: load_model(path))


def test_yaml_without_its_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_yaml(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_yaml)
    assert error_of(MissingExtra, lambda: load_model(yaml_file(tmp_path))) == (
        'a.yaml is YAML, which is read by an optional dependency. Install it with: pip install "kcompile[yaml]"'
    )


def test_the_interfaces_take_weights(tmp_path: Path, weights: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = expected
    by_api = kcompile.compile(json_file(tmp_path), output=tmp_path / "api.onnx", weights=weights)
    np.testing.assert_allclose(kcompile.load(by_api).predict(x), y, rtol=1e-4, atol=1e-5)
    arguments = [str(tmp_path / "a.json"), "--weights", str(weights), "-o", str(tmp_path / "cli.onnx"), "-q"]
    command = [sys.executable, "-c", "from kcompile.cli import main; main()", *arguments]
    subprocess.run(command, check=True, capture_output=True)
    np.testing.assert_allclose(kcompile.load(tmp_path / "cli.onnx").predict(x), y, rtol=1e-4, atol=1e-5)


def test_layers_with_other_names_are_matched_by_order_and_by_name_left_alone(
    weights: Path, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = expected
    model = in_python(names=("first", "second"))
    model.load_weights(weights)
    np.testing.assert_allclose(model.predict(x), y, rtol=1e-5, atol=1e-6)

    partly = in_python(names=("a", "second"))
    before = partly.layers[1].get_weights()
    partly.load_weights(weights, by_name=True)
    np.testing.assert_array_equal(partly.layers[0].get_weights()[0], model.layers[0].get_weights()[0])
    np.testing.assert_array_equal(partly.layers[1].get_weights()[0], before[0])


def test_what_has_other_shapes_is_skipped_as_keras_skips_it(
    tmp_path: Path, weights: Path, groups: dict[str, dict[str, np.ndarray]]
) -> None:
    model = in_python(units=5)
    before = [array.copy() for array in model.get_weights()]
    assert "`a`: `a/kernel:0` must have shape (4, 5). Received: (4, 3)." in error_of(
        ModelError, lambda: model.load_weights(weights, by_name=True)
    )
    # Of a file that lists weights by layer the last bias is taken, which fits by itself ...
    model.load_weights(weights, skip_mismatch=True)
    for array, old in zip(model.get_weights(), [*before[:3], groups["b"]["b/bias:0"]], strict=True):
        np.testing.assert_array_equal(array, old)
    # ... and of one that lists them by place it is not, for its layer's kernel does not fit.
    other = in_python()
    other.save_weights(tmp_path / "m.weights.h5")
    model.set_weights(before)
    model.load_weights(tmp_path / "m.weights.h5", skip_mismatch=True)
    for array, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_layers_with_another_number_of_weights_are_skipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    stored = in_python()
    (stored.save if suffix == ".h5" else stored.save_weights)(path)
    first = layers.Dense(3, use_bias=False, name="a")
    model = Sequential([Input((4,)), first, layers.Dense(2, name="b")])
    before = first.get_weights()[0].copy()
    assert "a" in error_of(ModelError, lambda: model.load_weights(path))
    model.load_weights(path, skip_mismatch=True)
    np.testing.assert_array_equal(first.get_weights()[0], before)
    np.testing.assert_array_equal(model.get_weights()[1], stored.get_weights()[2])


def test_names_need_a_file_that_lists_layers(tmp_path: Path) -> None:
    model = in_python()
    model.save_weights(tmp_path / "m.weights.h5")
    assert error_of(ModelError, lambda: model.load_weights(tmp_path / "m.weights.h5", by_name=True)) == (
        "`by_name` is for files that list weights by layer, as .h5 files of whole models do. "
        "Received: m.weights.h5, which holds them by their place in the model."
    )


def test_a_model_without_an_input_takes_no_weights(weights: Path) -> None:
    model = Sequential([layers.Dense(3)], name="open")
    assert error_of(ModelError, lambda: model.load_weights(weights)) == (
        "model `open` must know its input shape to take weights. "
        "Put kcompile.Input(shape) first, or call model.build((None, ...))."
    )
