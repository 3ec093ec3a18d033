"""Files and configs, by the names that Keras gives what handles them (``keras.saving``)."""

from pathlib import Path
from typing import Any

from kcompile.api import load_model
from kcompile.frontend.model import Model
from kcompile.frontend.objects import deserialize_keras_object, serialize_keras_object
from kcompile.frontend.registry import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]


def save_model(model: Model, filepath: str | Path, overwrite: bool = True) -> None:
    """Write a model to a ``.keras`` or ``.h5`` file; see `Model.save`."""
    model.save(filepath, overwrite)


def save_weights(model: Model, filepath: str | Path, overwrite: bool = True) -> None:
    """Write a model's weights to a ``.weights.h5`` file; see `Model.save_weights`."""
    model.save_weights(filepath, overwrite)


def load_weights(model: Model, filepath: str | Path, skip_mismatch: bool = False, **options: Any) -> None:
    """Take a model's weights from a file; see `Model.load_weights`."""
    model.load_weights(filepath, skip_mismatch, **options)
