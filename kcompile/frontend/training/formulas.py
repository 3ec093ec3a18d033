"""Users' functions, which take tensors and write with ``kcompile.ops``, where kcompile's own take expressions."""

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from kcompile.errors import GraphError, ModelError
from kcompile.frontend.tensor import Extent, Tensor, current, lifted, writing
from kcompile.frontend.tracing import Trace, map_structure
from kcompile.frontend.training.naming import object_name
from kcompile.frontend.weight import Weight
from kcompile.ir import expression
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Builder


@contextmanager
def writing_with(b: Builder) -> Generator[None]:
    """Functions of ``kcompile.ops`` called inside write with `b`: as what is traced does, where it is its graph."""
    t = current()
    if t is not None and t.b is b:
        yield
        return
    with writing(Trace(b, lambda weight, path: b.constant(weight.array, path))):
        yield


def tensors(structure: Any) -> Any:
    """The structure with tensors for its expressions."""
    return lifted(map_structure(lambda leaf: leaf.value if isinstance(leaf, Expression) else leaf, structure))


def as_formula(function: Callable[..., Any], what: str = "") -> Callable[..., Any]:
    """A user's function of tensors as one of expressions; kcompile's own are such already.

    Args:
        what: what the function is, for errors, by default its name.
    """
    called = function if inspect.isroutine(function) else vars(type(function)).get("__call__")
    if getattr(called, "takes_expressions", False):
        return function

    @wraps(function)
    def write(*values: Any, **keywords: Any) -> Any:
        b = next(value.b for value in values if isinstance(value, Expression))
        with writing_with(b):
            found = call_users(function, what or object_name(function), *tensors(values), **tensors(keywords))
            return as_expression(b, found, what or f"`{object_name(function)}`")

    return write


def call_users(function: Callable[..., Any], what: str, *args: Any, **keywords: Any) -> Any:
    """What a user's function returns.

    Raises:
        ModelError: it does with tensors what only arrays can do.
    """
    try:
        return function(*args, **keywords)
    except (TypeError, AttributeError, GraphError) as error:
        law = f"{what} must be written with kcompile.ops and the operators of tensors"
        raise ModelError(f"{law}. {type(error).__name__}: {error}.") from error


def as_expression(b: Builder, found: Any, what: str) -> Expression:
    """What a user's function returned; a number or a weight is a constant.

    Raises:
        ModelError: it is no tensor.
    """
    t = current()
    if isinstance(found, Weight) and t is not None:
        return Expression(b, t.read(found))
    if isinstance(found, Tensor):
        return Expression(b, found.value)
    if isinstance(found, Extent):
        return expression.count(b, (found.dim,), "float32")
    if isinstance(found, int | float) or hasattr(found, "__array__"):
        from kcompile.frontend.training.eager import as_array

        array = as_array(found)
        return Expression(b, b.constant(array.astype("float32") if isinstance(found, int | float) else array))
    raise ModelError(f"{what} must return a tensor. Received: {type(found).__name__}.")


def through_expressions(write: Callable[..., Any], *values: Any) -> Any:
    """What kcompile's own `write` gives for tensors: as tensors."""
    t = current()
    assert t is not None
    return tensors(write(*(None if value is None else as_expression(t.b, value, "an argument") for value in values)))


def holds_tensors(*values: Any) -> bool:
    """Whether one of the values is a tensor of what is traced."""
    return any(isinstance(value, Tensor) for value in values)
