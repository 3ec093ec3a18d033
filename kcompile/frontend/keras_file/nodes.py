"""Connections of a functional graph as Keras 2 wrote them, in the form of Keras 3.

Keras 2 lists for each call ``[[layer, call, result, keyword arguments], ...]``; TensorFlow's later versions nest these
in lists and dicts, put tensors among the keyword arguments, and write a constant as ``["_CONSTANT_VALUE", -1, value]``.
Keras 3 writes ``{"args": [...], "kwargs": {...}}`` with a ``__keras_tensor__`` for each tensor.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kcompile.errors import ModelError

# Layers that take a list of one sequence and its initial state.
_RECURRENT = frozenset({"SimpleRNN", "LSTM", "GRU", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})


def modern_graph(config: Mapping[str, Any], model_names: Mapping[str, str]) -> dict[str, Any]:
    """A functional config with its connections in Keras 3's form; Keras 3's own stay as they are.

    Args:
        model_names: the class (``"Functional"`` or ``"Sequential"``) of each layer that is a model, by name.

    Raises:
        ModelError: a connection is of no known form.
    """
    entries: list[dict[str, Any]] = config["layers"]
    if all(isinstance(node, Mapping) for entry in entries for node in entry["inbound_nodes"]):
        return dict(config)
    names = {entry["name"] for entry in entries}
    outputs = config.get("output_layers")
    shifts = _shifts(entries, outputs, names, model_names)

    def call(entry: Mapping[str, Any], node: Any) -> Any:
        if isinstance(node, Mapping) and {"args", "kwargs"} <= set(node):  # pyright: ignore[reportUnknownArgumentType]
            return node  # pyright: ignore[reportUnknownVariableType]
        return _call(entry, node, names, shifts)

    def output(leaf: Any) -> Any:
        # Keras 3 counts a Functional model's own graph as its first call here, and that of no other model.
        name, number, index = leaf
        return [name, number - shifts.get(name, 0) + (model_names.get(name) == "Functional"), index]

    made = [{**entry, "inbound_nodes": [call(entry, node) for node in entry["inbound_nodes"]]} for entry in entries]
    return {**config, "layers": made, "output_layers": _map_leaves(output, outputs, names)}


def predicting(node: Any) -> Any:
    """A call of Keras 3 without its argument `training`: the model's own takes its place, False in `predict`."""
    kwargs: Any = node.get("kwargs") if isinstance(node, Mapping) else None  # pyright: ignore
    if not isinstance(kwargs, Mapping) or "training" not in kwargs:
        return node
    return {**node, "kwargs": {key: value for key, value in kwargs.items() if key != "training"}}


def _shifts(
    entries: list[dict[str, Any]], outputs: Any, names: set[str], model_names: Mapping[str, str]
) -> dict[str, int]:
    """By how much references to calls of nested models are too high: most versions count the model's own graph first.

    A model's calls are all referred to, so that a highest number equal to the number of calls tells.
    """
    highest: dict[str, int] = {}
    for leaf in _leaves([outputs, *(entry["inbound_nodes"] for entry in entries)], names):
        highest[leaf[0]] = max(highest.get(leaf[0], 0), leaf[1])
    counts = {entry["name"]: len(entry["inbound_nodes"]) for entry in entries if entry["name"] in model_names}
    return {name: int(highest.get(name, count) >= count) for name, count in counts.items()}


def _call(entry: Mapping[str, Any], node: Any, names: set[str], shifts: Mapping[str, int]) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}

    def tensor(leaf: Any) -> Any:
        name, number, index, *rest = leaf
        for extra in rest:
            kwargs.update(extra or {})
        if name == "_CONSTANT_VALUE":
            return index
        return _tensor(name, number - shifts.get(name, 0), index)

    argument = _map_leaves(tensor, node, names)
    made = {key: _map_leaves(tensor, value, names) for key, value in list(kwargs.items())}
    if isinstance(argument, list) and len(argument) == 1:  # pyright: ignore[reportUnknownArgumentType]
        argument = argument[0]  # pyright: ignore[reportUnknownVariableType]
    if entry["class_name"] in _RECURRENT and isinstance(argument, list):
        return {"args": [argument[0]], "kwargs": {**made, "initial_state": argument[1:]}}
    return {"args": [argument], "kwargs": made}


def _tensor(name: str, number: int, index: int) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, number, index]}}


def _is_leaf(structure: Any, names: set[str]) -> bool:
    match structure:
        case [str() as name, int(), _, *rest] if name in names or name == "_CONSTANT_VALUE":
            return len(rest) <= 1
        case [str() as name, int(), int()] | [str() as name, int(), int(), dict()]:
            law = "a connection must come from a layer of the same model"
            raise ModelError(f"{law}. Received: one from `{name}`.")
        case _:
            return False


def _map_leaves(function: Any, structure: Any, names: set[str]) -> Any:
    if _is_leaf(structure, names):
        return function(structure)
    if isinstance(structure, list):
        return [_map_leaves(function, item, names) for item in structure]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(structure, Mapping):
        return {k: _map_leaves(function, v, names) for k, v in structure.items()}  # pyright: ignore[reportUnknownVariableType]
    return structure


def _leaves(structure: Any, names: set[str]) -> Iterator[Any]:
    """Every reference in a structure, also those among keyword arguments."""
    items: Any = ()
    if _is_leaf(structure, names):
        yield structure
        items = structure[3:]
    elif isinstance(structure, list):
        items = structure  # pyright: ignore[reportUnknownVariableType]
    elif isinstance(structure, Mapping):
        items = structure.values()  # pyright: ignore[reportUnknownVariableType]
    for item in items:
        yield from _leaves(item, names)
