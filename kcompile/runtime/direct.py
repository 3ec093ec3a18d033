"""Calls of a native program that need no ctypes: the program's library reads NumPy's arrays itself.

A call through ctypes costs some microseconds, in which a small model has long finished.
"""

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.ir.types import Array
from kcompile.runtime.memory import address
from kcompile.runtime.signature import Plan, Signature

# Of what this module and `kc_python.c` tell each other; to change with it.
_VERSION = 2
# Bytes of an arena up to which calls that take this way may have one, beside those of the other: of longer calls, the
# time that the other way takes is a small part.
_MOST_ARENA = 16 << 20
# Operations up to which a call keeps Python's lock: for longer calls it pays that other threads go on meanwhile.
_BRIEF = 500_000


@dataclass(frozen=True)
class DirectCalls:
    """Functions that give None for calls that they do not know.

    Attributes:
        run: the outputs by name for a dict of arrays by name.
        predict: the one output for the one input, unless it has more rows than the second argument allows; written to
            the third if that is not None.
    """

    run: Callable[[Mapping[str, Array]], dict[str, Array] | None]
    predict: Callable[[Any, Any, Any], Array | None]
    _learn: Callable[[bytes, bytes, tuple[Any, ...]], None]

    def learn(
        self,
        arrays: Sequence[Array],
        plan: Plan,
        symbols: Sequence[int],
        arena: int,
        work: int,
        rows: int,
        pool: int,
        awake: bool,
    ) -> None:
        """Know calls with arrays like these, unless they need much memory.

        Args:
            arrays: the inputs.
            plan: the extents of the call.
            symbols: the values of the program's symbols.
            arena: bytes for intermediate results.
            work: operations of the call.
            rows: rows of the batch, 0 where it cannot be split.
            pool: the address of this process's pool of threads that share the work; 0 for none.
            awake: whether the call takes the pool only where its threads need no waking.
        """
        if not 0 <= arena <= _MOST_ARENA:
            return
        taken_and_given = [*((array.shape, array.dtype) for array in arrays), *plan.results]
        shapes = [number for shape, _ in taken_and_given for number in (len(shape), *shape)]
        numbers = [arena, work <= _BRIEF, rows, pool, awake, len(symbols), *symbols, *shapes]
        # NumPy's characters of dtypes are those of the buffer protocol, for all dtypes that it knows.
        formats = "".join(dtype.char for _, dtype in taken_and_given)
        self._learn(struct.pack(f"={len(numbers)}q", *numbers), formats.encode(), plan.results)


def direct_calls(library: ctypes.CDLL, signature: Signature, weights: Array) -> DirectCalls:
    """The functions of `library`, for `signature`; where there are none, functions that know no call."""
    names = tuple(signature.inputs), tuple(signature.outputs)
    settings = (_VERSION, address(weights), weights, *names, np.ndarray, np.empty, dict)
    try:
        # It makes Python objects, so it must be called with Python's lock held, and take and give them as they are.
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(("kc_python", library))
        functions = make(settings)
    except (AttributeError, ValueError):  # a library without the entry; or one that cannot see this Python
        functions = None
    if functions is None:
        return DirectCalls(_unknown, _unknown, _unknown)
    run, predict, learn = functions
    return DirectCalls(run, predict if isinstance(signature.structure, str) else _unknown, learn)


def _unknown(*_: object) -> None:
    return None
