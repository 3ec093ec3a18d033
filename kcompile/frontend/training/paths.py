"""Weights by the names of the layers that they lie in."""

from kcompile.frontend.layer import Layer
from kcompile.frontend.weight import Weight


def weight_paths(model: Layer) -> dict[Weight, str]:
    """The path of each weight of a model, without the model's own name: ``"encoder/dense/kernel"``."""
    found: dict[Weight, str] = {}
    stack: list[tuple[Layer, str]] = [(model, "")]
    while stack:
        layer, path = stack.pop()
        for weight in layer.own_weights:
            found.setdefault(weight, path + weight.name)
        stack.extend((inner, f"{path}{inner.name}/") for inner in reversed(list(layer.sublayers.values())))
    return found
