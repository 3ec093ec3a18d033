"""What kcompile writes it reads back; the same model gives the same bytes."""

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import Input, Model, Sequential, layers, load_model, model_from_json
from tests.frontend.errors import error_of


def nested_model() -> Model:
    """A shared layer, models in a model, two layers of one class, a wrapper, a layer without weights."""
    steps, flat = Input((None, 3), name="steps"), Input((4,), name="flat")
    inner = Sequential(
        [Input((None, 3)), layers.Conv1D(2, 3, padding="same"), layers.BatchNormalization(name="norm")], name="inner"
    )
    x = Input((None, 2))
    block = Model(x, layers.Dense(2, name="dense")(x), name="block")
    y = layers.Bidirectional(layers.LSTM(5, name="lstm"), name="both")(block(inner(steps)))
    shared = layers.Dense(10, activation="relu", name="dense_5")
    total = layers.Add(name="add")([shared(flat), layers.Dropout(0.5, name="drop")(y)])
    return Model({"steps": steps, "flat": flat}, [layers.Dense(2, name="head")(total), total], name="whole")


@pytest.fixture
def model(rng: np.random.Generator) -> Model:
    model = nested_model()
    model.set_weights([rng.uniform(0.1, 1.0, w.shape).astype(np.float32) for w in model.weights])
    return model


@pytest.fixture
def x(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"steps": rng.normal(size=(3, 6, 3)), "flat": rng.normal(size=(3, 4))}


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_saved_models_are_read_back_whole(model: Model, x: dict[str, np.ndarray], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    model.save(path)
    again = load_model(path)
    assert again.get_config() == model.get_config()
    assert again.name == "whole"
    for got, expected in zip(again.predict(x), model.predict(x), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_layer_in_several_models_stays_one(tmp_path: Path, rng: np.random.Generator, suffix: str) -> None:
    shared = layers.Dense(4, name="shared")
    x, y = Input((4,)), Input((4,))
    model = Model(y, shared(Model(x, shared(x), name="inner")(y)))
    model.save(tmp_path / f"m{suffix}")
    again = load_model(tmp_path / f"m{suffix}")
    assert len(again.weights) == 2
    array = rng.normal(size=(3, 4))
    np.testing.assert_array_equal(again.predict(array), model.predict(array))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_same_model_gives_the_same_bytes(model: Model, tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    model.save(first)
    load_model(first).save(second)
    assert first.read_bytes() == second.read_bytes()


def test_weights_alone_are_saved_and_read_back(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    other = nested_model()
    other.load_weights(path)
    for got, expected in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_weights_are_taken_from_a_whole_model_too(model: Model, tmp_path: Path, suffix: str) -> None:
    model.save(tmp_path / f"m{suffix}")
    other = nested_model()
    other.load_weights(tmp_path / f"m{suffix}")
    for got, expected in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_keras_archives_hold_what_keras_puts_there(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert json.loads(archive.read("metadata.json"))["keras_version"] == "3.15.1"
        config = json.loads(archive.read("config.json"))
        with archive.open("model.weights.h5") as member, h5py.File(member) as root:
            stored: list[str] = []
            root.visititems(lambda name, node: stored.append(name) if isinstance(node, h5py.Dataset) else None)
            assert root["layers/dense/vars"].attrs["name"] == "dense_5"
    assert config["module"] == "keras.src.models.functional"
    both = "layers/bidirectional"
    assert sorted(stored) == sorted(
        [
            *(f"layers/{layer}/vars/{i}" for layer in ("dense", "dense_1") for i in range(2)),
            *(f"layers/functional/layers/dense/vars/{i}" for i in range(2)),
            *(f"layers/sequential/layers/conv1d/vars/{i}" for i in range(2)),
            *(f"layers/sequential/layers/batch_normalization/vars/{i}" for i in range(4)),
            *(f"{both}/{side}_layer/cell/vars/{i}" for side in ("forward", "backward") for i in range(3)),
        ]
    )


def test_json_gives_the_architecture_with_new_weights(model: Model) -> None:
    again = model_from_json(model.to_json())
    assert again.get_config() == model.get_config()
    assert json.loads(model.to_json(indent=1)) == json.loads(model.to_json())
    assert any((a != b).any() for a, b in zip(again.get_weights(), model.get_weights(), strict=True))


def test_provenance_is_the_files_digest_and_keras_version(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    model.save(path)
    provenance = load_model(path).provenance
    assert (provenance.keras_version, provenance.backend) == ("3.15.1", "tensorflow")
    assert len(provenance.sha256) == 64
    assert model.provenance.sha256 == ""


def test_other_suffixes_are_refused(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.pb"
    assert error_of(ModelError, lambda: model.save(path)) == (
        f"a model is saved to a .keras or .h5 file. Received: {path}."
    )
    path = tmp_path / "m.h5"
    text = f"weights are saved to a .weights.h5 file. Received: {path}."
    assert error_of(ModelError, lambda: model.save_weights(path)) == text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error_of_ours(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "none" / "m.keras"
    text = f"{path} cannot be written: No such file or directory."
    assert error_of(ModelError, lambda: model.save(path)) == text


def test_an_existing_file_stays_where_overwriting_is_off(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_text("precious")
    text = f"{path} exists already. Save with overwrite=True, or to another name."
    assert error_of(ModelError, lambda: model.save(path, overwrite=False)) == text
    assert path.read_text() == "precious"
    model.save(path)
    assert load_model(path).name == "whole"


def test_a_failure_leaves_the_old_file_whole(tmp_path: Path) -> None:
    model = Sequential([Input((3,)), layers.Dense(2)], name="s")
    vars(model.layers[0])["kernel_regularizer"] = object()
    path = tmp_path / "m.keras"
    path.write_text("precious")
    assert error_of(ModelError, lambda: model.save(path)).startswith("an object must have `get_config` to be saved")
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unbuilt_model_is_not_saved(tmp_path: Path) -> None:
    text = (
        "model `s` must know its input shape to be saved. "
        "Put kcompile.Input(shape) first, or call model.build((None, ...))."
    )
    model = Sequential([layers.Dense(2)], name="s")
    assert error_of(ModelError, lambda: model.save(tmp_path / "m.keras")) == text
