"""Any object of Keras's kinds as a config, and back: ``keras.saving.serialize_keras_object`` and its inverse."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import initializers, registry
from kcompile.frontend.layer import Layer
from kcompile.frontend.layer_configs import deserialize_layer, serialize_layer

# Where Keras keeps what kcompile keeps here.
_MODULES = {
    "kcompile.frontend.training.regularizers": "keras.regularizers",
    "kcompile.frontend.training.constraints": "keras.constraints",
    "kcompile.frontend.training.losses": "keras.losses",
    "kcompile.frontend.training.metrics": "keras.metrics",
    "kcompile.frontend.training.optimizers.schedules": "keras.optimizers.schedules",
    "kcompile.frontend.training.optimizers": "keras.optimizers",
}


def serialize_keras_object(value: Any) -> Any:
    """`value` as Keras 3 writes it: numbers and texts as they are, objects and functions as configs.

    Raises:
        ModelError: it has no `get_config`.
    """
    match value:
        case None | str() | bool() | int() | float():
            return value
        case list() | tuple():
            return [serialize_keras_object(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case Mapping():
            return {str(key): serialize_keras_object(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case np.ndarray() | np.generic():
            return value.tolist()
        case Layer():
            return serialize_layer(value)
        case initializers.Initializer() if type(value).__module__.startswith("kcompile."):
            return initializers.serialize(value)
        case _:
            return _object(value)


def _object(value: Any) -> dict[str, Any]:
    if not hasattr(value, "get_config"):
        if not callable(value) or not hasattr(value, "__name__"):
            raise ModelError(f"an object must have `get_config` to be saved. Received: {value!r}.")
        name = registry.get_registered_name(value)
        return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}
    cls = type(value)
    module = next((keras for own, keras in _MODULES.items() if cls.__module__.startswith(own)), None)
    return {
        "module": module,
        "class_name": cls.__name__,
        "config": {key: serialize_keras_object(item) for key, item in value.get_config().items()},
        "registered_name": None if module else registry.get_registered_name(cls),
    }


def deserialize_keras_object(config: Any, custom_objects: Mapping[str, Any] | None = None, **_: Any) -> Any:
    """What a config describes; anything else as it is.

    Raises:
        ModelError: its class is not known.
    """
    if not isinstance(config, Mapping) or "class_name" not in config:
        return config
    parts: Mapping[str, Any] = config  # pyright: ignore[reportUnknownVariableType]
    with registry.custom_object_scope(custom_objects):
        found = registry.find(parts.get("registered_name"), parts["class_name"])
        if parts["class_name"] == "function":
            return _function(str(parts["config"]))
        if found is not None:
            return found.from_config(parts["config"]) if hasattr(found, "from_config") else found(**parts["config"])
        return _of_keras(parts)


def _function(name: str) -> Any:
    found = registry.find(name)
    if found is None:
        law = f"function {name!r} is not known"
        raise ModelError(f"{law}. Register it with @kcompile.saving.register_keras_serializable().")
    return found


def _of_keras(parts: Mapping[str, Any]) -> Any:
    """An object of one of Keras's own classes, by the module that a config states."""
    from kcompile.frontend.training import constraints, losses, metrics, optimizers, regularizers
    from kcompile.frontend.training.optimizers.schedules import schedule_from_config

    kinds: dict[str, Any] = {
        "keras.initializers": initializers.get,
        "keras.regularizers": regularizers.get,
        "keras.constraints": constraints.get,
        "keras.losses": losses.get,
        "keras.metrics": metrics.get,
        "keras.optimizers.schedules": schedule_from_config,
        "keras.optimizers": optimizers.get,
    }
    return kinds.get(str(parts.get("module")), deserialize_layer)(parts)
