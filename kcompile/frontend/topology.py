"""What lies between the inputs and the outputs of a model, in an order that can be run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.inputs import Input, is_input
from kcompile.frontend.layer import Layer
from kcompile.frontend.tracing import Call, KerasTensor, flatten, map_structure


@dataclass(frozen=True)
class Topology:
    """The calls that compute the outputs, each after those it reads, and the layers in Keras's order."""

    calls: tuple[Call, ...]
    layers: tuple[Layer, ...]

    def calls_of(self, layer: Layer) -> list[Call]:
        """The calls of `layer` that belong to the model, in the order they were made."""
        members = {id(call) for call in self.calls}
        return [call for call in layer.calls if id(call) in members]


def topology(inputs: Sequence[KerasTensor], outputs: Sequence[KerasTensor]) -> Topology:
    """What computes `outputs` from `inputs`.

    Layers stand as Keras lists them: by falling distance from the outputs, then in the order in which a depth-first
    walk from the outputs meets them; an unused input comes before the last layers.

    Raises:
        ModelError: an output needs an input that is not among `inputs`.
    """
    order, met = _walk(outputs)
    entries = [call_of(tensor) for tensor in inputs]
    known = {id(call) for call in entries}
    missing = [c.layer.name for c in order if not c.inputs and id(c) not in known and is_input(c.flat_outputs[0])]
    if missing:
        raise ModelError(
            f"every input that the outputs need must be among the model's inputs. Received: inputs="
            f"{[t.name for t in inputs]}. Missing: {', '.join(f'`{name}`' for name in missing)}. "
            "Add these tensors to `inputs`."
        )
    depths: dict[int, int] = {}
    layer_depths: dict[int, int] = {}
    for call in reversed(order):
        depth = max(depths.get(id(call), 0), layer_depths.get(id(call.layer), 0))
        depths[id(call)] = layer_depths[id(call.layer)] = depth
        for tensor in call.inputs:
            parent = id(call_of(tensor))
            depths[parent] = max(depths.get(parent, 0), depth + 1)
    layers = {id(call.layer): call.layer for call in order}
    for call in entries:
        layers.setdefault(id(call.layer), call.layer)
    ranked = sorted(layers, key=lambda i: (-layer_depths.get(i, 0), met.get(i, -1)))
    unused = [call for call in entries if id(call.layer) not in met]
    return Topology((*unused, *order), tuple(layers[i] for i in ranked))


def _walk(outputs: Sequence[KerasTensor]) -> tuple[list[Call], dict[int, int]]:
    """Calls in the order in which a depth-first walk leaves them; when it first met each layer, by identity."""
    order: list[Call] = []
    met: dict[int, int] = {}
    seen: set[int] = set()
    stack = [(call_of(tensor), False) for tensor in reversed(outputs)]
    while stack:
        call, done = stack.pop()
        if done:
            order.append(call)
            continue
        if id(call) in seen:
            continue
        seen.add(id(call))
        met.setdefault(id(call.layer), len(met))
        stack.append((call, True))
        stack.extend((call_of(tensor), False) for tensor in reversed(call.inputs))
    return order, met


def call_of(tensor: KerasTensor) -> Call:
    """The call that the tensor comes from.

    Raises:
        ModelError: it comes from none.
    """
    if tensor.call is None:
        raise ModelError(f"tensor `{tensor.name}` comes from no layer. Make inputs with kcompile.Input(...).")
    return tensor.call


def cut(inputs: Sequence[KerasTensor], outputs: Any) -> tuple[list[KerasTensor], Any]:
    """The part of a graph from inner tensors on: new Inputs in their place, and every call after them made again."""
    entries = {id(t): t if is_input(t) else Input(batch_shape=t.shape, dtype=t.dtype) for t in inputs}
    copies: dict[int, KerasTensor] = dict(entries)
    for call in _calls_after(copies, _leaves(outputs)):
        args, kwargs = map_structure(lambda leaf: _copied(copies, leaf), (call.args, call.kwargs))
        made = call.layer(*args, **kwargs)
        copies.update({id(old): new for old, new in zip(call.flat_outputs, _leaves(made), strict=True)})
    return [entries[id(t)] for t in inputs], map_structure(lambda leaf: _copied(copies, leaf), outputs)


def _calls_after(entries: Mapping[int, KerasTensor], outputs: Sequence[KerasTensor]) -> list[Call]:
    order: list[Call] = []
    seen: set[int] = set()
    stack = [(tensor, False) for tensor in reversed(outputs)]
    while stack:
        tensor, done = stack.pop()
        call = call_of(tensor)
        if done:
            order.append(call)
        elif id(tensor) not in entries and id(call) not in seen and call.inputs:
            seen.add(id(call))
            stack.append((tensor, True))
            stack.extend((parent, False) for parent in reversed(call.inputs))
    return order


def _copied(copies: Mapping[int, KerasTensor], leaf: Any) -> Any:
    return copies.get(id(leaf), leaf) if isinstance(leaf, KerasTensor) else leaf


def _leaves(structure: Any) -> list[KerasTensor]:
    return [leaf for leaf in flatten(structure) if isinstance(leaf, KerasTensor)]
