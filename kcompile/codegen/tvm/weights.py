"""The weights of a program in one piece."""

import hashlib

import numpy as np

from kcompile.codegen.tvm.arena import ALIGNMENT
from kcompile.codegen.tvm.targets import Machine
from kcompile.ir.types import Array
from kcompile.runtime.memory import aligned_empty


class Weights:
    """The blob: every array once, aligned for vectors and cache lines, or for its elements where there are none."""

    def __init__(self, machine: Machine) -> None:
        self.alignment = ALIGNMENT if machine.lanes > 1 else 8
        self._offsets: dict[tuple[str, bytes], int] = {}
        self._buffer = aligned_empty(0)
        self._size = 0

    def reserve(self, size: int) -> None:
        """Make room for `size` more bytes; what is not used of it takes no memory."""
        buffer = aligned_empty(self._size + size)
        buffer[: self._size] = self._buffer[: self._size]
        self._buffer = buffer

    def offset(self, array: Array) -> int:
        """Where `array` lies in the blob."""
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        key = (array.dtype.str, hashlib.sha256(content.data).digest())
        if key not in self._offsets:
            self._offsets[key], end = self._size, self._size + content.size
            padded = end + -end % self.alignment
            if padded > self._buffer.size:
                self.reserve(self._size + padded)
            self._buffer[self._size : end] = content
            self._buffer[end:padded] = 0
            self._size = padded
        return self._offsets[key]

    @property
    def size(self) -> int:
        """The bytes so far."""
        return self._size

    def blob(self) -> memoryview:
        """All of them, at an aligned address."""
        return self._buffer[: self._size].data.toreadonly()
