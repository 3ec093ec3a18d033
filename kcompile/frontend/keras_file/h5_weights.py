"""The weights of ``.h5`` files, which list them layer by layer."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kcompile.frontend.keras_file import hdf5
from kcompile.frontend.keras_file.layout import Owned, legacy_order, owned_weights
from kcompile.frontend.layer import Layer
from kcompile.frontend.model import Model


@dataclass(frozen=True)
class _Entry:
    """An array of the file: ``"conv1/kernel:0"`` in the group of a layer."""

    group: hdf5.Group
    path: str
    shape: tuple[int, ...] | None

    @property
    def owner(self) -> str:
        """The path without the weight's own name."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The weight's own name, without TensorFlow's ``:0``."""
        return self.path.rpartition("/")[2].partition(":")[0]

    def is_called(self, name: str) -> bool:
        """Whether the array has that name; TensorFlow numbers names that are taken (``kernel_1``)."""
        return self.name == name or re.sub(r"_\d+$", "", self.name) == name


def assign(model: Model, root: hdf5.Group, where: str, in_order: bool) -> list[str]:
    """Give the model the weights of a file; the problems are returned.

    Args:
        in_order: whether layers whose names the file does not hold are matched by their order, as Keras does for files
            of weights alone.
    """
    groups = {name: hdf5.child(root, name, where) for name in hdf5.names(root, "layer_names") or ()}
    entries = {name: _entries(group, where) for name, group in groups.items() if hdf5.is_group(group)}
    stored = {name: found for name, found in entries.items() if found}
    wanted = {layer.name: layer for layer in model.layers if owned_weights(layer)}
    if in_order and len(stored) == len(wanted) and set(stored) != set(wanted):
        stored = dict(zip(wanted, stored.values(), strict=True))
    missing = [f"layer `{name}`: the file holds no weights." for name in wanted if name not in stored]
    extra = [
        f"layer `{name}` of the file: the model has no such layer with weights."
        for name in stored
        if name not in wanted
    ]
    pairs = [(wanted[name], found) for name, found in stored.items() if name in wanted]
    return [*missing, *extra, *(problem for layer, found in pairs for problem in _assign_layer(layer, found, where))]


def _entries(group: hdf5.Group, where: str) -> list[_Entry]:
    paths = hdf5.names(group, "weight_names") or []
    arrays = [(path, hdf5.child(group, path, where)) for path in paths]
    return [_Entry(group, path, hdf5.shape_of(array)) for path, array in arrays]


def _assign_layer(layer: Layer, entries: Sequence[_Entry], where: str) -> Iterator[str]:
    weights = owned_weights(layer)
    if len(weights) != len(entries):
        shapes = ", ".join(str(entry.shape) for entry in entries)
        yield f"layer `{layer.name}` has {len(weights)} weights. Received: {len(entries)} ({shapes})."
        return
    for owned, entry in zip(_matched(weights, entries), entries, strict=True):
        if owned.weight.shape != entry.shape:
            yield f"`{layer.name}`: `{entry.path}` must have shape {owned.weight.shape}. Received: {entry.shape}."
            continue
        array = hdf5.child(entry.group, entry.path, where)
        owned.weight.assign(hdf5.array(array, owned.weight.shape, f"`{entry.path}` in {where}"))


def _matched(weights: Sequence[Owned], entries: Sequence[_Entry]) -> Sequence[Owned]:
    """The weights in the order of the file's arrays.

    By name where the names say it all; otherwise in the first of the orders in which Keras has written them that the
    arrays' names and shapes bear out.
    """
    by_name = {(owned.owner.name, owned.weight.name): owned for owned in weights}
    keys = [(entry.owner.rpartition("/")[2], entry.name) for entry in entries]
    if len(by_name) == len(weights) and set(keys) == set(by_name) and len(set(keys)) == len(keys):
        return [by_name[key] for key in keys]
    orders = (
        legacy_order(weights),
        sorted(weights, key=lambda owned: not owned.weight.trainable),  # a frozen model in Keras before 2.4
        weights,
    )
    fitting = [order for order in orders if _shapes_fit(order, entries)]
    named = [order for order in fitting if _names_fit(order, entries)]
    return next(iter([*named, *fitting, *orders]))


def _shapes_fit(weights: Sequence[Owned], entries: Sequence[_Entry]) -> bool:
    return all(owned.weight.shape == entry.shape for owned, entry in zip(weights, entries, strict=True))


def _names_fit(weights: Sequence[Owned], entries: Sequence[_Entry]) -> bool:
    """Whether each array is called as its weight, and arrays of one place belong to one layer."""
    pairs = {(entry.owner, id(owned.owner)) for owned, entry in zip(weights, entries, strict=True)}
    one_to_one = len(pairs) == len({owner for owner, _ in pairs}) == len({layer for _, layer in pairs})
    return one_to_one and all(e.is_called(o.weight.name) for o, e in zip(weights, entries, strict=True))
