"""Helpers, by the names that Keras gives them (``keras.utils``)."""

from typing import Any

from kcompile.frontend.drawing import plot_history, plot_model
from kcompile.frontend.initializers import set_random_seed
from kcompile.frontend.naming import clear_session
from kcompile.frontend.objects import deserialize_keras_object, serialize_keras_object
from kcompile.frontend.registry import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from kcompile.frontend.training.preparing import (
    normalize,
    pad_sequences,
    split_dataset,
    timeseries_dataset_from_array,
    to_categorical,
)
from kcompile.frontend.training.source import PyDataset, pack_x_y_sample_weight, unpack_x_y_sample_weight

Sequence = PyDataset

__all__ = [
    "CustomObjectScope",
    "PyDataset",
    "Sequence",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "is_keras_tensor",
    "normalize",
    "pack_x_y_sample_weight",
    "pad_sequences",
    "plot_history",
    "plot_model",
    "register_keras_serializable",
    "serialize_keras_object",
    "set_random_seed",
    "split_dataset",
    "timeseries_dataset_from_array",
    "to_categorical",
    "unpack_x_y_sample_weight",
]


def is_keras_tensor(x: Any) -> bool:
    """Whether `x` is a symbolic tensor, as `kcompile.Input` and layers give."""
    from kcompile.frontend.tracing import KerasTensor

    return isinstance(x, KerasTensor)
