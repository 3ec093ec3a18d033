"""The weights of ``.keras`` and ``.weights.h5`` files, which follow the tree of layers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from kcompile.frontend.keras_file import hdf5
from kcompile.frontend.keras_file.int8_layers import INT8_LAYERS, QuantizedLayer, become_int8
from kcompile.frontend.keras_file.layout import Place, by_class, joined, places, stored_name, stored_weights
from kcompile.frontend.layer import Layer
from kcompile.frontend.model import Model
from kcompile.frontend.weight import Weight

# Where Keras 2.13 put the layers of a model.
_CONTAINER_2_13 = "_layer_checkpoint_dependencies"

# State of layers that has no meaning at inference.
_IGNORED = ("seed_generator", "_seed_generator", "random_generator", "_random_generator")


def is_store(root: hdf5.Group) -> bool:
    """Whether a file holds weights in the layout of Keras 3."""
    return any(name in root for name in ("layers", _CONTAINER_2_13)) or _holds_arrays(root)


def _holds_arrays(root: hdf5.Group) -> bool:
    """Whether an object of the file keeps numbered arrays, as those of a model in the code of a `call` do."""
    groups = [root, *(root[name] for name in root if hdf5.is_group(root[name]))]
    return any("vars" in group for group in groups)


def assign(model: Model, root: hdf5.Group, where: str) -> list[str]:
    """Give the model the weights of a file; the problems are returned."""
    old = "layers" not in root and _CONTAINER_2_13 in root
    container = _CONTAINER_2_13 if old else "layers"
    problems: list[str] = []
    used: set[str] = set()

    def naming(path: str, layers: Sequence[Layer]) -> Iterator[tuple[str, Layer]]:
        return _twice_numbered(layers) if old else _named(hdf5.child(root, path, where), path, layers, where)

    for place in places(model, naming, container):
        used |= _assign_tables(place, root, where)
        _quantize(place, root, where)
        weights = stored_weights(place.layer)
        found = [_find(root, place.path, number, where) for number in range(len(weights))]
        used |= {path for path, _ in found}
        if not place.again:
            problems += _assign_own(place, weights, found, root, where)
    extra = [path for path in _arrays(root, container) if path not in used]
    return [*problems, *(f"`{path}` of the file: the model has no such weight." for path in extra)]


def _assign_own(
    place: Place, weights: Sequence[Weight], found: Sequence[tuple[str, Any]], root: hdf5.Group, where: str
) -> list[str]:
    """Give a layer its own weights, all or, where there are problems, none."""
    problems: list[str] = []
    for weight, (path, dataset) in zip(weights, found, strict=True):
        name = f"`{joined(place.source, weight.name)}`"
        if dataset is None:
            problems.append(f"{name}: the file holds no `{path}`.")
        elif (received := hdf5.shape_of(dataset)) != weight.shape:
            problems.append(f"{name} must have shape {weight.shape}. Received: {received} at `{path}`.")
    too_many = _find(root, place.path, len(weights), where)[1] is not None
    for weight, (_, dataset) in zip(weights, found, strict=True):
        if not problems and not too_many:
            name = f"`{joined(place.source, weight.name)}`"
            weight.assign(hdf5.array(dataset, weight.shape, f"{name} in {where}"))
    return problems


def _quantize(place: Place, root: hdf5.Group, where: str) -> None:
    """Make a float layer quantised whose arrays in the file are: integers, and one array of scales more."""
    if place.again or type(place.layer).__name__ not in INT8_LAYERS or isinstance(place.layer, QuantizedLayer):
        return
    count = len(place.layer.own_weights) + 1
    arrays = [_find(root, place.path, number, where)[1] for number in range(count)]
    shapes = [shape for array in arrays if (shape := hdf5.shape_of(array)) is not None]
    if hdf5.is_int8(arrays[0]) and len(shapes) == count:
        become_int8(place.layer, shapes)


def _assign_tables(place: Place, root: hdf5.Group, where: str) -> set[str]:
    """Give a layer the arrays that are stored under names of their own; their paths are returned."""
    used: set[str] = set()
    for name, expected in place.layer.tables.items():
        path = joined(place.path, "vars", name)
        dataset = hdf5.child(root, path, where)
        if dataset is not None:
            place.layer.set_table(name, hdf5.array(dataset, expected.shape, f"`{path}` in {where}"))
            used.add(path)
    return used


def _find(root: hdf5.Group, place: str, number: int, where: str) -> tuple[str, Any]:
    """The array of a place; an attribute that is private in some versions is found under either name."""
    parts = place.split("/")
    tail = parts[-1][1:] if parts[-1].startswith("_") else f"_{parts[-1]}"
    for path in (place, "/".join([*parts[:-1], tail])):
        full = joined(path, "vars", str(number))
        if (found := hdf5.child(root, full, where)) is not None:
            return full, found
    return joined(place, "vars", str(number)), None


def _named(group: hdf5.Group, path: str, layers: Sequence[Layer], where: str) -> Iterator[tuple[str, Layer]]:
    """Layers with the names under which they are stored: where the file notes the layers' own names, it is by these."""
    if not hdf5.is_group(group):
        return by_class(path, layers)
    own: dict[str, str] = {}
    for key in group:
        arrays = hdf5.child(group, f"{key}/vars", where)
        name = hdf5.attribute(arrays, "name") if arrays is not None else None
        own[str(name)] = str(key)
    if len(own) < len(group) or {layer.name for layer in layers} != set(own):
        return by_class(path, layers)
    return iter([(own[layer.name], layer) for layer in layers])


def _twice_numbered(layers: Sequence[Layer]) -> Iterator[tuple[str, Layer]]:
    """Keras 2.13 met each layer with weights twice, and counted it twice."""
    counts: Counter[str] = Counter()
    for layer in layers:
        name = stored_name(layer)
        yield (f"{name}_{counts[name]}" if counts[name] else name), layer
        counts[name] += 2 if layer.weights else 1


def _arrays(root: hdf5.Group, container: str) -> list[str]:
    """The paths of all arrays of layers, without what has no meaning at inference."""
    found: list[str] = []

    def visit(path: str, node: Any) -> None:
        if hdf5.is_dataset(node) and not set(path.split("/")) & set(_IGNORED):
            found.append(f"{container}/{path}")

    if hdf5.is_group(root.get(container)):
        root[container].visititems(visit)
    return found
