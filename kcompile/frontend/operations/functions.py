"""``kcompile.ops``: every operation as a function under its name in ``keras.ops``, and the functions that are none.

The latter make tensors from numbers, look at tensors, or call the user's own functions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.operations.calling import call
from kcompile.frontend.operations.operation import OPERATIONS, Definition
from kcompile.frontend.tensor import Extent, Tensor, current, dim_of, extent, lifted
from kcompile.frontend.tracing import KerasTensor, map_structure
from kcompile.frontend.training.eager import as_array
from kcompile.frontend.weight import Weight
from kcompile.ir import ops
from kcompile.ir.types import Array


def _function(name: str, definition: Definition) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        return call(name, *args, **kwargs)

    function.__name__ = function.__qualname__ = definition.function
    function.__doc__ = definition.rule.__doc__
    function.__module__ = "kcompile.ops"
    setattr(function, "__signature__", definition.signature)  # noqa: B010 - functions have no such member for pyright
    return function


# -- tensors from numbers ---------------------------------------------------------------------------------------------


def full(shape: Any, fill_value: Any, dtype: str | None = None) -> Any:
    """A tensor of one value."""
    extents = (shape,) if isinstance(shape, int | Extent) else tuple(shape)
    made = fill_value if isinstance(fill_value, Tensor) else as_array(fill_value).astype(dtype or "float32")
    t = current()
    if not any(isinstance(each, Extent) for each in extents):
        return np.full(extents, made) if isinstance(made, np.ndarray) else call("BroadcastTo", made, extents)
    if t is None or not isinstance(made, np.ndarray) or made.ndim:
        return call("BroadcastTo", made, extents)
    return lifted(t(ops.Full(tuple(map(dim_of, extents)), made.item(), made.dtype.name)))


def zeros(shape: Any, dtype: str | None = None) -> Any:
    """A tensor of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: str | None = None) -> Any:
    """A tensor of ones."""
    return full(shape, 1, dtype)


def arange(start: Any, stop: Any = None, step: Any = None, dtype: str | None = None) -> Any:
    """Numbers from `start` (0 where only one is given) to before `stop`."""
    first, last = (0, start) if stop is None else (start, stop)
    if isinstance(last, Extent) and not isinstance(first, Extent) and step in (None, 1):
        counted = call("Cumsum", full((last - first,), 1, "int32"), axis=0)
        return call("Cast", counted + (first - 1), dtype or "int32")
    numbers: Any = (first, last, 1 if step is None else step)
    floating = any(np.asarray(number).dtype.kind == "f" for number in numbers)
    return np.arange(*numbers).astype(dtype or ("float32" if floating else "int32"))


def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: str | None = None) -> Array:
    """`num` numbers at equal distances."""
    return np.linspace(start, stop, num, endpoint).astype(dtype or "float32")


def eye(N: int, M: int | None = None, k: int = 0, dtype: str | None = None) -> Array:
    """Ones on a diagonal."""
    return np.eye(N, M, k, dtype or "float32")


def identity(n: int, dtype: str | None = None) -> Array:
    """Ones on the diagonal of a square."""
    return eye(n, dtype=dtype)


def tri(N: int, M: int | None = None, k: int = 0, dtype: str | None = None) -> Array:
    """Ones on a diagonal and below."""
    return np.tri(N, M, k, dtype or "float32")


def array(x: Any, dtype: str | None = None) -> Any:
    """`x` as a tensor; of numbers, an array."""
    return convert_to_tensor(x, dtype)


def convert_to_tensor(x: Any, dtype: str | None = None, sparse: Any = None, ragged: Any = None) -> Any:
    """`x` as a tensor; of numbers, an array."""
    del sparse, ragged
    if is_tensor(x) or isinstance(x, Weight):
        return call("Cast", x, dtype or x.dtype)
    if isinstance(x, list | tuple) and any(is_tensor(item) for item in x):  # pyright: ignore[reportUnknownArgumentType]
        return call("Stack", x)
    made = as_array(x)
    return made.astype(dtype) if dtype else made


def convert_to_numpy(x: Any) -> Array:
    """The array of what is known.

    Raises:
        ModelError: the elements are known only when the graph runs.
    """
    return np.asarray(x)


# -- what tensors are -------------------------------------------------------------------------------------------------


def shape(x: Any) -> tuple[Any, ...]:
    """The extents: integers, and for open ones what functions that take a shape take (None for a symbolic tensor)."""
    if isinstance(x, Tensor):
        return tuple(map(extent, x.value.type.shape))
    return tuple(x.shape) if isinstance(x, KerasTensor | Weight) else np.shape(x)


def ndim(x: Any) -> int:
    """The number of axes."""
    return len(shape(x))


def size(x: Any) -> Any:
    """The number of elements."""
    count: Any = 1
    for each in shape(x):
        count = each * count
    return count


def dtype(x: Any) -> str:
    """The numpy name of the element type."""
    return x.dtype if is_tensor(x) else as_array(x).dtype.name


def is_tensor(x: Any) -> bool:
    """Whether `x` is a tensor, symbolic or in what is traced, or an array."""
    return isinstance(x, KerasTensor | Tensor | np.ndarray)


# -- what calls the user's functions ----------------------------------------------------------------------------------


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """What one of the functions gives; where the graph decides, both are written and elements are chosen."""
    if not isinstance(pred, KerasTensor | Tensor):
        return true_fn() if pred else false_fn()
    chosen, other = true_fn(), false_fn()
    queue = iter(_flat(other))
    return map_structure(lambda leaf: call("Where", pred, leaf, next(queue)), chosen)


def _flat(structure: Any) -> list[Any]:
    found: list[Any] = []
    map_structure(found.append, structure)
    return found


def fori_loop(lower: int, upper: int, body_fun: Callable[[int, Any], Any], init_val: Any) -> Any:
    """``body_fun(i, value)`` for each i of a known range, written one after another."""
    value = init_val
    for i in range(lower, upper):
        value = body_fun(i, value)
    return value


def vectorized_map(function: Callable[[Any], Any], elements: Any) -> Any:
    """`function` on each slice along the first axis, whose extent is known."""
    parts = call("Unstack", elements) if not isinstance(elements, np.ndarray) else list(elements)
    return call("Stack", [function(part) for part in parts])


def scan(f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: int | None = None) -> Any:
    """The last carry and the stacked results of ``carry, y = f(carry, x)`` over a known number of slices."""
    slices = [None] * (length or 0) if xs is None else call("Unstack", xs)
    carry, results = init, list[Any]()
    for each in slices:
        carry, result = f(carry, each)
        results.append(result)
    return carry, call("Stack", results) if results and results[0] is not None else None


def while_loop(*_: Any, **__: Any) -> Any:
    """Not there: a loop whose end the data decides is no graph.

    Raises:
        ModelError: always.
    """
    law = "kcompile.ops has no `while_loop`: graphs have no loops whose end depends on the data"
    raise ModelError(f"{law}. Use `fori_loop` over a known range.")


_MAKERS = (arange, array, convert_to_numpy, convert_to_tensor, dtype, eye, full, identity, is_tensor, linspace, ndim)
_CALLERS = (cond, fori_loop, ones, scan, shape, size, tri, vectorized_map, while_loop, zeros)

# Every function by its name.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{definition.function: _function(name, definition) for name, definition in OPERATIONS.items()},
    **{function.__name__: function for function in (*_MAKERS, *_CALLERS)},
}
for _alias, _name in {"swish": "silu", "hard_swish": "hard_silu", "empty": "zeros", "map": "vectorized_map"}.items():
    FUNCTIONS[_alias] = FUNCTIONS[_name]
