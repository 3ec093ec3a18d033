"""Weights by the paths that Keras gives variables."""

from kcompile.frontend.layer import Layer
from kcompile.frontend.weight import Weight


def weight_paths(model: Layer) -> dict[Weight, str]:
    """The path of each weight of a model: ``"encoder/dense/kernel"``.

    Layers of a graph that states its inputs have paths of their own; those of a `Sequential` and of a `call` stand
    under the model's name.
    """
    found: dict[Weight, str] = {}
    stack: list[tuple[Layer, str]] = [(model, "")]
    while stack:
        layer, outer = stack.pop()
        path = _prefix(layer, outer)
        for weight in layer.own_weights:
            found.setdefault(weight, path + weight.name)
        stack.extend((inner, path) for inner in reversed(list(layer.sublayers.values())))
    return found


def _prefix(layer: Layer, outer: str) -> str:
    from kcompile.frontend.model import Model
    from kcompile.frontend.sequential import Sequential

    if isinstance(layer, Model) and layer.is_graph:
        return f"{layer.name}/" if isinstance(layer, Sequential) else ""
    return f"{outer}{layer.name}/"
