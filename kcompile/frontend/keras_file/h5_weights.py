"""The weights of ``.h5`` files, which list them layer by layer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kcompile.frontend.keras_file import hdf5
from kcompile.frontend.keras_file.layout import Owned, legacy_order, owned_weights
from kcompile.frontend.keras_file.lora import merged_updates
from kcompile.frontend.keras_file.old_layouts import Stored, change_to, from_cudnn, is_cudnn_bias, joined_gates
from kcompile.frontend.keras_file.version import KerasVersion
from kcompile.frontend.layer import Layer
from kcompile.frontend.model import Model


@dataclass(frozen=True)
class Matching:
    """How layers of a file find those of a model.

    Args:
        in_order: layers whose names the file does not hold are matched by their order, as Keras does for files of
            weights alone.
        by_name: layers are matched by name alone, and those that only one side has are left as they are.
        skip_mismatch: weights of other shapes are left as they are, and layers with another number of them.
    """

    in_order: bool = False
    by_name: bool = False
    skip_mismatch: bool = False


def stated_version(root: hdf5.Group, where: str, otherwise: int = 1) -> KerasVersion:
    """Which Keras wrote the weights, by the attributes of the file or of its weights; else `otherwise`.

    Keras 1 stated neither its version with weights alone nor its backend; but TensorFlow's names end in ``:0``.
    """
    groups = [group for group in (root, hdf5.child(root, "model_weights", where)) if group is not None]
    version, backend = (
        next((str(state) for group in groups if (state := hdf5.attribute(group, name))), "")
        for name in ("keras_version", "backend")
    )
    listed = otherwise > 1 or any(hdf5.names(group, "layer_names") is not None for group in groups)
    parsed = KerasVersion.parse(version, otherwise if listed else 0, backend)
    if backend or not parsed.is_1:
        return parsed
    names = [name for layer in _groups(groups[-1], where).values() for name in hdf5.names(layer, "weight_names") or ()]
    theano = bool(names) and not any(name.endswith(":0") for name in names) if listed else True
    return replace(parsed, backend="theano" if theano else "tensorflow")


def assign(model: Model, root: hdf5.Group, where: str, version: KerasVersion, matching: Matching) -> list[str]:
    """Give the model the weights of a file; the problems are returned."""
    entries = _numbered(model, root, where) or {name: _entries(g, where) for name, g in _groups(root, where).items()}
    return assign_stored(model, entries, version, matching)


def assign_stored(
    model: Model, entries: Mapping[str, Sequence[Stored]], version: KerasVersion, matching: Matching
) -> list[str]:
    """Give the model arrays that are listed by layer; the problems are returned."""
    stored = {name: found for name, found in entries.items() if found}
    wanted = {layer.name: layer for layer in model.layers if owned_weights(layer)}
    if matching.in_order and len(stored) == len(wanted) and set(stored) != set(wanted):
        stored = dict(zip(wanted, stored.values(), strict=True))
    pairs = [(wanted[name], found) for name, found in stored.items() if name in wanted]
    problems = [] if matching.by_name else [*_alone(wanted, stored)]
    for layer, found in pairs:
        wrong = list(_assign_layer(layer, found, version, matching.skip_mismatch))
        problems += [] if matching.skip_mismatch else wrong
    return problems


def _alone(wanted: Mapping[str, Layer], stored: Mapping[str, Sequence[Stored]]) -> Iterator[str]:
    for name in wanted:
        if name not in stored:
            yield f"layer `{name}`: the file holds no weights."
    for name in stored:
        if name not in wanted:
            yield f"layer `{name}` of the file: the model has no such layer with weights."


def _groups(root: hdf5.Group, where: str) -> dict[str, hdf5.Group]:
    found = {name: hdf5.child(root, name, where) for name in hdf5.names(root, "layer_names") or ()}
    return {name: group for name, group in found.items() if hdf5.is_group(group)}


def _numbered(model: Model, root: hdf5.Group, where: str) -> dict[str, list[Stored]]:
    """The arrays of Keras 0.3, which numbered the layers, those without weights too."""
    count = hdf5.attribute(root, "nb_layers")
    if count != len(model.layers):
        return {}
    found: dict[str, list[Stored]] = {}
    for number, layer in enumerate(model.layers):
        group = hdf5.child(root, f"layer_{number}", where)
        parts = hdf5.attribute(group, "nb_params") if hdf5.is_group(group) else 0
        paths = [f"param_{part}" for part in range(min(int(parts or 0), 4096))]
        found[layer.name] = [_stored(group, path, where) for path in paths]
    return found


def _entries(group: hdf5.Group, where: str) -> list[Stored]:
    return [_stored(group, path, where) for path in hdf5.names(group, "weight_names") or ()]


def _stored(group: hdf5.Group, path: str, where: str) -> Stored:
    array = hdf5.child(group, path, where)
    shape = hdf5.shape_of(array)
    return Stored(path, shape, lambda: hdf5.array(array, shape or (), f"`{path}` in {where}"))


def _assign_layer(layer: Layer, stored: Sequence[Stored], version: KerasVersion, skips: bool) -> Iterator[str]:
    """Give a layer its arrays; where some do not fit, none, or with `skips` the others."""
    weights = owned_weights(layer)
    stored = merged_updates(weights, stored)
    entries = joined_gates(legacy_order(weights), stored) if version.is_1 else stored
    if len(weights) != len(entries):
        shapes = ", ".join(str(entry.shape) for entry in stored)
        yield f"layer `{layer.name}` has {len(weights)} weights. Received: {len(stored)} ({shapes})."
        return
    pairs = list(zip(_matched(weights, entries, version), entries, strict=True))
    changes = [change_to(owned, entry.shape, version) for owned, entry in pairs]
    for (owned, entry), change in zip(pairs, changes, strict=True):
        if change is None:
            yield f"`{layer.name}`: `{entry.path}` must have shape {owned.weight.shape}. Received: {entry.shape}."
    if None in changes and not skips:
        return
    cudnn = {id(owned.owner) for owned, entry in pairs if is_cudnn_bias(owned, entry.shape)}
    for (owned, entry), change in zip(pairs, changes, strict=True):
        if change is None:
            continue
        array = change(entry.read())
        owned.weight.assign(from_cudnn(owned, array) if id(owned.owner) in cudnn else array)


def _owner(path: str) -> str:
    """A path without the weight's own name."""
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    """The weight's own name, without TensorFlow's ``:0``."""
    return path.rpartition("/")[2].partition(":")[0]


def _is_called(path: str, name: str) -> bool:
    """Whether an array has that name; TensorFlow numbers names that are taken (``kernel_1``)."""
    return _name(path) == name or re.sub(r"_\d+$", "", _name(path)) == name


def _matched(weights: Sequence[Owned], entries: Sequence[Stored], version: KerasVersion) -> Sequence[Owned]:
    """The weights in the order of the file's arrays.

    By name where the names say it all; otherwise in the first of the orders in which Keras has written them that the
    arrays' names and shapes bear out.
    """
    by_name = {(owned.owner.name, owned.weight.name): owned for owned in weights}
    keys = [(_owner(entry.path).rpartition("/")[2], _name(entry.path)) for entry in entries]
    if len(by_name) == len(weights) and set(keys) == set(by_name) and len(set(keys)) == len(keys):
        return [by_name[key] for key in keys]
    orders = (
        legacy_order(weights),
        sorted(weights, key=lambda owned: not owned.weight.trainable),  # a frozen model in Keras before 2.4
        weights,
    )
    fitting = [order for order in orders if _shapes_fit(order, entries, version)]
    named = [order for order in fitting if _names_fit(order, entries)]
    return next(iter([*named, *fitting, *orders]))


def _shapes_fit(weights: Sequence[Owned], entries: Sequence[Stored], version: KerasVersion) -> bool:
    return all(change_to(owned, entry.shape, version) for owned, entry in zip(weights, entries, strict=True))


def _names_fit(weights: Sequence[Owned], entries: Sequence[Stored]) -> bool:
    """Whether each array is called as its weight, and arrays of one place belong to one layer."""
    pairs = {(_owner(entry.path), id(owned.owner)) for owned, entry in zip(weights, entries, strict=True)}
    one_to_one = len(pairs) == len({owner for owner, _ in pairs}) == len({layer for _, layer in pairs})
    return one_to_one and all(_is_called(e.path, o.weight.name) for o, e in zip(weights, entries, strict=True))
