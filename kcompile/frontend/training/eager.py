"""Formulas that take arrays too: called with arrays, they are written as a small graph and computed at once."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

from kcompile.ir.evaluate import evaluate
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Builder
from kcompile.ir.types import Array, type_of

F = TypeVar("F", bound=Callable[..., Any])


def as_array(value: Any) -> Array:
    """`value` as an array: floats in single precision, as Keras takes them."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


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


def on_arrays(function: F) -> F:
    """`function` of ``(y_true, y_pred, ...)`` that takes expressions, made to take arrays as well."""

    @wraps(function)
    def either(y_true: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(y_pred, Expression):
            return function(y_true, y_pred, *args, **kwargs)
        return compute(lambda t, p: function(t, p, *args, **kwargs), y_true, y_pred)

    return cast(F, either)
