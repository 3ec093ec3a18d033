"""Models as configs in the form that Keras 3 writes, and back.

A config of another form is brought into this one first, by `keras_file.normalize`.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from kcompile.errors import ModelError, shown
from kcompile.frontend.functional import Functional
from kcompile.frontend.layer import Layer
from kcompile.frontend.layer_configs import deserialize_layer, serialize_layer, shared_numbers
from kcompile.frontend.model import Model
from kcompile.frontend.sequential import Sequential
from kcompile.frontend.tracing import Call, KerasTensor, flatten, map_structure

F = TypeVar("F", bound=Functional)
S = TypeVar("S", bound=Sequential)

# Which result of a graph: the layer's name, the number of its call, the number of the call's result.
History = tuple[str, int, int]


# -- writing ----------------------------------------------------------------------------------------------------------


def serialize_model(model: Model) -> dict[str, Any]:
    """The model as Keras 3 writes it; layers that stand in several of its models are marked."""
    parents: dict[int, set[int]] = {}
    stack: list[Layer] = [model]
    while stack:
        layer = stack.pop()
        for inner in layer.sublayers.values():
            if id(inner) not in parents:
                stack.append(inner)
            parents.setdefault(id(inner), set()).add(id(layer))
    shared = [identity for identity, owners in parents.items() if len(owners) > 1]
    token = shared_numbers.set({identity: number for number, identity in enumerate(shared, 1)})
    try:
        return serialize_layer(model)
    finally:
        shared_numbers.reset(token)


def sequential_config(model: Sequential) -> dict[str, Any]:
    """The config of a Sequential model."""
    layers = [model.entry, *model.layers] if model.entry else model.layers
    config: dict[str, Any] = {"name": model.name, "trainable": model.trainable, "dtype": model.dtype}
    config["layers"] = [serialize_layer(layer) for layer in layers]
    if model.entry:
        config["build_input_shape"] = model.entry.batch_shape
    return config


def functional_config(model: Functional) -> dict[str, Any]:
    """The config of a Functional model: each layer with the calls that belong to the model."""
    members = {id(call) for call in model.topology.calls}
    numbers: dict[int, int] = {}
    entries: list[dict[str, Any]] = []
    for layer in model.layers:
        calls = [call for call in layer.calls if id(call) in members]
        numbers.update({id(call): number for number, call in enumerate(calls)})
        entries.append({**serialize_layer(layer), "name": layer.name, "inbound_nodes": calls})
    for entry in entries:
        entry["inbound_nodes"] = [_serialize_call(call, numbers) for call in entry["inbound_nodes"] if call.inputs]

    def result(tensor: KerasTensor) -> list[Any]:
        name, number, index = _history(tensor, numbers)
        # A Functional model counts its own graph as its first call here, though not in `keras_history`.
        return [name, number + (tensor.call is not None and isinstance(tensor.call.layer, Functional)), index]

    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": entries,
        "input_layers": map_structure(result, model.input),
        "output_layers": map_structure(result, model.output),
    }


def _history(tensor: KerasTensor, numbers: Mapping[int, int]) -> History:
    assert tensor.call is not None
    return tensor.call.layer.name, numbers[id(tensor.call)], tensor.index


def _serialize_call(call: Call, numbers: Mapping[int, int]) -> dict[str, Any]:
    args, kwargs = (_serialize_arguments(part, numbers) for part in (list(call.args), call.kwargs))
    return {"args": args, "kwargs": kwargs}


def _serialize_arguments(argument: Any, numbers: Mapping[int, int]) -> Any:
    if isinstance(argument, KerasTensor):
        history = list(_history(argument, numbers))
        config = {"shape": list(argument.shape), "dtype": argument.dtype, "keras_history": history}
        return {"class_name": "__keras_tensor__", "config": config}
    if isinstance(argument, slice):
        config = {"start": argument.start, "stop": argument.stop, "step": argument.step}
        return {"class_name": "__slice__", "config": config}
    if argument is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(argument, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": argument.tolist(), "dtype": argument.dtype.name}}
    if isinstance(argument, Mapping):
        return {str(key): _serialize_arguments(value, numbers) for key, value in argument.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(argument, list | tuple):
        return [_serialize_arguments(item, numbers) for item in argument]  # pyright: ignore[reportUnknownVariableType]
    return argument


# -- reading ----------------------------------------------------------------------------------------------------------


def sequential_from_config(cls: type[S], config: Mapping[str, Any]) -> S:
    """The Sequential model that a config describes."""
    where = f"Sequential model `{config.get('name', '?')}`"
    model = cls(name=config.get("name"), trainable=bool(config.get("trainable", True)))
    for spec in _list_of(config.get("layers"), f"`layers` of {where}"):
        model.add(deserialize_layer(spec))
    shape = config.get("build_input_shape")
    if model.entry is None and model.layers and isinstance(shape, list | tuple) and shape:
        model.build(tuple(shape))  # pyright: ignore[reportUnknownArgumentType]
    return model


@dataclass
class _Pending:
    """A call that waits for the results it reads."""

    layer: Layer
    number: int
    args: Any
    kwargs: Any

    def needs(self) -> Iterator[tuple[str, int]]:
        """The calls that must be made before."""
        if self.number:
            yield self.layer.name, self.number - 1
        for leaf in flatten((self.args, self.kwargs)):
            if isinstance(leaf, _Reference):
                yield leaf.name, leaf.number


@dataclass(frozen=True)
class _Reference:
    """Result number `index` of call `number` of the layer `name`."""

    name: str
    number: int
    index: int


def functional_from_config(cls: type[F], config: Mapping[str, Any]) -> F:
    """The Functional model that a config describes."""
    where = f"model `{config.get('name', '?')}`"
    entries = _list_of(config.get("layers"), f"`layers` of {where}")
    layers: dict[str, Layer] = {}
    pending: list[_Pending] = []
    results: dict[tuple[str, int], list[KerasTensor]] = {}
    for entry in entries:
        layer = deserialize_layer(entry)
        layer.name = entry.get("name") or layer.name  # where the `__init__` of a user's class takes none
        if layer.name in layers:
            raise ModelError(f"the layers of {where} must have names of their own. Received a second `{layer.name}`.")
        layers[layer.name] = layer
        if layer.calls and not entry.get("inbound_nodes"):
            results[layer.name, 0] = layer.calls[0].flat_outputs
        for number, node in enumerate(_list_of(entry.get("inbound_nodes"), f"`inbound_nodes` of `{layer.name}`")):
            pending.append(_pending(layer, number, node))
    _make_calls(pending, results, where)

    def tensor_of(leaf: _Reference) -> KerasTensor:
        shift = leaf.number > 0 and isinstance(layers.get(leaf.name), Functional)
        return _result(results, _Reference(leaf.name, leaf.number - shift, leaf.index), where)

    inputs, outputs = (map_structure(tensor_of, _references(config.get(f"{end}_layers"), where)) for end in _ENDS)
    return cls(inputs, outputs, name=config.get("name"), trainable=bool(config.get("trainable", True)))


_ENDS = ("input", "output")


def _pending(layer: Layer, number: int, node: Any) -> _Pending:
    if not isinstance(node, Mapping) or not {"args", "kwargs"} <= set(node):  # pyright: ignore[reportUnknownArgumentType]
        raise ModelError(f"`inbound_nodes` of layer `{layer.name}` must hold args and kwargs. Received: {shown(node)}.")
    args: Any = _deserialize_arguments(node["args"], layer.name)
    kwargs: Any = _deserialize_arguments(node["kwargs"], layer.name)
    given = {name: value for name, value in kwargs.items() if value is not None}
    return _Pending(layer, number, tuple(args), given)


def _deserialize_arguments(argument: Any, where: str) -> Any:
    if isinstance(argument, list | tuple):
        return [_deserialize_arguments(item, where) for item in argument]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(argument, Mapping):
        return argument
    items: dict[str, Any] = dict(argument)  # pyright: ignore[reportUnknownArgumentType]
    config: Any = items.get("config")
    if "class_name" not in items or not isinstance(config, Mapping):
        return {key: _deserialize_arguments(value, where) for key, value in items.items()}
    match items["class_name"]:
        case "__keras_tensor__":
            return _reference(config.get("keras_history"), where)  # pyright: ignore[reportUnknownMemberType]
        case "__slice__":
            return slice(config.get("start"), config.get("stop"), config.get("step"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        case "__ellipsis__":
            return Ellipsis
        case "__numpy__" | "__tensor__":
            return np.asarray(config.get("value"), config.get("dtype", "float32"))  # pyright: ignore[reportUnknownMemberType]
        case other:
            law = f"a call of layer `{where}` takes tensors, numbers and texts"
            raise ModelError(f"{law}. Received: an object of class {shown(other)}.")


def _reference(history: Any, where: str) -> _Reference:
    match history:
        case [str() as name, int() as number, int() as index, *_] if number >= 0 and index >= 0:
            return _Reference(name, number, index)
        case _:
            law = f"a tensor in the config of `{where}` must be given as [layer, call, result]"
            raise ModelError(f"{law}. Received: {shown(history)}.")


def _references(structure: Any, where: str) -> Any:
    """The model's inputs or outputs; a leaf is a list of a name and two numbers."""
    match structure:
        case [str(), int(), int()]:
            return _reference(structure, where)
        case list() | tuple():
            return [_references(item, where) for item in structure]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {key: _references(item, where) for key, item in structure.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return _reference(structure, where)


def _make_calls(pending: Sequence[_Pending], results: dict[tuple[str, int], list[KerasTensor]], where: str) -> None:
    """Make the calls, each as soon as what it reads is there.

    Raises:
        ModelError: a call reads a result that no call gives, or calls read each other in a circle.
    """
    waiting: dict[tuple[str, int], list[_Pending]] = {}
    missing: dict[int, int] = {}
    for call in pending:
        needs = {need for need in call.needs() if need not in results}
        missing[id(call)] = len(needs)
        for need in needs:
            waiting.setdefault(need, []).append(call)
    ready = deque(call for call in pending if not missing[id(call)])
    made = 0
    while ready:
        call = ready.popleft()
        args, kwargs = map_structure(lambda leaf: _resolved(results, leaf, where), (call.args, call.kwargs))
        outputs = call.layer(*args, **kwargs)
        results[call.layer.name, call.number] = list(flatten(outputs))
        made += 1
        for reader in waiting.pop((call.layer.name, call.number), ()):
            missing[id(reader)] -= 1
            if not missing[id(reader)]:
                ready.append(reader)
    if made < len(pending):
        stuck = sorted({f"`{call.layer.name}`" for call in pending if missing[id(call)]})
        raise ModelError(
            f"every layer of {where} must be reachable from its inputs, without circles. "
            f"Received: {', '.join(stuck[:8])}{' and others' * (len(stuck) > 8)} wait for results that never come."
        )


def _resolved(results: Mapping[tuple[str, int], list[KerasTensor]], leaf: Any, where: str) -> Any:
    return _result(results, leaf, where) if isinstance(leaf, _Reference) else leaf


def _result(results: Mapping[tuple[str, int], list[KerasTensor]], leaf: _Reference, where: str) -> KerasTensor:
    tensors = results.get((leaf.name, leaf.number), [])
    if leaf.index >= len(tensors):
        received = f"result {leaf.index} of call {leaf.number} of `{leaf.name}`"
        raise ModelError(f"{where} may read only results that its layers give. Received: {received}.")
    return tensors[leaf.index]


def _list_of(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ModelError(f"{what} must be a list. Received: {shown(value)}.")
    return value  # pyright: ignore[reportUnknownVariableType]
