"""Where each weight of a model stands in a file.

The store of Keras 3 (``.keras``, ``.weights.h5``) follows the tree of objects: the layers of a model lie under
``layers/`` by their class names (``dense``, ``dense_1``), layers inside a layer by its attributes (``forward_layer``),
and a layer's own arrays under ``vars/0``, ``vars/1``. Keras stores a layer that is reached twice where it is reached
first; kcompile stores it in both places, since Keras reads it as two.

The older ``.h5`` has one group for each layer of the model, with the arrays of all layers inside in one list.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from kcompile.frontend.layer import LAYERS, Layer
from kcompile.frontend.model import Model
from kcompile.frontend.operations import Operation
from kcompile.frontend.weight import Weight

# Gives the layers of the container at a path the names under which they are stored there.
Naming: TypeAlias = Callable[[str, Sequence[Layer]], Iterator[tuple[str, Layer]]]


@dataclass(frozen=True)
class Place:
    """A layer in the store: its path there, its path by names in the model, and whether it stood elsewhere before."""

    layer: Layer
    path: str
    source: str
    again: bool = False


def by_class(path: str, layers: Sequence[Layer]) -> Iterator[tuple[str, Layer]]:
    """As Keras 3 names stored layers: by class, numbered from the second of a class on."""
    del path
    counts: Counter[str] = Counter()
    for layer in layers:
        name = stored_name(layer)
        yield (f"{name}_{counts[name]}" if counts[name] else name), layer
        counts[name] += 1


def places(model: Layer, naming: Naming = by_class, container: str = "layers") -> Iterator[Place]:
    """Every layer of a model with its places in the store, the model itself first."""
    seen: set[int] = set()
    stack = [Place(model, "", "")]
    while stack:
        place = stack.pop()
        yield replace(place, again=id(place.layer) in seen)
        seen.add(id(place.layer))
        stack.extend(reversed(list(_inner(place, naming, container))))


def _inner(place: Place, naming: Naming, container: str) -> Iterator[Place]:
    layer = place.layer
    inner = layer.sublayers.items()
    path = place.path
    if isinstance(layer, Model) and not layer.is_graph:
        inner = layer.stored_layers().items()
    elif isinstance(layer, Model):
        path = joined(place.path, container)
        inner = naming(path, [each for each in layer.layers if not isinstance(each, Operation)])
    for name, each in inner:
        yield Place(each, joined(path, name), joined(place.source, each.name))


def stored_name(layer: Layer) -> str:
    """The layer's class, as it is registered, in snake case as Keras spells it: ``"Conv2D"`` -> ``"conv2d"``."""
    cls = type(layer)
    names = [name.split(">")[-1] for name, entry in LAYERS.items() if entry is cls and not name.startswith("Lambda:")]
    name = cls.__name__ if not names or cls.__name__ in names else names[0]
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def stored_weights(layer: Layer) -> list[Weight]:
    """The layer's own weights in the store's order: the trainable ones first."""
    return sorted(layer.own_weights, key=lambda weight: not weight.trainable)


def joined(*parts: str) -> str:
    """A path; empty parts leave no trace."""
    return "/".join(part for part in parts if part)


@dataclass(frozen=True)
class Owned:
    """A weight, the layer that it belongs to, its path by names, and whether training changes it."""

    weight: Weight
    owner: Layer
    path: str
    trains: bool


def owned_weights(layer: Layer) -> list[Owned]:
    """The weights of a layer and of those inside, each once, depth first."""
    found: dict[int, Owned] = {}
    stack = [(layer, layer.name, True)]
    while stack:
        current, path, outer = stack.pop()
        trains = outer and current.trainable
        for weight in current.own_weights:
            owned = Owned(weight, current, joined(path, weight.name), trains and weight.trainable)
            found.setdefault(id(weight), owned)
        inner = reversed(list(current.sublayers.values()))
        stack.extend((each, joined(path, each.name), trains) for each in inner)
    return list(found.values())


def legacy_order(weights: Sequence[Owned]) -> list[Owned]:
    """The order of ``.h5`` files: the weights that train first."""
    return sorted(weights, key=lambda owned: not owned.trains)
