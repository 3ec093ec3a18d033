"""Configs of any age in one form: that of Keras 3, in the words of kcompile's layers.

All that a file uses and kcompile lacks is collected and refused at once; nothing named in a file is ever imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, TypeGuard

from kcompile.errors import ModelError, UnsupportedLayer, shown
from kcompile.frontend import activations, registry
from kcompile.frontend.keras_file.int8_layers import INT8_LAYERS
from kcompile.frontend.keras_file.keras_1 import keras_2_spec
from kcompile.frontend.keras_file.names import FOREIGN, KERAS_LAYERS, MODEL_CLASSES, canonical_class
from kcompile.frontend.keras_file.nodes import modern_graph, predicting
from kcompile.frontend.keras_file.old_spellings import (
    MEANINGLESS,
    MEANINGLESS_SUFFIXES,
    NEUTRAL,
    float8_history,
    modern,
    modern_class,
    quantization,
)
from kcompile.frontend.keras_file.packed_layers import PACKED_LAYERS, RowPackedDense
from kcompile.frontend.keras_file.theano_padding import theano_layer
from kcompile.frontend.keras_file.version import KerasVersion
from kcompile.frontend.layer import LAYERS, Layer
from kcompile.frontend.layers.functions import Lambda, named_function
from kcompile.frontend.operations import OPERATIONS, tensorflow_rule

Spec: TypeAlias = dict[str, Any]

# Arguments that hold layers whatever their class.
_LAYER_ARGUMENTS = ("layer", "backward_layer", "cell", "cells")
_TENSORFLOW = ("TFOpLambda", "SlicingOpLambda")
_KERAS_PACKAGES = ("keras", "tensorflow", "tf_keras")


@dataclass(frozen=True)
class _Unsupported:
    """A layer without a converter."""

    name: str
    description: str
    """``keras.layers.Foo``, ``custom: package.Name`` or ``Lambda: code``."""
    path: str
    registration: str
    """What to register a converter under."""


@dataclass(frozen=True)
class _Seen:
    """A layer that was met already, whether it is marked as shared, and the list in which its specs find it."""

    config: Any
    shared: bool
    layers: list[Layer]


@dataclass
class _Normalizer:
    version: KerasVersion
    custom: Mapping[str, type[Layer]]
    unsupported: list[_Unsupported] = field(default_factory=list[_Unsupported])
    problems: list[str] = field(default_factory=list[str])
    # What `deserialize_layer` needs to give one layer for several specs: by id, and by class and name.
    shared: dict[int, list[Layer]] = field(default_factory=dict[int, list[Layer]])
    seen: dict[tuple[str, str], "_Seen"] = field(default_factory=dict[tuple[str, str], "_Seen"])

    def layer(self, spec: Any, path: str) -> Spec:
        """The spec of a layer or model at `path`."""
        class_name, config = _parts(spec, path)
        class_name = modern_class(class_name, self.version)
        named: Any = config if isinstance(config, Mapping) else {}
        name = named.get("name") or spec.get("name") or class_name.lower()
        if not isinstance(name, str):
            raise ModelError(f"the name of a {shown(class_name)} in `{path}` must be text. Received: {shown(name)}.")
        here = f"{path}/{name}" if path else name
        made: Spec = {"class_name": class_name, "name": name, "made": self.shared_list(spec, class_name, name)}
        cls = self.resolve(spec, class_name, name)
        if cls is None and class_name in MODEL_CLASSES:
            return {**made, **self.model(MODEL_CLASSES[class_name], config, name, here)}
        if cls is None:
            self.unsupported.append(_described(spec, class_name, name, here, self.version))
            return {**made, "config": {}}
        if not isinstance(config, Mapping):
            raise ModelError(f"the config of layer `{here}` must be a dict. Received: {shown(config)}.")
        known = canonical_class(class_name)
        inner: Spec = {key: self.argument(key, value, here) for key, value in config.items()}  # pyright: ignore
        cls = self.quantized(cls, known, inner, here)
        worded = inner if cls is Lambda else modern(class_name, known, inner, self.version)
        inner = {**worded, "name": name}
        if self.version.is_theano and inner.get("padding") == "same":
            cls = theano_layer(cls)
        made |= {"build_config": spec["build_config"]} if "build_config" in spec else {}
        return {**made, "class_name": known, "layer_class": cls, "config": self.known_only(cls, known, inner, here)}

    def quantized(self, cls: type[Layer], class_name: str, config: Spec, here: str) -> type[Layer]:
        """The class for a layer whose dtype policy says that its weights are quantised; its config gets the mode."""
        mode = quantization(config.get("dtype"))[0]
        if mode is None:
            config.pop("quantization_config", None)  # how the layer is to be quantised, when it is
            return cls
        if mode == "int8":
            return INT8_LAYERS.get(class_name, cls)
        found = PACKED_LAYERS.get(mode.partition("/")[0], {}).get(class_name)
        if mode == "int4" and class_name == "Dense" and self.version.packs_rows:
            found = RowPackedDense
        if found is None:
            law = f"layer `{here}` ({class_name}) is quantised to {mode}, which kcompile does not read"
            self.problems.append(f"{law}.")
            return cls
        config |= {"packing": mode} if mode != "float8" else float8_history(config["dtype"])
        return found

    def shared_list(self, spec: Mapping[str, Any], class_name: str, name: str) -> list[Layer]:
        """The list in which specs of one layer find it.

        Keras 3 notes a shared layer's id where it stands for the second time, and loses that of the first where this
        is inside another model; kcompile notes it at the first alone. The same class, name and config tell the rest.
        """
        shared, config = spec.get("shared_object_id"), _without_ids(spec["config"])
        before = self.seen.get((class_name, name))
        alike = before is not None and before.config == config and (before.shared or isinstance(shared, int))
        found = before.layers if before and alike else []
        if isinstance(shared, int):
            found = self.shared.setdefault(shared, found)
        self.seen[class_name, name] = _Seen(config, isinstance(shared, int) or alike, found)
        return found

    def argument(self, key: str, value: Any, here: str) -> Any:
        """An argument's value, with the layers in it normalised."""
        if isinstance(value, list):
            return [self.argument(key, item, here) for item in value]  # pyright: ignore[reportUnknownVariableType]
        if key.endswith("activation") and value is not None:
            return self.activation(value, here)
        if not _is_spec(value):
            return value
        known = canonical_class(value["class_name"]) in KERAS_LAYERS or value["class_name"] in MODEL_CLASSES
        if known or key in _LAYER_ARGUMENTS or self.resolve(value, value["class_name"], ""):
            return self.layer(value, here)
        return value

    def activation(self, value: Any, here: str) -> Any:
        """An activation: a name of Keras's, a layer, or a function that a layer is registered for."""
        if _is_spec(value):
            return self.layer(value, here)
        parts: Any = value if isinstance(value, Mapping) else {}
        names = [str(parts.get("registered_name")), str(parts.get("config", value))]
        for name in names:
            if name in activations.NAMES:
                return name
            if registry.find(name) is not None and name not in self.custom:
                return name
            if cls := self.custom.get(name) or LAYERS.get(name):
                return {"class_name": name, "config": {}, "layer_class": cls}
        self.unsupported.append(
            _Unsupported(here.rpartition("/")[2], f"custom activation: {names[-1]}", here, names[-1])
        )
        return None

    def resolve(self, spec: Mapping[str, Any], class_name: str, name: str) -> type[Layer] | None:
        """The class that is registered for a spec: the user's own first, then kcompile's."""
        registered, module = spec.get("registered_name"), spec.get("module")
        if _is_operation(spec, self.version):
            return LAYERS.get(f"keras.ops>{class_name}")
        if class_name in _TENSORFLOW and tensorflow_rule(str(spec["config"].get("function"))) is None:
            return None
        own = module is None or str(module).split(".")[0] in _KERAS_PACKAGES
        names = [registered, class_name if own else f"{module}>{class_name}", class_name]
        names += [f"{class_name}:{name}"] if class_name == "Lambda" else []
        for candidate in filter(None, names):
            if cls := self.custom.get(str(candidate)) or LAYERS.get(str(candidate)):
                return cls
        if class_name == "Lambda" and own and named_function(spec["config"]) is not None:
            return Lambda
        return LAYERS.get(f"keras>{canonical_class(class_name)}") if own and class_name not in MODEL_CLASSES else None

    def model(self, kind: str, config: Any, name: str, here: str) -> Spec:
        """The spec of a model, without its name."""
        if isinstance(config, list):  # Sequential in Keras 2.2.2 and before
            config = {"name": name, "layers": config}  # pyright: ignore[reportUnknownVariableType]
        layers: Any = config.get("layers") if isinstance(config, Mapping) else None  # pyright: ignore
        if not isinstance(layers, list):
            raise ModelError(
                f"the config of model `{here}` must hold a list of layers. Received: {type(layers).__name__}."
            )
        keep = {"trainable", "build_input_shape", "input_layers", "output_layers"}
        made: Spec = {key: value for key, value in config.items() if key in keep}  # pyright: ignore
        made["name"] = name
        entries: list[Any] = list(layers)  # pyright: ignore[reportUnknownArgumentType]
        if kind == "Sequential":
            made["layers"] = [self.layer(entry, here) for entry in self._with_input(entries, here)]
        else:
            made = modern_graph({**made, "layers": [self.entry(entry, here) for entry in entries]}, _models(entries))
        return {"class_name": kind, "layer_class": LAYERS[f"keras>{kind}"], "config": made}

    def entry(self, entry: Any, here: str) -> Spec:
        """A layer of a functional graph, with its connections."""
        made = self.layer(entry, here)
        nodes = entry.get("inbound_nodes", [])
        if not isinstance(nodes, list) or not isinstance(entry.get("name", made["name"]), str):
            law = f"`inbound_nodes` of layer `{here}/{made['name']}` must be a list"
            raise ModelError(f"{law}. Received: {shown(nodes)}.")
        if self.version.is_3:
            nodes = [predicting(node) for node in nodes]  # pyright: ignore[reportUnknownVariableType]
        return {**made, "name": entry.get("name", made["name"]), "inbound_nodes": nodes}

    def _with_input(self, entries: list[Any], here: str) -> list[Any]:
        """The layers of a Sequential model, where the first states the input's shape, with an InputLayer before it."""
        if not entries:
            return entries
        class_name, config = _parts(entries[0], here)
        if class_name == "InputLayer" or not isinstance(config, Mapping) or "batch_input_shape" not in config:
            return entries
        dtype: Any = config.get("dtype")  # pyright: ignore[reportUnknownMemberType]
        entry: Spec = {
            "name": f"{config.get('name')}_input",  # pyright: ignore[reportUnknownMemberType]
            "batch_input_shape": config["batch_input_shape"],
            "dtype": dtype if isinstance(dtype, str) else "float32",
        }
        return [{"class_name": "InputLayer", "config": entry}, *entries]

    def known_only(self, cls: type[Layer], class_name: str, config: Spec, here: str) -> Spec:
        """The arguments that the class takes; one that it lacks must be without effect."""
        if cls.is_users_own() or cls.from_config.__func__ is not Layer.from_config.__func__:  # pyright: ignore[reportFunctionMemberAccess]
            return config
        known = {f.name for f in fields(cls) if f.init}
        for key, value in config.items():
            neutral = value in (None, False, "", [], {}) or NEUTRAL.get((class_name, key)) == value
            if key not in known and not neutral and key not in MEANINGLESS and not key.endswith(MEANINGLESS_SUFFIXES):
                self.problems.append(
                    f"layer `{here}` ({class_name}) has `{key}`={shown(value)}, which kcompile does not know."
                )
        return {key: value for key, value in config.items() if key in known}


def normalize(spec: Any, version: KerasVersion, where: str, custom: Mapping[str, type[Layer]] | None = None) -> Spec:
    """A model's spec in the form that `deserialize_layer` takes.

    Args:
        where: the file's name, for errors.
        custom: converters for this file alone, by registered name or class name.

    Raises:
        UnsupportedLayer: layers have no converter; all are named.
        ModelError: the spec is no model's, or layers have arguments of unknown meaning.
    """
    converters = {name: entry for name, entry in (custom or {}).items() if isinstance(entry, type)}
    normalizer = _Normalizer(version, {**registry.layers(), **converters})
    made = normalizer.layer(keras_2_spec(spec) if version.is_1 else spec, "")
    if normalizer.unsupported:
        raise UnsupportedLayer(_unsupported_text(normalizer.unsupported, where))
    if normalizer.problems:
        raise ModelError(f"{where} uses arguments that kcompile does not know:\n  " + "\n  ".join(normalizer.problems))
    return made


def _parts(spec: Any, path: str) -> tuple[str, Any]:
    class_name: Any = spec.get("class_name") if isinstance(spec, Mapping) else None  # pyright: ignore
    if not isinstance(class_name, str) or "config" not in spec:
        place = f"in `{path}`" if path else "of a model"
        raise ModelError(f"the config {place} must hold `class_name` and `config`. Received: {str(spec)[:80]}.")
    return class_name, spec["config"]


def _is_operation(spec: Mapping[str, Any], version: KerasVersion) -> bool:
    """Whether the spec is of a function of keras.ops; in ``.h5`` files, where no module is stated, its config tells."""
    if spec.get("module") is not None:
        return str(spec["module"]).startswith(("keras.src.ops", "keras.ops"))
    return version.is_3 and spec["class_name"] in OPERATIONS and "trainable" not in spec["config"]


def _without_ids(config: Any) -> Any:
    """The config without the ids of shared objects, which not all copies of a config hold."""
    if isinstance(config, list):
        return [_without_ids(item) for item in config]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(config, dict):
        return {k: _without_ids(v) for k, v in config.items() if k != "shared_object_id"}  # pyright: ignore[reportUnknownVariableType]
    return config


def _is_spec(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether the value describes an object with a config of its own."""
    parts: Any = value if isinstance(value, Mapping) else {}
    return isinstance(parts.get("class_name"), str) and isinstance(parts.get("config"), Mapping)


def _models(entries: list[Any]) -> dict[str, str]:
    """The layers of a graph that are models, with their kinds."""
    models = [entry for entry in entries if entry["class_name"] in MODEL_CLASSES]
    return {str(entry.get("name") or entry["config"]["name"]): MODEL_CLASSES[entry["class_name"]] for entry in models}


def _described(spec: Mapping[str, Any], class_name: str, name: str, path: str, version: KerasVersion) -> _Unsupported:
    registered, module = spec.get("registered_name"), spec.get("module")
    if class_name == "Lambda":
        return _Unsupported(name, "Lambda: code that kcompile never runs", path, f"Lambda:{name}")
    if class_name in FOREIGN:
        description = f"{class_name}: {FOREIGN[class_name]}"
        return _Unsupported(name, description, path, class_name)
    if _is_operation(spec, version):
        return _Unsupported(name, f"keras.ops: {class_name}", path, f"keras.ops>{class_name}")
    if class_name in _TENSORFLOW:
        return _Unsupported(name, f"TensorFlow: tf.{spec['config'].get('function')}", path, f"keras>{class_name}")
    if canonical_class(class_name) in KERAS_LAYERS and str(module or "keras").startswith(_KERAS_PACKAGES):
        return _Unsupported(name, f"keras.layers.{class_name}", path, f"keras>{canonical_class(class_name)}")
    full = f"{module}.{class_name}" if module else class_name
    return _Unsupported(name, f"custom: {full}", path, str(registered or class_name))


# Layers that one error names; a model of people has fewer that are unknown.
_MOST_NAMED = 100
_LONGEST_NAME = 200


def _short(name: str) -> str:
    """A name as an error shows it: the beginning of one that no person wrote."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def _unsupported_text(layers: list[_Unsupported], where: str) -> str:
    width = max(len(_short(layer.name)) for layer in layers) + 2
    room = max(len(_short(layer.description)) for layer in layers) + 2
    count = f"{len(layers)} layers" if len(layers) > 1 else "a layer"
    lines = [f"{where} uses {count} kcompile cannot compile:"]
    for layer in layers[:_MOST_NAMED]:
        quoted = f"`{_short(layer.name)}`"
        lines.append(f"  {quoted:{width}}  {f'({_short(layer.description)})':{room}}  at {_short(layer.path)}")
    lines += [f"  ... and {len(layers) - _MOST_NAMED} more"] * (len(layers) > _MOST_NAMED)
    registrations = list(dict.fromkeys(layer.registration for layer in layers))[:_MOST_NAMED]
    decorators = ", ".join(f'@kcompile.register_layer("{_short(name)}")' for name in registrations)
    lines.append(f"  Register a converter with {decorators}, or see `kcompile layers`.")
    return "\n".join(lines)
