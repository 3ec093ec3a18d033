"""The face of every loaded model: `run` for named arrays as they are, `predict` for whatever Keras would take."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from kcompile.errors import InputError
from kcompile.ir.dims import Shape
from kcompile.ir.types import Array, TensorType
from kcompile.runtime.signature import Plan, Signature, arrange

# The note under which an artifact carries the number of threads that it was compiled for.
THREADS_KEY = "kcompile.threads"


class Session(ABC):
    """A loaded model. Calls from several threads at once are safe.

    Args:
        signature: what the model takes and gives.
        threads: how many threads one call may use.
        notes: what the artifact says about its making.
    """

    engine = ""

    def __init__(self, signature: Signature, threads: int, notes: Mapping[str, str] | None = None) -> None:
        self.signature = signature
        self.threads = threads
        self.notes = dict(notes or {})
        self._dtypes = [(name, np.dtype(type.dtype)) for name, type in signature.inputs.items()]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.signature.name

    @property
    def inputs(self) -> Mapping[str, TensorType]:
        """The inputs' types by name, in order; an open extent is a symbol such as ``"N"``."""
        return self.signature.inputs

    @property
    def outputs(self) -> Mapping[str, TensorType]:
        """The outputs' types by name, in order."""
        return self.signature.outputs

    def __repr__(self) -> str:
        takes = ", ".join(f"{name}: {type}" for name, type in self.inputs.items())
        gives = ", ".join(f"{name}: {type}" for name, type in self.outputs.items())
        return f"<{self.engine} session {self.name!r}: ({takes}) -> ({gives}), threads={self.threads}>"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name for inputs by name, in one call of the engine.

        Arrays must have exactly the inputs' dtypes; nothing is converted, and a contiguous array is not copied.

        Raises:
            InputError: names, dtypes or shapes do not fit; all problems are named.
        """
        try:
            fits = len(feeds) == len(self._dtypes) and all(feeds[n].dtype == dtype for n, dtype in self._dtypes)
        except (AttributeError, IndexError, KeyError, TypeError):
            fits = False
        if not fits:
            feeds = _checked(self.inputs, feeds)
        return dict(zip(self.outputs, self._call([np.asarray(feeds[name]) for name in self.inputs]), strict=True))

    def predict(self, x: Any, batch_size: int | None = 32) -> Any:
        """The outputs for `x`, arranged as the Keras model arranges them.

        Args:
            x: an array, or anything `numpy.asarray` takes, for a model of one input; a list or tuple of them in the
                inputs' order; or a dict by input name. As Keras does, numbers of another dtype are converted to the
                input's; to an integer or bool dtype only where no value changes. An axis of length 1 at the end may
                be missing or too many.
            batch_size: rows per call of the engine. A model whose rows cannot be split is called once with all.

        Raises:
            InputError: names, dtypes or shapes do not fit; all problems are named.
        """
        return arrange(self.signature.structure, self.predict_named(x, batch_size))

    def predict_named(self, x: Any, batch_size: int | None = 32) -> dict[str, Array]:
        """As `predict`, with the outputs by name.

        Raises:
            InputError: names, dtypes or shapes do not fit; all problems are named.
        """
        size = 32 if batch_size is None else batch_size
        if not isinstance(size, int) or size < 1:
            raise InputError(f"`batch_size` must be an integer from 1 on. Received: {batch_size!r}.")
        arrays = _converted(self.inputs, _by_name(self.inputs, self.signature.keys, x))
        return dict(zip(self.outputs, self._split(arrays, size), strict=True))

    def _split(self, arrays: list[Array], size: int) -> list[Array]:
        plan = self.signature.fit(arrays)
        batch = self.signature.batch
        rows = plan.bindings[batch] if batch else 0
        if rows <= size:
            return self._call(arrays)
        parts = [self._call([array[start : start + size] for array in arrays]) for start in range(0, rows, size)]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _call(self, arrays: list[Array]) -> list[Array]:
        plan = self.signature.fit(arrays)
        if plan.is_empty:
            return [np.zeros(type.static_shape(), type.dtype) for type in plan.outputs]
        return self._execute([_plain(array) for array in arrays], plan)

    @abstractmethod
    def _execute(self, arrays: list[Array], plan: Plan) -> list[Array]:
        """The outputs for contiguous, aligned arrays that fit `plan`, in order; called from any thread."""


def default_threads() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(threads: int | None, noted: object = None) -> int:
    """`threads`, or for None what the artifact notes, or else the default.

    Raises:
        InputError: it is no number from 1 on.
    """
    if threads is None and isinstance(noted, str) and noted.isdecimal() and int(noted):
        return int(noted)
    if threads is None:
        return default_threads()
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise InputError(f"`threads` must be an integer from 1 on. Received: {threads!r}.")
    return threads


def _plain(array: Array) -> Array:
    """`array`, copied only if its elements do not lie one after another at aligned addresses."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def _checked(types: Mapping[str, TensorType], feeds: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of `feeds`, which must have exactly the right names, dtypes and known extents."""
    problems = _name_problems(types, feeds)
    arrays = {name: np.asarray(feeds[name]) for name in types if name in feeds}
    problems += [
        f"input `{name}` must have dtype {types[name].dtype}. Received: {_dtype_text(array)}."
        for name, array in arrays.items()
        if array.dtype != types[name].dtype
    ]
    problems += _shape_problems(types, arrays)
    if problems:
        raise InputError("\n".join(problems))
    return arrays


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


def _by_name(types: Mapping[str, TensorType], keys: Mapping[str, str], x: Any) -> dict[str, Any]:
    """What `predict` was given, by input name."""
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


def _converted(types: Mapping[str, TensorType], given: Mapping[str, Any]) -> list[Array]:
    arrays: dict[str, Array] = {}
    problems: list[str] = []
    for name, expected in types.items():
        try:
            arrays[name] = _adjust_rank(_convert(given[name], expected.dtype), expected)
        except InputError as error:
            problems.append(f"input `{name}` {error}")
    problems += _shape_problems(types, arrays)
    if problems:
        raise InputError("\n".join(problems))
    return list(arrays.values())


def _convert(value: Any, dtype: str) -> Array:
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError("must be one array. Received: lists of unequal lengths.") from None
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biuf":
        raise InputError(f"must hold numbers of dtype {dtype}. Received: {_dtype_text(array)}.")
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
    if np.dtype(dtype).kind in "biu" and not np.array_equal(converted, array):
        raise InputError(f"must have dtype {dtype}. Received: {array.dtype.name} with values that {dtype} cannot hold.")
    return converted


def _adjust_rank(array: Array, expected: TensorType) -> Array:
    """As Keras does: a last axis of length 1 is dropped or added where only that is wrong."""
    if array.ndim == expected.rank + 1 and array.shape[-1] == 1:
        return array[..., 0]
    if array.ndim == expected.rank - 1 and expected.shape[-1] == 1:
        return array[..., None]
    return array
