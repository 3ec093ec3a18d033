"""Models from the files that Keras writes, with nothing but h5py, zipfile and json.

Nothing that a file holds or names is executed or imported, and no more is read than its config declares.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend import registry
from kcompile.frontend.keras_file import (
    archive,
    assets,
    h5_weights,
    hdf5,
    store_weights,
    tensorflow_js,
    training_state,
)
from kcompile.frontend.keras_file.architecture import built_model, model_from_config, parsed_config
from kcompile.frontend.keras_file.h5_weights import Matching
from kcompile.frontend.keras_file.version import KerasVersion
from kcompile.frontend.keras_file.yaml_config import parsed_yaml
from kcompile.frontend.model import Model, Provenance

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK\x03\x04"
YAML_SUFFIXES = (".yaml", ".yml")


def load_model(
    path: str | Path,
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    compile: bool = True,
) -> Model:
    """The model in a ``.keras`` or ``.h5`` file, or the architecture in a ``.json`` or ``.yaml`` file with `weights`.

    Args:
        custom_objects: converters for this file alone, by registered name or class name.
        weights: a file of weights; for an architecture they are new without it.
        compile: whether the model is compiled as its file says, with the state of its optimizer.

    Raises:
        UnsupportedLayer: the file uses layers without a converter; all are named.
        ModelError: the file is damaged, or is no model of Keras's.
    """
    path = Path(path)
    magic = _magic(path)
    with registry.custom_object_scope(custom_objects):
        if magic.startswith(_HDF5_MAGIC):
            model = _load_h5(path, custom_objects, compile)
        elif magic.startswith(_ZIP_MAGIC):
            model = _load_keras(path, custom_objects, compile)
        elif magic.lstrip()[:1] == b"{" or path.suffix.lower() in YAML_SUFFIXES:
            model = _load_text(path, custom_objects, new_weights=weights is None)
        else:
            raise ModelError(f"{path.name} is neither a .keras (zip), .h5 (HDF5), .json nor .yaml file.")
    if weights is not None:
        load_weights(model, Path(weights))
    return model


def load_weights(model: Model, path: Path, by_name: bool = False, skip_mismatch: bool = False) -> None:
    """Take the weights from a ``.weights.h5``, ``.h5`` or ``.keras`` file.

    Args:
        by_name: match layers by their names, and leave those alone that only the model or only the file has; for files
            that list weights by layer (``.h5``).
        skip_mismatch: leave alone what has other shapes: as Keras does, single weights of ``.h5`` files, whole layers
            of others, and layers with another number of weights.

    Raises:
        ModelError: weights are missing, left over or of other shapes; all are named.
    """
    if not model.has_weights:
        law = f"model `{model.name}` must know its input shape to take weights"
        raise ModelError(f"{law}. Put kcompile.Input(shape) first, or call model.build((None, ...)).")
    matching = Matching(not by_name, by_name, skip_mismatch)
    if _magic(path).startswith(_ZIP_MAGIC):
        with archive.opened(path) as zipped:
            _assign_archive(model, zipped, path, matching)
        return
    with hdf5.opened(path, path.name) as root:
        _assign_h5(model, root, path.name, matching)


def _magic(path: Path) -> bytes:
    if path.is_dir():
        law = "a model must be one file (.keras or .h5)"
        raise ModelError(f'{law}. Received: the folder {path}. Save the model with `model.save("m.keras")`.')
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from None


def _load_h5(path: Path, custom: Mapping[str, Any] | None, compile: bool) -> Model:
    where = path.name
    with hdf5.opened(path, where) as root:
        text = hdf5.attribute(root, "model_config")
        stored = hdf5.child(root, "model_weights", where)
        if text is None:
            raise ModelError(_without_architecture(root, where))
        version = h5_weights.stated_version(root, where, otherwise=2)
        model = built_model(parsed_config(text, where), version, where, custom)
        if stored is None:
            raise ModelError(f"{where} holds an architecture but no weights (no `model_weights`).")
        _check_size(model, path)
        _assign_h5(model, root, where, Matching())
        if compile:
            training_state.compile_from_h5(model, root, version, where)
        model.provenance = Provenance(_sha256(path), version.text, version.backend)
    return model


def _without_architecture(root: hdf5.Group, where: str) -> str:
    if store_weights.is_store(root) or hdf5.names(root, "layer_names") is not None or "nb_layers" in root.attrs:
        law = f"{where} holds weights but no architecture (no `model_config`)"
        return f'{law}. Save the whole model with `model.save("m.keras")`.'
    return f"{where} is no file of Keras's: it holds neither `model_config` nor `layer_names`."


def _load_keras(path: Path, custom: Mapping[str, Any] | None, compile: bool) -> Model:
    where = path.name
    with archive.opened(path) as zipped:
        text = archive.text(zipped, archive.CONFIG, where)
        if not text:
            found = ", ".join(zipped.namelist()[:5]) or "nothing"
            raise ModelError(f"{where} must hold `{archive.CONFIG}`. Received: an archive with {found}.")
        metadata = parsed_config(archive.text(zipped, archive.METADATA, where) or "{}", where)
        version = str(metadata.get("keras_version") or "") if isinstance(metadata, Mapping) else ""
        config, parsed = parsed_config(text, where), KerasVersion.parse(version)
        stated: Any = config.get("compile_config") if compile and parsed.is_3 else None
        model = built_model(config, parsed, where, custom)
        _check_size(model, path)
        _assign_archive(model, zipped, path, Matching(), stated)
        model.provenance = Provenance(_sha256(path), version)
    return model


def _load_text(path: Path, custom: Mapping[str, Any] | None, new_weights: bool) -> Model:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path.name} must be UTF-8 text ({error}).") from None
    parse = parsed_yaml if path.suffix.lower() in YAML_SUFFIXES else parsed_config
    config = parse(text, path.name)
    if tensorflow_js.is_tensorflow_js(config):
        model = _tensorflow_js_model(config, path, custom)
    else:
        model = model_from_config(config, custom, path.name, new_weights)
    model.provenance = Provenance(_sha256(path), model.provenance.keras_version, model.provenance.backend)
    return model


def _tensorflow_js_model(config: Mapping[str, Any], path: Path, custom: Mapping[str, Any] | None) -> Model:
    where = path.name
    model = model_from_config(tensorflow_js.topology(config, where), custom, where, new_weights=False)
    version = KerasVersion.parse(model.provenance.keras_version, otherwise=2, backend=model.provenance.backend)
    stored = tensorflow_js.arrays(config, path.parent, where)
    _refuse(h5_weights.assign_stored(model, stored, version, Matching()), where)
    return model


def _assign_h5(model: Model, root: hdf5.Group, where: str, matching: Matching) -> None:
    stored = hdf5.child(root, "model_weights", where)
    if stored is None and hdf5.names(root, "layer_names") is None and store_weights.is_store(root):
        _assign_store(model, root, where, matching)
        return
    group = root if stored is None else stored
    if hdf5.names(group, "layer_names") is None and hdf5.attribute(group, "nb_layers") is None:
        raise ModelError(f"{where} is no file of weights of Keras's: it holds no `layer_names` and no `layers`.")
    version = h5_weights.stated_version(root, where)
    if not version.text and model.provenance.keras_version:
        version = KerasVersion.parse(model.provenance.keras_version, backend=version.backend)
    _refuse(h5_weights.assign(model, group, where, version, matching), where)


def _assign_store(model: Model, root: hdf5.Group, where: str, matching: Matching) -> None:
    if matching.by_name:
        law = f"`by_name` is for files that list weights by layer, as .h5 files of whole models do. Received: {where}"
        raise ModelError(f"{law}, which holds them by their place in the model.")
    problems = store_weights.assign(model, root, where)
    _refuse([] if matching.skip_mismatch else problems, where)
    training_state.assign_store(model, root, where)


def _assign_archive(model: Model, zipped: Any, path: Path, matching: Matching, compile_config: Any = None) -> None:
    expected = sum(weight.array.nbytes for weight in model.weights)
    with archive.weights(zipped, path, expected) as file, hdf5.opened(file, path.name) as root:
        training_state.compile_from_config(model, compile_config)
        _assign_store(model, root, path.name, matching)
    assets.assign(model, zipped, path.name)


def _refuse(problems: list[str], where: str) -> None:
    if problems:
        shown = "\n  ".join(problems[:40])
        rest = f"\n  ... and {len(problems) - 40} more" if len(problems) > 40 else ""
        raise ModelError(f"the weights in {where} must be those of the model:\n  {shown}{rest}")


def _check_size(model: Model, path: Path) -> None:
    """Refuse a config that declares weights which the file cannot hold, however well it were compressed."""
    declared = sum(weight.array.nbytes for weight in model.weights)
    size = path.stat().st_size
    if declared > 1100 * size:
        law = f"{path.name} must hold the weights that its config declares ({declared:,} bytes)"
        raise ModelError(f"{law}. Received: a file of {size:,} bytes.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
