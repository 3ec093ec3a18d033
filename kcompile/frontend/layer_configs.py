"""Layers inside configs, as Keras 3 writes them, and back."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from kcompile.errors import ModelError, UnsupportedLayer, shown
from kcompile.frontend.layer import LAYERS, Layer

# The numbers of layers that stand in several models of what is being serialized, by identity. One is noted where the
# layer stands for the first time: with the others, Keras would take the calls in one model for those in another.
shared_numbers: ContextVar[dict[int, int]] = ContextVar("shared_numbers")


# Where Keras keeps what is no layer, though some has the name of one: `Identity`.
_OTHER_MODULES = tuple(f"keras.{kind}" for kind in ("initializers", "regularizers", "constraints", "losses", "metrics"))


def serialize_layer(layer: Layer) -> dict[str, Any]:
    """`layer` as Keras 3 writes one inside another layer's config."""
    number = shared_numbers.get({}).pop(id(layer), None)
    shared = {} if number is None else {"shared_object_id": number}
    layer = layer.stands_for
    cls = type(layer)
    names = [name for name, entry in LAYERS.items() if entry is cls]
    own = any(name.startswith(("keras>", "keras.ops>")) for name in names)
    own = own or (not names and cls.__module__.startswith("kcompile."))  # `Lambda`, which files name on conditions
    registered = next((name for name in names if not name.startswith("keras>")), None)
    return {
        "module": cls.keras_module if own else None,
        "class_name": cls.__name__,
        "config": layer.get_config(),
        "registered_name": None if own else registered,
        **({} if (built := layer.get_build_config()) is None else {"build_config": built}),
        **shared,
    }


def deserialize_layer(spec: Any) -> Layer:
    """The layer that a config describes (``{"class_name": ..., "config": ...}``); a layer is itself.

    Raises:
        UnsupportedLayer: no layer is registered under that name.
        ModelError: `spec` is no such config.
    """
    if isinstance(spec, Layer):
        return spec
    if not isinstance(spec, Mapping) or not isinstance(spec.get("config"), Mapping):  # pyright: ignore[reportUnknownMemberType]
        law = "a layer must be an object or a config with `class_name` and `config`"
        raise ModelError(f"{law}. Received: {shown(spec)}.")
    parts: Mapping[str, Any] = spec  # pyright: ignore[reportUnknownVariableType]
    # A reader of files leaves here the class that it chose, and a list that holds the layer once a spec has made it.
    shared: list[Layer] = parts.get("made", [])
    cls = layer_class(parts)
    if cls is None:
        law = f"kcompile cannot compile layer class {parts.get('class_name')!r}"
        raise UnsupportedLayer(f"{law}. Register a converter with @kcompile.register_layer.")
    if not shared:
        shared.append(cls.from_config(parts["config"]))
        if isinstance(parts.get("build_config"), Mapping):
            shared[0].build_from_config(parts["build_config"])
    return shared[0]


def layer_class(parts: Mapping[str, Any]) -> type[Layer] | None:
    """The class of the layer that a config describes; None where it is of something else, or not known."""
    if str(parts.get("module")).startswith(_OTHER_MODULES):
        return None
    names = [parts.get("registered_name"), parts.get("class_name")]
    found = (LAYERS.get(str(name)) or LAYERS.get(f"keras>{name}") for name in names)
    return parts.get("layer_class") or next(filter(None, found), None) or _registered(names)


def _registered(names: Sequence[Any]) -> type[Layer] | None:
    from kcompile.frontend import registry

    found = registry.find(*names)
    return found if isinstance(found, type) and issubclass(found, Layer) else None
