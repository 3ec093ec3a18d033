"""Models from configs of any version of Keras, with weights still to come."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from kcompile.errors import GraphError, KCompileError, ModelError
from kcompile.frontend import initializers, registry
from kcompile.frontend.keras_file.keras_1 import is_keras_0
from kcompile.frontend.keras_file.normalize import normalize
from kcompile.frontend.keras_file.version import KerasVersion
from kcompile.frontend.keras_file.yaml_config import parsed_yaml
from kcompile.frontend.layer_configs import deserialize_layer
from kcompile.frontend.model import Model, Provenance

# What a damaged config makes of Python's own operations in layers that trust their arguments' types.
_CONFUSION = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    IndexError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    GraphError,
)


def model_from_json(
    text: str,
    custom_objects: Mapping[str, Any] | None = None,
    where: str = "the config",
    new_weights: bool = True,
) -> Model:
    """The model that a JSON text of any version of Keras describes.

    Args:
        custom_objects: converters for this text alone, by registered name or class name.
        where: what the text is called in errors.
        new_weights: whether the weights are filled by the initializers; else they are zeros.

    Raises:
        UnsupportedLayer: it uses layers without a converter; all are named.
        ModelError: the text is no JSON, or no config of a model.
    """
    with registry.custom_object_scope(custom_objects):
        return model_from_config(parsed_config(text, where), custom_objects, where, new_weights)


def model_from_yaml(
    text: str,
    custom_objects: Mapping[str, Any] | None = None,
    where: str = "the config",
    new_weights: bool = True,
) -> Model:
    """The model that a YAML text describes; see `model_from_json`."""
    with registry.custom_object_scope(custom_objects):
        return model_from_config(parsed_yaml(text, where), custom_objects, where, new_weights)


def model_from_config(config: Any, custom_objects: Mapping[str, Any] | None, where: str, new_weights: bool) -> Model:
    """The model that a config describes which states the version of Keras itself; see `model_from_json`."""
    if not isinstance(config, Mapping):
        raise ModelError(f"{where} must be the config of a model. Received: {str(config)[:60]!r}.")
    stated, backend = config.get("keras_version"), config.get("backend")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    otherwise = 0 if is_keras_0(config) else 3 if "module" in config else 2
    version = KerasVersion.parse(stated if isinstance(stated, str) else None, otherwise, str(backend or ""))
    model = built_model(config, version, where, custom_objects, new_weights)
    model.provenance = Provenance("", version.text, version.backend)
    return model


def parsed_config(text: Any, where: str) -> Any:
    """The config that a JSON text holds.

    Raises:
        ModelError: it is no JSON.
    """
    try:
        return json.loads(text, object_hook=_decoded)
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"the config in {where} must be JSON. Received: {str(text)[:60]!r} ({error}).") from None


def _decoded(item: dict[str, Any]) -> Any:
    """What TensorFlow's encoder wraps in dicts: tuples, shapes and arrays."""
    match item:
        case {"class_name": "__tuple__" | "TensorShape" | "ListWrapper", "items": list() as items}:
            return items  # pyright: ignore[reportUnknownVariableType]
        case {"class_name": "ListWrapper", "config": list() as items}:
            return items  # pyright: ignore[reportUnknownVariableType]
        case {"type": "ndarray", "value": value}:
            return value
        case _:
            return item


def built_model(
    config: Any,
    version: KerasVersion,
    where: str,
    custom: Mapping[str, Any] | None,
    new_weights: bool = False,
) -> Model:
    """The model that a config of any version describes; its weights are zeros unless `new_weights`.

    Raises:
        UnsupportedLayer: it uses layers without a converter; all are named.
        ModelError: it is no config of a model, or does not state the input's shape.
    """
    with _confusion_named(where):
        spec = normalize(config, version, where, custom)
        if new_weights:
            model = deserialize_layer(spec)
        else:
            with initializers.skipped():
                model = deserialize_layer(spec)
        if not isinstance(model, Model):
            raise ModelError(f"{where} must describe a model. Received: a {type(model).__name__} layer.")
        if not model.has_weights:
            law = f"{where} must state the shape of the model's input"
            raise ModelError(f'{law}. Build the model, or put an Input first, before `model.save("m.keras")`.')
        return model


@contextmanager
def _confusion_named(where: str) -> Generator[None]:
    """Errors of Python's own, which a damaged config causes, as a ModelError."""
    try:
        yield
    except _CONFUSION as error:
        if isinstance(error, KCompileError) and not isinstance(error, GraphError):
            raise
        raise ModelError(f"the config in {where} is damaged ({type(error).__name__}: {error}).") from error
