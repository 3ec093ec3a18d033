"""Compile kernels and call them through ctypes on arrays that lie between inaccessible pages."""

import ctypes
import mmap
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kcompile.codegen.tvm.build import compile_object, link_library
from kcompile.codegen.tvm.targets import Machine, host
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.ir.types import Array

_LIBC = ctypes.CDLL(None, use_errno=True)
_PAGE = mmap.PAGESIZE


def guarded(array: Array, at_end: bool = True) -> Array:
    """A copy whose last (or first) byte touches a page that may be neither read nor written."""
    pages = max(1, -(-array.nbytes // _PAGE))
    memory = mmap.mmap(-1, (pages + 2) * _PAGE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    for offset in (0, (pages + 1) * _PAGE):
        assert _LIBC.mprotect(ctypes.c_void_p(start + offset), ctypes.c_size_t(_PAGE), 0) == 0
    begin = (pages + 1) * _PAGE - array.nbytes if at_end else _PAGE
    copy = np.frombuffer(memory, array.dtype, array.size, begin).reshape(array.shape)
    copy[...] = array
    return copy


def load_library(content: bytes) -> ctypes.CDLL:
    """The loaded shared library."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "test.so"
        path.write_bytes(content)
        return ctypes.CDLL(str(path))


class Compiled:
    """Kernels in one library, each an exported function."""

    def __init__(self, kernels: Sequence[Kernel], machine: Machine | None = None) -> None:
        machine = machine or host()
        names = (f"{kernel.family}_{i}" for kernel, i in zip(kernels, count(), strict=False))
        self._names: dict[Kernel, tuple[str, tuple[str, ...]]] = {}
        functions: dict[str, object] = {}
        for kernel, name in zip(kernels, names, strict=False):
            function = Function(name, machine)
            kernel.build(function)
            functions[name] = function.finish()
            self._names[kernel] = (name, tuple(function.symbols))
        entries = sorted(functions)
        self._library = load_library(link_library([compile_object(functions, machine)], entries, machine))

    def __call__(
        self,
        kernel: Kernel,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        symbols: Mapping[str, int] | None = None,
        threads: int = 1,
        only: int | None = None,
    ) -> list[Array]:
        """What `kernel` writes, on guarded copies: the last bytes guarded, then the first; both must agree.

        With `only`, it is what that one of the threads writes.
        """
        results: list[list[Array]] = []
        name, symbol_names = self._names[kernel]
        scalars = [(symbols or {})[symbol] for symbol in symbol_names]
        for at_end in (True, False):
            arrays = [guarded(array, at_end) for array in (*inputs, *outputs)]
            pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
            for thread in range(threads) if only is None else (only,):
                getattr(self._library, name)(*pointers, *map(ctypes.c_int32, (*scalars, thread, threads)))
            for given, array in zip(inputs, arrays, strict=False):
                np.testing.assert_array_equal(array, given, "an input was written")
            results.append([array.copy() for array in arrays[len(inputs) :]])
        for first, second in zip(*results, strict=True):
            np.testing.assert_array_equal(first, second)
        return results[0]
