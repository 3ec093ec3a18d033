"""Formulas that take arrays too: called with arrays, they are written as a small graph and computed at once."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from kcompile.ir.evaluate import evaluate
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Builder
from kcompile.ir.types import Array, type_of

if TYPE_CHECKING:
    from kcompile.frontend.layer import Layer

F = TypeVar("F", bound=Callable[..., Any])


def as_array(value: Any) -> Array:
    """`value` as an array: doubles in single precision, as Keras takes them."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def compute(write: Callable[..., Any], *arrays: Any) -> Any:
    """What `write` gives for arrays in the place of expressions, in its structure; None stays None."""
    from kcompile.frontend.tracing import flatten, map_structure

    b = Builder("eager")
    given = {f"x{i}": as_array(array) for i, array in enumerate(arrays) if array is not None}
    named = {f"x{i}": array for i, array in enumerate(arrays)}
    inputs = [
        Expression(b, b.input(name, type_of(given[name]))) if array is not None else None
        for name, array in named.items()
    ]
    results = write(*inputs)
    leaves = [leaf.value for leaf in flatten(results) if isinstance(leaf, Expression)]
    found = iter(evaluate(b.build(leaves), given).values())
    return map_structure(lambda leaf: next(found) if isinstance(leaf, Expression) else leaf, results)


def apply_layer(layer: "Layer", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The results of a layer on arrays, computed at once; with ``training=True`` it acts as in training."""
    from kcompile.frontend.initializers import drawn_seed
    from kcompile.frontend.tracing import Trace, flatten, map_structure
    from kcompile.frontend.training.effects import Effects
    from kcompile.frontend.training.state import State, assign

    b = Builder(layer.name)
    arrays: dict[str, Array] = {"seed": np.asarray(drawn_seed(), np.int64)}
    state = State(b)
    asked = kwargs.get("training")
    effects = Effects(state, b.input("seed", type_of(arrays["seed"])), bool(asked), overrides=asked is not None)

    def value_of(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray):
            return leaf
        name = f"x{len(arrays)}"
        arrays[name] = as_array(leaf)
        return b.input(name, type_of(arrays[name]))

    given = tuple(np.asarray(each) if isinstance(each, list) and _is_numbers(each) else each for each in args)
    values, named = map_structure(value_of, (given, kwargs))
    results = Trace(b, state.read, effects).run(layer, *values, **named)
    leaves = list(flatten(results))
    found = list(evaluate(b.build([*leaves, *state.written.values()]), {**arrays, **state.arrays()}).values())
    assign(list(state.written), found[len(leaves) :])
    queue = iter(found)
    return map_structure(lambda _: next(queue), results)


def _is_numbers(value: Any) -> bool:
    return all(_is_numbers(item) if isinstance(item, list) else isinstance(item, int | float) for item in value)


def on_arrays(function: F) -> F:
    """`function` of ``(y_true, y_pred, ...)`` that takes expressions, made to take arrays and tensors as well."""

    @wraps(function)
    def either(y_true: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
        from kcompile.frontend.training.formulas import holds_tensors, through_expressions

        if isinstance(y_pred, Expression):
            return function(y_true, y_pred, *args, **kwargs)
        run = through_expressions if holds_tensors(y_true, y_pred) else compute
        return run(lambda t, p: function(t, p, *args, **kwargs), y_true, y_pred)

    setattr(either, "takes_expressions", True)  # noqa: B010 - functions have no such member for pyright
    return cast(F, either)


def on_array(method: F) -> F:
    """A method of one expression that takes an array or a tensor as well."""

    @wraps(method)
    def either(self: Any, x: Any) -> Any:
        from kcompile.frontend.training.formulas import holds_tensors, through_expressions

        if isinstance(x, Expression):
            return method(self, x)
        run = through_expressions if holds_tensors(x) else compute
        return run(lambda each: method(self, each), x)

    setattr(either, "takes_expressions", True)  # noqa: B010 - functions have no such member for pyright
    return cast(F, either)
