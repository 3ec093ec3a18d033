"""What users give a model, as arrays by input name: checked as it is, or converted as Keras converts it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from kcompile.errors import InputError
from kcompile.ir.dims import Shape
from kcompile.ir.types import Array, TensorType, dtype_of


def checked(types: Mapping[str, TensorType], feeds: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of `feeds`, which must have exactly the right names, dtypes and known extents.

    Raises:
        InputError: they have not; all problems are named.
    """
    problems = _name_problems(types, feeds)
    arrays = {name: _exact(types[name].dtype, np.asarray(feeds[name])) for name in types if name in feeds}
    problems += [
        f"input `{name}` must have dtype {types[name].dtype}. Received: {_dtype_text(array)}."
        for name, array in arrays.items()
        if dtype_of(array) != types[name].dtype or not array.dtype.isnative
    ]
    problems += _shape_problems(types, arrays)
    if problems:
        raise InputError("\n".join(problems))
    return arrays


def _exact(dtype: str, array: Array) -> Array:
    """`array` as it is; texts that Python's objects hold become numpy's own."""
    return _as_text(array) if dtype == "string" and array.dtype.kind in "OS" else array


def _as_text(array: Array) -> Array:
    """Texts, or bytes of UTF-8, as an array of kind "U"; an array that holds anything else is returned as it is."""
    items: list[Any] = array.reshape(-1).tolist()
    try:
        texts = [item.decode() if isinstance(item, bytes) else item for item in items]
    except UnicodeDecodeError:
        return array
    return np.array(texts, np.str_).reshape(array.shape) if all(isinstance(t, str) for t in texts) else array


def _name_problems(types: Mapping[str, TensorType], feeds: Mapping[str, Any]) -> list[str]:
    if not isinstance(feeds, Mapping):
        raise InputError(f"inputs must be given as a dict by name. Received: {type(feeds).__name__}.")
    missing = [name for name in types if name not in feeds]
    unknown = [str(name) for name in feeds if name not in types]
    problems = [f"input `{name}` is missing." for name in missing]
    if unknown:
        names = ", ".join(f"`{name}`" for name in types) or "none"
        problems.append(f"the model's inputs are {names}. Received: {', '.join(f'`{name}`' for name in unknown)}.")
    return problems


def _shape_problems(types: Mapping[str, TensorType], arrays: Mapping[str, Array]) -> list[str]:
    """What is wrong with each shape by itself; whether symbols agree between inputs is the signature's to check."""
    return [
        f"input `{name}` must have shape ({', '.join(map(str, types[name].shape))}). Received: {array.shape}."
        for name, array in arrays.items()
        if not _has_extents(array.shape, types[name].shape)
    ]


def _has_extents(received: tuple[int, ...], expected: Shape) -> bool:
    known = len(received) == len(expected)
    return known and all(isinstance(dim, str) or dim == extent for dim, extent in zip(expected, received, strict=True))


def _dtype_text(array: Array) -> str:
    return array.dtype.name if array.dtype.isnative else f"{array.dtype.name} in foreign byte order"


def by_name(types: Mapping[str, TensorType], keys: Mapping[str, str], x: Any) -> dict[str, Any]:
    """What `predict` was given, by input name: an array, arrays in a list or tuple, or a dict by names or `keys`.

    Raises:
        InputError: numbers or names do not fit.
    """
    if isinstance(x, Mapping):
        given = {keys.get(key, key): value for key, value in cast(Mapping[str, Any], x).items()}
        problems = _name_problems(types, given)
        if problems:
            raise InputError("\n".join(problems))
        return {name: given[name] for name in types}
    if len(types) == 1:
        ((name, expected),) = types.items()
        return {name: x[0] if _wraps_one(x, expected.rank) else x}
    if not isinstance(x, list | tuple):
        raise InputError(
            f"the model has {len(types)} inputs, so `x` must be a list, tuple or dict of arrays. "
            f"Received: {type(x).__name__}."
        )
    items = cast(Sequence[Any], x)
    if len(items) != len(types):
        raise InputError(f"the model's inputs are {', '.join(types) or 'none'}. Received: {len(items)} arrays.")
    return dict(zip(types, items, strict=True))


def _wraps_one(x: Any, rank: int) -> bool:
    """Whether `x` is a list of one array rather than an array written as a list."""
    return isinstance(x, list | tuple) and len(cast(Sequence[Any], x)) == 1 and _rank(x[0]) == rank


def _rank(x: Any) -> int:
    try:
        return np.ndim(x)
    except ValueError:  # lists of unequal lengths
        return -1


def converted(types: Mapping[str, TensorType], given: Mapping[str, Any], casts: bool = True) -> list[Array]:
    """Arrays in the inputs' order, with the inputs' ranks and, unless not `casts`, dtypes.

    Raises:
        InputError: dtypes or shapes do not fit; all problems are named.
    """
    arrays: dict[str, Array] = {}
    problems: list[str] = []
    for name, expected in types.items():
        try:
            array = _as_array(name, given[name])
            arrays[name] = _with_rank(cast_input(name, array, expected.dtype) if casts else array, expected)
        except InputError as error:
            problems.append(str(error))
    problems += _shape_problems(types, arrays)
    if problems:
        raise InputError("\n".join(problems))
    return list(arrays.values())


def _as_array(name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError:
        raise InputError(f"input `{name}` must be one array. Received: lists of unequal lengths.") from None


def cast_input(name: str, array: Array, dtype: str) -> Array:
    """`array` in `dtype`; to an integer or bool dtype only where no value changes.

    Raises:
        InputError: it holds no numbers, or numbers that `dtype` cannot hold.
    """
    if dtype == "string":
        return _texts(name, array)
    if array.dtype == dtype:
        return array
    # NumPy itself does not know bfloat16, and takes it for raw bytes.
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise InputError(f"input `{name}` must hold numbers of dtype {dtype}. Received: {_dtype_text(array)}.")
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
    if np.dtype(dtype).kind in "biu" and not np.array_equal(result, array):
        received = f"{array.dtype.name} with values that {dtype} cannot hold"
        raise InputError(f"input `{name}` must have dtype {dtype}. Received: {received}.")
    return result


def _texts(name: str, array: Array) -> Array:
    made = _exact("string", array)
    if made.dtype.kind != "U":
        raise InputError(f"input `{name}` must hold texts (str, or bytes of UTF-8). Received: {_dtype_text(array)}.")
    return made


def _with_rank(array: Array, expected: TensorType) -> Array:
    """As Keras does: a last axis of length 1 is dropped or added where only that is wrong."""
    if array.ndim == expected.rank + 1 and array.shape[-1] == 1:
        return array[..., 0]
    if array.ndim == expected.rank - 1 and expected.shape[-1] == 1:
        return array[..., None]
    return array
