"""A model as boxes and arrows: the calls of its layers, with those inside models inside it where asked.

A model whose layers stand in the code of a `call` is traced instead: the ops that predict, in boxes by their layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from kcompile.frontend.layer import Layer
from kcompile.frontend.model import Model
from kcompile.frontend.tracing import Call, KerasTensor
from kcompile.ir.graph import Node, Value
from kcompile.ir.ops.constant import Constant
from kcompile.ir.types import TensorType


@dataclass(frozen=True)
class LayerNode:
    """One call of a layer.

    Attributes:
        name: unique in the graph: the path of the layer, numbered from its second call on.
        kind: the layer's class; of what the code of a `call` does itself, the op.
        layer: None for what is no layer.
        inputs: the names of the nodes that it reads, in order.
        takes: the types of what it reads.
        gives: the types of its results.
    """

    name: str
    kind: str
    layer: Layer | None
    inputs: tuple[str, ...]
    takes: tuple[TensorType, ...]
    gives: tuple[TensorType, ...]


def layer_nodes(model: Model, nested: bool = False) -> list[LayerNode]:
    """The calls of a model's layers, each after those it reads.

    Args:
        nested: whether models inside are shown by their layers; what feeds their inputs then feeds these.

    Raises:
        ModelError: the model has no graph yet.
    """
    if not model.is_graph:
        return _traced(model, nested)
    walk = _Walk(nested)
    walk.model(model, "", ())
    return walk.nodes


def shape_text(type: TensorType) -> str:
    """A shape as Keras prints it: ``"(None, 28, 28, 1)"``."""
    return str(KerasTensor(type).shape)


# -- models that are graphs -------------------------------------------------------------------------------------------


@dataclass
class _Walk:
    nested: bool
    nodes: list[LayerNode] = field(default_factory=list[LayerNode])
    taken: set[str] = field(default_factory=set[str])

    def model(self, model: Model, path: str, feeds: Sequence[str]) -> list[str]:
        """Add the nodes of a model that reads `feeds`; the names of those that give its outputs."""
        sources = dict(zip(map(id, model.inputs), feeds, strict=False))
        for call in model.topology.calls:
            known = [id(tensor) in sources for tensor in call.flat_outputs]
            if not all(known):
                inputs = [sources[id(tensor)] for tensor in call.inputs]
                names = self.call(call, path, inputs)
                sources.update(zip(map(id, call.flat_outputs), names, strict=True))
        return [sources[id(tensor)] for tensor in model.outputs]

    def call(self, call: Call, path: str, inputs: Sequence[str]) -> list[str]:
        name = _unique(f"{path}/{call.layer.name}" if path else call.layer.name, self.taken)
        if self.nested and isinstance(call.layer, Model) and call.layer.is_graph:
            return self.model(call.layer, name, inputs)
        takes, gives = (tuple(t.type for t in tensors) for tensors in (call.inputs, call.flat_outputs))
        self.nodes.append(LayerNode(name, type(call.layer).__name__, call.layer, tuple(inputs), takes, gives))
        return [name] * len(gives)


def _unique(path: str, taken: set[str]) -> str:
    name, count = path, 0
    while name in taken:
        count += 1
        name = f"{path}_{count}"
    taken.add(name)
    return name


# -- models that are code ---------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Group:
    """Values that one call of a layer computes."""

    path: str
    kind: str
    reads: dict[Value, "_Group"] = field(default_factory=dict[Value, "_Group"])
    values: list[Value] = field(default_factory=list[Value])

    def follows(self, other: "_Group") -> bool:
        """Whether this one reads, by way of others, what `other` computes."""
        stack: list[_Group] = [self]
        seen: set[int] = set()
        while stack:
            group = stack.pop()
            if group is other:
                return True
            if id(group) not in seen:
                seen.add(id(group))
                stack.extend(group.reads.values())
        return False


def _traced(model: Model, nested: bool) -> list[LayerNode]:
    graph = model.trace()
    layers = dict(_paths(model))
    groups = [_Group(value.name, "InputLayer", values=[value]) for value in graph.inputs]
    of = {group.values[0]: group for group in groups}
    latest: dict[str, _Group] = {}
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            continue
        path = node.source if nested else node.source.split("/")[0]
        group = latest.get(path)
        if not path or group is None or not _joins(node, group, of):
            kind = type(layers[path]).__name__ if path in layers else node.op.op_name
            group = _Group(path or node.op.op_name, kind)
            groups.append(group)
            latest[path] = group
        group.reads.update({value: of[value] for value in node.inputs if value in of and of[value] is not group})
        group.values.extend(node.outputs)
        of.update(dict.fromkeys(node.outputs, group))
    # A call may go on with what was computed after it began.
    ordered = TopologicalSorter({group: group.reads.values() for group in groups}).static_order()
    return _as_nodes(list(ordered), layers, set(graph.outputs))


def _joins(node: Node, group: _Group, of: Mapping[Value, _Group]) -> bool:
    """Whether a node belongs to the present call of its layer, and not to another that reads this one's results."""
    others = (of[value] for value in node.inputs if value in of and of[value] is not group)
    return not any(other.follows(group) for other in others)


def _as_nodes(groups: Sequence[_Group], layers: Mapping[str, Layer], outputs: set[Value]) -> list[LayerNode]:
    taken: set[str] = set()
    names = {id(group): _unique(group.path, taken) for group in groups}
    read = {value for group in groups for value in group.reads} | outputs
    return [
        LayerNode(
            names[id(group)],
            group.kind,
            layers.get(group.path),
            tuple(names[id(source)] for source in group.reads.values()),
            tuple(value.type for value in group.reads),
            tuple(value.type for value in group.values if value in read),
        )
        for group in groups
    ]


def _paths(model: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """The layers inside with their paths by names."""
    for layer in model.layers if isinstance(model, Model) else model.sublayers.values():
        own = f"{path}/{layer.name}" if path else layer.name
        yield own, layer
        yield from _paths(layer, own)
