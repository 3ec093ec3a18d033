"""Models written for Keras to read: ``.keras``, ``.h5`` and ``.weights.h5``, the same bytes for the same model."""

# h5py ships no types; what the functions here take and return is declared all the same.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.atomic import replace_file
from kcompile.frontend.keras_file import archive, training_state
from kcompile.frontend.keras_file.layout import joined, legacy_order, owned_weights, places, stored_weights
from kcompile.frontend.keras_file.version import WRITTEN
from kcompile.frontend.model import Model
from kcompile.frontend.serialization import serialize_model

# HDF5 keeps an attribute in the header of its object, which holds 64 KB less what Keras leaves for the rest.
_LARGEST_ATTRIBUTE = 64512
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_model(model: Model, path: Path, overwrite: bool = True) -> None:
    """Write the model, architecture and weights, to a ``.keras`` or ``.h5`` file.

    Raises:
        ModelError: the suffix is another, the model is not built, or the file exists and `overwrite` is False.
    """
    writers: dict[str, Callable[[Model, BinaryIO], None]] = {
        ".keras": _write_keras,
        ".h5": _write_h5,
        ".hdf5": _write_h5,
    }
    if path.suffix not in writers:
        raise ModelError(f"a model is saved to a .keras or .h5 file. Received: {path}.")
    _write(model, path, overwrite, writers[path.suffix])


def save_weights(model: Model, path: Path, overwrite: bool = True) -> None:
    """Write the weights to a ``.weights.h5`` file.

    Raises:
        ModelError: the suffix is another, the model is not built, or the file exists and `overwrite` is False.
    """
    if not path.name.endswith(".weights.h5"):
        raise ModelError(f"weights are saved to a .weights.h5 file. Received: {path}.")
    _write(model, path, overwrite, _write_store)


def _write(model: Model, path: Path, overwrite: bool, writer: Callable[[Model, BinaryIO], None]) -> None:
    if not model.has_weights:
        law = f"model `{model.name}` must know its input shape to be saved"
        raise ModelError(f"{law}. Put kcompile.Input(shape) first, or call model.build((None, ...)).")
    if path.exists() and not overwrite:
        raise ModelError(f"{path} exists already. Save with overwrite=True, or to another name.")
    try:
        replace_file(path, lambda file: writer(model, file))
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}.") from error


def _config(model: Model) -> dict[str, Any]:
    """The model's config, every part of which means to Keras 3 what it means here.

    Raises:
        ModelError: layers have the activation of old files that Keras 3 lacks.
    """
    config = serialize_model(model)
    old = sorted(set(_layers_with(config, "hard_sigmoid_v2")))
    if old:
        law = "a saved model must mean the same to Keras 3, which lacks Keras 2's hard_sigmoid (0.2 x + 0.5, clipped)"
        raise ModelError(f"{law}. Received: it in {', '.join(f'`{name}`' for name in old)}. Save the weights alone.")
    return config


def _layers_with(part: Any, activation: str, name: str = "") -> Iterator[str]:
    """The names of the layers in a config that have an activation of that name."""
    if isinstance(part, list):
        for item in part:
            yield from _layers_with(item, activation, name)
    if isinstance(part, dict):
        name = str(part.get("name") or name)
        for key, value in part.items():
            if key.endswith("activation") and value == activation:
                yield name
            yield from _layers_with(value, activation, name)


def _write_keras(model: Model, file: BinaryIO) -> None:
    weights = io.BytesIO()
    _write_store(model, weights)
    config = _config(model)
    if stated := training_state.stated(model):
        config["compile_config"] = stated
    metadata = {"keras_version": WRITTEN, "date_saved": "1980-01-01@00:00:00"}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zipped:
        for name, data in (
            (archive.METADATA, json.dumps(metadata).encode()),
            (archive.CONFIG, _json(config).encode()),
            (archive.WEIGHTS, weights.getbuffer()),
        ):
            zipped.writestr(zipfile.ZipInfo(name, _EPOCH), data)


def _write_store(model: Model, file: BinaryIO) -> None:
    with h5py.File(file, "w") as root:
        for place in places(model):
            group = root.create_group(joined(place.path, "vars"))
            group.attrs["name"] = place.layer.name
            for number, weight in enumerate(stored_weights(place.layer)):
                group.create_dataset(str(number), data=weight.array)
            for name, array in place.layer.tables.items():
                group.create_dataset(name, data=array)
        training_state.write_store(root, model)


def _write_h5(model: Model, file: BinaryIO) -> None:
    with h5py.File(file, "w") as root:
        config = _legacy_spec(_config(model))
        root.attrs["keras_version"] = WRITTEN
        root.attrs["backend"] = "tensorflow"
        root.attrs["model_config"] = _json(config).encode()
        stored = root.create_group("model_weights")
        _write_names(stored, "layer_names", [layer.name for layer in model.layers])
        stored.attrs["backend"], stored.attrs["keras_version"] = "tensorflow", WRITTEN
        for layer in sorted(model.layers, key=lambda layer: layer.name):
            group = stored.create_group(layer.name)
            weights = legacy_order(owned_weights(layer))
            _write_names(group, "weight_names", [owned.path for owned in weights])
            for owned in weights:
                group.create_dataset(owned.path, data=owned.weight.array)
        _write_names(stored.create_group("top_level_model_weights"), "weight_names", [])
        if stated := training_state.stated(model, old=True):
            root.attrs["training_config"] = _json(stated).encode()
            named = dict(training_state.named_state(model))
            group = root.create_group("optimizer_weights")
            _write_names(group, "weight_names", list(named))
            for name, array in named.items():
                group.create_dataset(name, data=array)


def _write_names(group: Any, attribute: str, names: Sequence[str]) -> None:
    """A list of names as an attribute, in parts where it is too long for one."""
    encoded = np.asarray([name.encode() for name in names]) if names else np.zeros(0)
    parts = -(-encoded.nbytes // _LARGEST_ATTRIBUTE) or 1
    for number, part in enumerate(np.array_split(encoded, parts)):
        group.attrs[f"{attribute}{number}" if parts > 1 else attribute] = part


def _legacy_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as ``.h5`` files hold it: without modules, in models within models too."""
    config: dict[str, Any] = dict(spec["config"])
    if isinstance(config.get("layers"), list):
        config["layers"] = [_legacy_spec(layer) for layer in config["layers"]]
    left_out = {"module", "registered_name"}
    made = {key: value for key, value in spec.items() if key not in left_out}
    return {**made, "class_name": spec.get("registered_name") or spec["class_name"], "config": config}


def _json(config: Any) -> str:
    return json.dumps(config, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise ModelError(f"a config must hold texts, numbers, lists and dicts to be saved. Received: {value!r}.")
