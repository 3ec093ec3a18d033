"""A model as boxes and arrows: the calls of its layers, with those inside models inside it where asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kcompile.frontend.layer import Layer
from kcompile.frontend.model import Model
from kcompile.frontend.tracing import Call, KerasTensor


@dataclass(frozen=True)
class LayerNode:
    """One call of a layer.

    Attributes:
        name: unique in the graph: the path of the layer, numbered from its second call on.
        inputs: the names of the nodes that it reads, in order.
        scope: the paths of the models that it lies in, the outermost first; empty at the top.
    """

    name: str
    call: Call
    inputs: tuple[str, ...]
    scope: tuple[str, ...] = ()

    @property
    def layer(self) -> Layer:
        """The layer that is called."""
        return self.call.layer


@dataclass
class _Walk:
    nested: bool
    nodes: list[LayerNode] = field(default_factory=list[LayerNode])
    taken: set[str] = field(default_factory=set[str])

    def model(self, model: Model, scope: tuple[str, ...], feeds: Sequence[str]) -> list[str]:
        """Add the nodes of a model that reads `feeds`; the names of those that give its outputs."""
        sources = dict(zip(map(id, model.inputs), feeds, strict=False))
        for call in model.topology.calls:
            known = [id(tensor) in sources for tensor in call.flat_outputs]
            if not all(known):
                inputs = [sources[id(tensor)] for tensor in call.inputs]
                names = self.call(call, scope, inputs)
                sources.update(zip(map(id, call.flat_outputs), names, strict=True))
        return [sources[id(tensor)] for tensor in model.outputs]

    def call(self, call: Call, scope: tuple[str, ...], inputs: Sequence[str]) -> list[str]:
        path = "/".join((*scope[-1:], call.layer.name))
        name, count = path, 0
        while name in self.taken:
            count += 1
            name = f"{path}_{count}"
        self.taken.add(name)
        if self.nested and isinstance(call.layer, Model):
            return self.model(call.layer, (*scope, name), inputs)
        self.nodes.append(LayerNode(name, call, tuple(inputs), scope))
        return [name] * len(call.flat_outputs)


def layer_nodes(model: Model, nested: bool = False) -> list[LayerNode]:
    """The calls of a model's layers, each after those it reads.

    Args:
        nested: whether models inside are shown by their layers; what feeds their inputs then feeds these.

    Raises:
        ModelError: the model has no graph yet.
    """
    walk = _Walk(nested)
    walk.model(model, (), ())
    return walk.nodes


def shapes(tensors: Sequence[KerasTensor]) -> str:
    """The shapes of tensors as a text: one alone, several in a list."""
    found = [str(tensor.shape) for tensor in tensors]
    return found[0] if len(found) == 1 else ", ".join(found) or "-"
