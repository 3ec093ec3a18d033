"""The face of every loaded model: `run` for named arrays as they are, `predict` for whatever Keras would take."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from kcompile.errors import InputError, KCompileError
from kcompile.ir.types import Array, TensorType, array_dtype
from kcompile.runtime.feeds import by_name, checked, converted
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
        self._dtypes = [(name, array_dtype(type.dtype)) for name, type in signature.inputs.items()]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.signature.name

    @property
    def batches(self) -> tuple[int, ...]:
        """The numbers of rows for which it has code of their own."""
        return ()

    @property
    def inputs(self) -> Mapping[str, TensorType]:
        """The inputs' types by name, in order; an open extent is a symbol such as ``"N"``."""
        return self.signature.inputs

    @property
    def outputs(self) -> Mapping[str, TensorType]:
        """The outputs' types by name, in order."""
        return self.signature.outputs

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Nothing that `pickle` and `copy` could take along: code, threads and mapped files are this process's."""
        law = f"the session of {self.name} cannot be pickled or copied: its code and threads belong to this process"
        raise KCompileError(f"{law}. Give the artifact's path on, and load it where it is needed.")

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
            feeds = checked(self.inputs, feeds)
        return dict(zip(self.outputs, self._call([np.asarray(feeds[name]) for name in self.inputs]), strict=True))

    def predict(self, x: Any, batch_size: int | None = 32, out: Array | None = None) -> Any:
        """The outputs for `x`, arranged as the Keras model arranges them.

        Args:
            x: an array, or anything `numpy.asarray` takes, for a model of one input; a list or tuple of them in the
                inputs' order; or a dict by input name. As Keras does, numbers of another dtype are converted to the
                input's; to an integer or bool dtype only where no value changes. An axis of length 1 at the end may
                be missing or too many.
            batch_size: rows per call of the engine. A model whose rows cannot be split is called once with all.
            out: for a model of one output, the array to write it to, which is then returned.

        Raises:
            InputError: names, dtypes or shapes do not fit; all problems are named.
        """
        results = self.predict_named(x, batch_size)
        return arrange(self.signature.structure, results) if out is None else _written(out, list(results.values()))

    def predict_named(self, x: Any, batch_size: int | None = 32) -> dict[str, Array]:
        """As `predict`, with the outputs by name.

        Raises:
            InputError: names, dtypes or shapes do not fit; all problems are named.
        """
        size = 32 if batch_size is None else batch_size
        if not isinstance(size, int) or size < 1:
            raise InputError(f"`batch_size` must be an integer from 1 on. Received: {batch_size!r}.")
        arrays = converted(self.inputs, by_name(self.inputs, self.signature.keys, x))
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
            return [np.zeros(type.static_shape(), array_dtype(type.dtype)) for type in plan.outputs]
        try:
            return self._execute([_plain(array) for array in arrays], plan)
        except MemoryError:
            sizes = ", ".join(f"`{name}`: {array.shape}" for name, array in zip(self.inputs, arrays, strict=True))
            law = f"{self.name} needs more memory for this call than there is"
            raise InputError(f"{law}. Received: {sizes}. Call predict with a smaller batch_size.") from None

    @abstractmethod
    def _execute(self, arrays: list[Array], plan: Plan) -> list[Array]:
        """The outputs for contiguous, aligned arrays that fit `plan`, in order; called from any thread."""


def _written(out: Array, results: list[Array]) -> Array:
    """`out` with the one result in it."""
    if len(results) != 1 or not isinstance(out, np.ndarray):
        raise InputError(f"`out` must be an array, for a model of one output. Received: {type(out).__name__}.")
    shape, dtype = results[0].shape, results[0].dtype
    if out.shape != shape or out.dtype != dtype:
        raise InputError(f"`out` must have dtype {dtype} and shape {shape}. Received: {out.dtype} and {out.shape}.")
    if not out.flags.writeable:
        raise InputError("`out` must be writeable. Received: an array that may only be read.")
    out[...] = results[0]
    return out


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
