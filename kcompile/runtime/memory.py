"""Shared libraries loaded into this process, and memory whose address suits them."""

import ctypes
import hashlib
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from kcompile.errors import ArtifactError
from kcompile.ir.types import Array

Content: TypeAlias = bytes | memoryview
# Functions by name: the types of their arguments, and of their results.
Entries: TypeAlias = Mapping[str, tuple[list[type], type | None]]

ALIGNMENT = 64

_libraries: dict[bytes, ctypes.CDLL] = {}
_libraries_lock = threading.Lock()


def pointers(arrays: Sequence[Array]) -> ctypes.Array[ctypes.c_void_p]:
    """The arrays' addresses, as C functions take them."""
    return (ctypes.c_void_p * len(arrays))(*[address(array) for array in arrays])


def address(array: Array) -> int:
    """The address of the first element."""
    try:
        # A fifth of the time that NumPy takes to tell, which small models would feel.
        return ctypes.addressof(ctypes.c_char.from_buffer(cast(Any, array)))
    except (BufferError, TypeError, ValueError):  # read-only, empty, not contiguous, or of a dtype without a buffer
        return array.__array_interface__["data"][0]


def aligned_empty(size: int) -> Array:
    """`size` bytes at a multiple of 64."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def aligned(content: Content) -> Array:
    """`content` as bytes at an aligned address, where it lies if that is one."""
    array = np.frombuffer(content, np.uint8)
    if array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = aligned_empty(array.size)
    copy[...] = array
    return copy


def loaded(content: Content, origin: str, entries: Entries) -> ctypes.CDLL:
    """The shared library, loaded once per process and content.

    Raises:
        ArtifactError: it cannot be loaded here, or lacks an entry.
    """
    digest = hashlib.sha256(content).digest()
    with _libraries_lock:
        try:
            if digest not in _libraries:
                _libraries[digest] = _opened(content)
            return _bound(_libraries[digest], entries)
        except (OSError, AttributeError) as error:
            raise ArtifactError(f"the program in {origin} cannot be loaded on this machine: {error}") from None


def _opened(content: Content) -> ctypes.CDLL:
    return _open_in_memory(content) if hasattr(os, "memfd_create") else _open_by_file(content)


def _bound(library: ctypes.CDLL, entries: Entries) -> ctypes.CDLL:
    for name, (arguments, result) in entries.items():
        entry = getattr(library, name)
        entry.argtypes, entry.restype = arguments, result
    return library


def _open_in_memory(content: Content) -> ctypes.CDLL:
    """Load a library that no file holds, so that nothing is left behind whatever happens."""
    descriptor = os.memfd_create("kcompile", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    # The descriptor stays open: the loader knows libraries by path, and would take another library under a number that
    # is used again for this one.
    try:
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError:
        os.close(descriptor)
        return _open_by_file(content)


def _open_by_file(content: Content) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="kcompile-") as folder:
        path = Path(folder) / "program.so"
        path.write_bytes(content)
        return ctypes.CDLL(str(path))
