"""Which layer each weight of a model belongs to, and what that layer says of it: what it costs, what limits it."""

from collections.abc import Callable, Sequence
from typing import Any

from kcompile.frontend.layer import Layer
from kcompile.frontend.training import constraints, regularizers
from kcompile.frontend.training.eager import compute
from kcompile.frontend.training.state import State
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression
from kcompile.ir.types import Array


def weight_constraints(model: Layer) -> dict[Weight, Callable[[Expression], Expression]]:
    """What the weights of a layer, and of those inside, are brought back to after each step."""
    pairs = {weight: weight.constraint or _option(layer, weight, "constraint") for layer, weight in owners(model)}
    limits = {weight: constraints.get(given) for weight, given in pairs.items()}
    return {weight: limit for weight, limit in limits.items() if limit is not None}


def weight_penalties(model: Layer, state: State, trainable: Sequence[Weight]) -> list[Expression]:
    """What the layers' regularizers add to the loss, for weights that training changes."""
    found: list[Expression] = []
    for layer, weight in owners(model):
        penalty = regularizers.get(weight.regularizer or _option(layer, weight, "regularizer"))
        if penalty is not None and any(weight is each for each in trainable):
            found.append(penalty(state.expression(weight)))
    return found


def owners(model: Layer) -> list[tuple[Layer, Weight]]:
    """The weights of a layer and of those inside, each once, with the layer that it belongs to."""
    found: dict[Weight, Layer] = {}
    stack = [model]
    while stack:
        layer = stack.pop()
        for weight in layer.own_weights:
            found.setdefault(weight, layer)
        stack.extend(reversed(list(layer.sublayers.values())))
    return [(layer, weight) for weight, layer in found.items()]


def penalties(model: Layer) -> list[Array]:
    """What the regularizers of the weights of a layer, and of those inside, cost now."""
    found = [(w, regularizers.get(w.regularizer or _option(layer, w, "regularizer"))) for layer, w in owners(model)]
    return [compute(penalty, weight.array) for weight, penalty in found if penalty is not None]


def _option(layer: Layer, weight: Weight, kind: str) -> Any:
    """The layer's argument about a weight: ``kernel_regularizer``, ``recurrent_constraint`` of a recurrent kernel."""
    for stem in (weight.name, weight.name.removesuffix("_kernel")):
        value = getattr(layer, f"{stem}_{kind}", None)
        if value is not None:
            return value
    return None
