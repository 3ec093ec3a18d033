"""Calls of operations by users: recorded on symbolic tensors, written while a graph is traced, computed on arrays."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kcompile.errors import ModelError, TypeRuleError
from kcompile.frontend.layer import LAYERS
from kcompile.frontend.operations.operation import OPERATIONS, Definition
from kcompile.frontend.tensor import Extent, Tensor, current, lifted
from kcompile.frontend.tracing import KerasTensor, Trace, flatten, map_structure
from kcompile.frontend.training.eager import as_array
from kcompile.frontend.weight import Weight
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Value
from kcompile.ir.types import Array


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """The operation of the class `name` in Keras, on what it is given.

    Of symbolic tensors, a call in the functional graph; of tensors in a traced `call`, ops in its graph; of arrays and
    numbers, arrays.

    Raises:
        ModelError: the operation does not take these arguments.
    """
    definition = OPERATIONS[name]
    try:
        arguments = definition.bind(args, kwargs)
    except TypeError as error:
        raise ModelError(f"kcompile.ops.{definition.function}{definition.signature}: {error}.") from None
    kinds = {type(leaf) for leaf in _leaves(arguments)}
    if KerasTensor in kinds:
        return _recorded(name, definition, arguments)
    t = current()
    if t is not None and kinds & {Tensor, Extent, Weight}:
        return lifted(_written(definition, t, arguments))
    return computed(lambda t: _written(definition, t, arguments))


def _leaves(arguments: Mapping[str, Any]) -> Iterator[Any]:
    for leaf in flatten(arguments):
        yield leaf
        if isinstance(leaf, slice):
            yield from (leaf.start, leaf.stop, leaf.step)


def _recorded(name: str, definition: Definition, arguments: Mapping[str, Any]) -> Any:
    """A call of the operation as a layer: tensors go to the call, the rest to the constructor, as in Keras."""
    options = {key: value for key, value in arguments.items() if definition.is_option(key)}
    layer: Any = LAYERS[f"keras.ops>{name}"](arguments=options)  # pyright: ignore[reportCallIssue]
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for key, parameter in definition.parameters.items():
        if key not in arguments or key in options:
            continue
        value = map_structure(_plain, arguments[key])
        if parameter.kind == parameter.VAR_POSITIONAL:
            positional.extend(value)
        elif len(positional) == len(named) == 0 or not named:
            positional.append(value)
        else:
            named[key] = value
    return layer(*positional, **named)


def _plain(leaf: Any) -> Any:
    """A leaf as the functional graph keeps it: weights as the arrays that they hold now."""
    return leaf.value if isinstance(leaf, Weight) else leaf


def _written(definition: Definition, t: Trace, arguments: Mapping[str, Any]) -> Any:
    """The rule's results, in values."""
    given = {key: _lower(t, value, definition, key) for key, value in arguments.items()}
    try:
        return definition.of_names(t, given)
    except TypeRuleError as error:
        received = ", ".join(f"{key}={_shown(value)}" for key, value in given.items())
        raise ModelError(f"kcompile.ops.{definition.function} does not take {received}: {error}") from error
    except TypeError as error:
        received = ", ".join(f"{key}={_shown(value)}" for key, value in given.items())
        raise ModelError(f"kcompile.ops.{definition.function} does not take {received} ({error}).") from error


def _shown(value: Any) -> str:
    return str(map_structure(lambda leaf: str(leaf.type) if isinstance(leaf, Value) else leaf, value))


def _lower(t: Trace, value: Any, definition: Definition, key: str) -> Any:
    """An argument as a rule takes it: tensors as values; arrays too, and numbers, unless the rule takes them."""
    annotation = definition.parameters[key].annotation
    as_it_is = annotation is Any or definition.is_option(key)
    if annotation is Value and isinstance(value, int | float):
        return t.constant(as_array(value).astype("int32") if type(value) is int else as_array(value))
    if isinstance(value, list | tuple) and not as_it_is and not any(map(_is_tensor, flatten(value))):
        value = as_array(value)
    return map_structure(lambda leaf: _lower_leaf(t, leaf, as_it_is), value)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor | Weight | np.ndarray | Value)


def _lower_leaf(t: Trace, leaf: Any, as_it_is: bool) -> Any:
    match leaf:
        case Tensor():
            return leaf.value
        case Weight():
            return t.read(leaf)
        case Extent():
            return leaf.dim
        case slice():
            return slice(
                *(part.dim if isinstance(part, Extent) else part for part in (leaf.start, leaf.stop, leaf.step))
            )
        case np.ndarray() | np.generic() if not as_it_is:
            return t.constant(as_array(leaf))
        case _:
            return leaf


def computed(write: Callable[[Trace], Any]) -> Any:
    """The arrays that a graph without inputs computes, in the structure that `write` gives."""
    b = Builder("eager")
    results = write(Trace(b, lambda weight, path: b.constant(weight.array, path)))
    leaves = [leaf for leaf in flatten(results) if isinstance(leaf, Value)]
    found: Iterator[Array] = iter(evaluate(b.build(leaves), {}).values())
    return map_structure(lambda leaf: next(found) if isinstance(leaf, Value) else leaf, results)
