"""Models and artifacts from files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kcompile.errors import ArtifactError, ModelError
from kcompile.runtime import Session
from kcompile.runtime.load import existing, is_artifact
from kcompile.runtime.load import load as load_artifact
from kcompile.runtime.session import check_threads

if TYPE_CHECKING:
    from kcompile.frontend.model import Model
    from kcompile.ir.graph import Graph

PathLike: TypeAlias = str | os.PathLike[str]
ModelLike: TypeAlias = "Model | str | os.PathLike[str]"

_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras", ".json", ".yaml", ".yml")
_HDF5 = b"\x89HDF\r\n\x1a\n"


def load_model(
    filepath: PathLike,
    custom_objects: "Mapping[str, Any] | None" = None,
    compile: bool = True,
    safe_mode: bool = True,
    *,
    weights: PathLike | None = None,
) -> "Model":
    """The Keras model in a file, as a model of kcompile's own.

    Args:
        filepath: a ``.keras`` or ``.h5`` file, or a ``.json`` or ``.yaml`` file with the architecture.
        custom_objects: layers, losses, metrics and functions for this file alone, by the names in it;
            `kcompile.saving.register_keras_serializable` and `kcompile.register_layer` enter them for good.
        compile: whether the model is compiled for training as its file says, with the state of its optimizer.
        safe_mode: of no effect: code in a file is never run.
        weights: a file of weights, for an architecture.

    Raises:
        ModelError: the file is damaged, incomplete or no Keras model.
        UnsupportedLayer: it uses layers that kcompile does not know; all are named.
    """
    from kcompile.frontend.keras_file import load_model as read

    del safe_mode
    for needed in (filepath, weights):
        if needed is not None:
            _require_keras_file(Path(needed))
    return read(Path(filepath), custom_objects, None if weights is None else Path(weights), compile)


def load(path: PathLike, threads: int | None = None, check: bool = False, key: PathLike | None = None) -> Session:
    """A session of an ``.onnx`` file, of a bundle, zipped or unpacked, or of a Keras file (by the NumPy reference).

    Args:
        path: the file or folder.
        threads: threads of one call; by default what the artifact was compiled for, else all CPUs.
        check: compare the SHA-256 of a bundle's members too, not only their CRC-32.
        key: a PEM file with the public key that a bundle must be signed by.

    Raises:
        ArtifactError: there is no such file, or it is damaged, of another machine or of another schema, or not signed
            by the key.
        ModelError: the Keras model cannot be read.
        MissingExtra: the artifact's engine is not installed.
    """
    found = existing(path)
    if not is_keras_file(found):
        return load_artifact(found, threads, check, None if key is None else Path(key))
    if key is not None:
        raise ArtifactError(f"{found.name} is no bundle, and so has no signature that `key` could check.")
    from kcompile.runtime.reference import ReferenceSession

    check_threads(threads)
    model = load_model(found, compile=False)
    graph = model.trace()
    return ReferenceSession(graph, model.signature(graph))


def trace(model: "Model", shapes: Mapping[str, Sequence[int | None]] | None = None) -> "Graph":
    """The graph of a model, with the extents of `shapes` fixed as `compile` fixes them.

    Raises:
        InputError: `shapes` do not fit the model.
    """
    from kcompile.codegen.shapes import fix_shapes

    try:
        graph = model.trace()
    except ModelError:
        if not shapes or not set(shapes) <= set(model.input_names):
            raise
        graph = model.trace(shapes)
    return fix_shapes(graph, shapes or {})


def model_of(model: ModelLike, weights: PathLike | None = None) -> "tuple[Model, str]":
    """The model, and the name of its file, which is empty for one made in Python."""
    if isinstance(model, str | os.PathLike):
        return load_model(model, weights=weights, compile=False), Path(model).name
    if weights is not None:
        model.load_weights(os.fspath(weights))
    return model, ""


def name_of(model: ModelLike) -> str:
    """The name of a model, which for a file is the file's.

    Raises:
        ModelError: it is neither.
    """
    if isinstance(model, str | os.PathLike):
        return Path(model).stem
    from kcompile.frontend.model import Model

    if not isinstance(model, Model):
        raise ModelError(f"`model` must be a path or a kcompile model. Received: {type(model).__name__}.")
    return model.name


def _require_keras_file(path: Path) -> None:
    """Make sure that there is a file, and none of which the kind alone says that no Keras model is in it."""
    if not path.exists():
        raise ModelError(f"there is no file {path}.")
    if is_artifact(path):
        law = f"{path.name} is compiled already; what is wanted here is the Keras model (.keras, .h5 or .json)"
        raise ModelError(f"{law}. An artifact is for kcompile.load, `kcompile run` and `kcompile bench`.")
    if (path / "saved_model.pb").exists():
        law = f"{path} is a SavedModel, which holds TensorFlow's graph instead of Keras's layers"
        raise ModelError(f'{law}. Save the model anew with `model.save("model.keras")`.')
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ModelError(f"{path} is {kind}. Give a Keras model: a .keras, .h5 or .json file.")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path} may not be read by this user.")
    if not path.stat().st_size:
        raise ModelError(f"{path.name} is empty.")


def is_keras_file(path: Path) -> bool:
    """Whether `path` holds a Keras model rather than an artifact, by its suffix or its first bytes."""
    if path.suffix.lower() in _KERAS_SUFFIXES:
        return True
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5
