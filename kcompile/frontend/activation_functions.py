"""``kcompile.activations``: each activation as a function on tensors, which layers take in place of its name too."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import activations, registry
from kcompile.frontend.operations.calling import computed
from kcompile.frontend.operations.functions import FUNCTIONS as OPERATIONS
from kcompile.frontend.tensor import Tensor, current, lifted
from kcompile.frontend.tracing import KerasTensor
from kcompile.frontend.training.eager import as_array


def _function(name: str) -> Callable[..., Any]:
    def activation(x: Any, **arguments: Any) -> Any:
        if arguments:
            return _with_arguments(name, x, arguments)
        return _applied(name, x)

    activation.__name__ = activation.__qualname__ = name
    activation.__doc__ = f'What ``activation="{name}"`` of a layer computes.'
    setattr(activation, "keras_activation", name)  # noqa: B010 - functions have no such member for pyright
    return activation


def _applied(name: str, x: Any) -> Any:
    if isinstance(x, KerasTensor):
        from kcompile.frontend.layers import Activation

        return Activation(name)(x)
    t = current()
    if isinstance(x, Tensor) and t is not None:
        return lifted(activations.apply(t, activations.canonical(name), x.value), [x.mask])
    array = as_array(x)
    floats = array.astype(np.float32) if array.dtype.kind != "f" else array
    return computed(lambda t: activations.apply(t, activations.canonical(name), t.constant(floats)))


def _with_arguments(name: str, x: Any, arguments: dict[str, Any]) -> Any:
    if name == "relu":
        from kcompile.frontend.layers import ReLU

        return ReLU(**arguments)(x)
    if name not in OPERATIONS:
        raise ModelError(f"activation {name} takes no arguments. Received: {', '.join(arguments)}.")
    return OPERATIONS[name](x, **arguments)


# Every activation by its name.
FUNCTIONS: dict[str, Callable[..., Any]] = {name: _function(name) for name in sorted(activations.PUBLIC)}


def get(identifier: Any) -> Callable[..., Any]:
    """The function that a name, a config or a function stands for; None is "linear".

    Raises:
        ModelError: there is none of that name.
    """
    if identifier is None:
        return FUNCTIONS["linear"]
    if callable(identifier):
        return identifier
    name = identifier.get("config") if isinstance(identifier, dict) else identifier  # pyright: ignore
    found: Any = registry.find(name) or FUNCTIONS.get(str(name))  # pyright: ignore[reportUnknownArgumentType]
    if found is None:
        law = f"an activation must be a function or one of {', '.join(FUNCTIONS)}"
        raise ModelError(f"{law}. Received: {identifier!r}.")
    return found


def serialize(activation: Any) -> Any:
    """An activation as a config holds it."""
    name = getattr(activation, "keras_activation", None)
    return name or activations.serialize(activations.get(activation, "`activation`"))


deserialize = get
