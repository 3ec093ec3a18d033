"""Calls on small arrays: copied to memory whose address is known, which is faster than to ask NumPy for an address."""

import ctypes
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from kcompile.ir.types import Array
from kcompile.runtime.memory import address, aligned_empty, pointers
from kcompile.runtime.signature import Plan

# Bytes of a call's arrays and arena up to which copying is quicker.
MOST_BYTES = 1 << 16


class Staging:
    """Calls of `entry` on arrays of the same shapes, each caller with memory of its own.

    The entry refuses only symbols that give no arena, and here they give one.

    Args:
        entry: ``kc_run``.
        plan: the results' shapes and dtypes.
        inputs: arrays like the inputs.
        arena: bytes of the arena.
        weights: the weights' address.
        symbols: the symbols' values.
    """

    def __init__(
        self,
        entry: Callable[..., int],
        plan: Plan,
        inputs: Sequence[Array],
        arena: int,
        weights: int,
        symbols: ctypes.Array[ctypes.c_int64],
    ) -> None:
        self._entry = entry
        self._plan = plan
        self._like = [np.empty_like(x, order="C", subok=False) for x in inputs]
        self._arena, self._weights, self._symbols = arena, weights, symbols
        self._shape, self._dtype = plan.results[-1]
        self._free: list[_Places] = []

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs."""
        try:
            places = self._free.pop()
        except IndexError:
            places = self._places()
        for place, x in zip(places.inputs, arrays, strict=True):
            place[...] = x
        places.run()
        outputs = [y.copy() for y in places.outputs]
        self._free.append(places)
        return outputs

    def gives(self, out: object) -> bool:
        """Whether the one output can be written to `out`."""
        return type(out) is np.ndarray and out.shape == self._shape and out.dtype is self._dtype

    def one(self, x: Array, out: Array | None) -> Array:
        """The one output for the one input, in `out` if that is given."""
        try:
            places = self._free.pop()
        except IndexError:
            places = self._places()
        places.first[...] = x
        places.run()
        if out is None:
            out = places.last.copy()
        else:
            out[...] = places.last
        self._free.append(places)
        return out

    def _places(self) -> "_Places":
        inputs = [np.empty_like(x) for x in self._like]
        outputs = [np.empty(shape, dtype) for shape, dtype in self._plan.results]
        arena = aligned_empty(self._arena)
        memory = (ctypes.c_void_p(self._weights), ctypes.c_void_p(address(arena)), self._symbols, None)
        return _Places(inputs, outputs, arena, partial(self._entry, pointers(inputs), pointers(outputs), *memory))


class _Places:
    """The memory of one caller, and the call on it."""

    __slots__ = ("arena", "first", "inputs", "last", "outputs", "run")

    def __init__(self, inputs: list[Array], outputs: list[Array], arena: Array, run: Callable[[], int]) -> None:
        self.inputs, self.outputs, self.arena, self.run = inputs, outputs, arena, run
        self.first, self.last = inputs[0] if inputs else arena, outputs[-1] if outputs else arena
