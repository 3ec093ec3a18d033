"""Native programs: a shared library with the entries of ``kc_model.h``, called through ctypes.

A run needs an arena for intermediate results, which a workspace keeps between calls. With one thread, callers that
come at the same time get workspaces of their own; with more, they take turns with the one that has the pool, since its
threads are the machine's CPUs already. Small calls whose shapes came before go past ctypes (`direct`).
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.errors import ArtifactError, InputError, KCompileError
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.types import Array
from kcompile.runtime.direct import direct_calls
from kcompile.runtime.memory import Content, Entries, address, aligned, aligned_empty, loaded, pointers
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Plan, Signature

# Operations of one call from which waking the pool pays: it takes up to 50 µs, in which one core does ten millions.
_WORTH_THREADS = 16_000_000
# And from which it pays to have threads that are awake: some microseconds, of which barriers take a small part.
_WORTH_WAITING_THREADS = 1_000_000
_MAX_CALLS = 256

_ENTRIES: Entries = {
    "kc_arena_bytes": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_int64),
    "kc_run": ([ctypes.c_void_p] * 6, ctypes.c_int),
    "kc_pool_bytes": ([ctypes.c_int32], ctypes.c_size_t),
    "kc_pool_create": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_void_p),
    "kc_pool_destroy": ([ctypes.c_void_p], None),
}


@dataclass(frozen=True)
class NativeProgram:
    """A program as a bundle holds it.

    Attributes:
        library: the shared library.
        weights: the blob that its kernels read, used where it lies.
        symbols: the names of the values that its entries take, in order.
        work: operations of one call, as an expression of the symbols: whether threads are worth their waking.
        rows: the one number of rows that it is for; None for any.
    """

    library: Content
    weights: Content
    symbols: tuple[str, ...]
    work: Dim
    rows: int | None = None


@dataclass(frozen=True)
class _Call:
    """What calls of the same extents have in common."""

    symbols: ctypes.Array[ctypes.c_int64]
    threads: int
    arena_bytes: int


class NativeSession(Session):
    """A program in a shared library.

    Args:
        signature: what it takes and gives.
        program: the program.
        threads: the most threads of one call; calls with little work use one.
        origin: what errors call the program.
        notes: what the bundle says about its making.

    Raises:
        ArtifactError: the library cannot be loaded here, or lacks an entry.
    """

    engine = "native"

    def __init__(
        self,
        signature: Signature,
        program: NativeProgram,
        threads: int,
        origin: str = "the program",
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(signature, threads, notes)
        known = dims.symbols(*(dim for type in signature.inputs.values() for dim in type.shape))
        unknown = (dims.symbols(program.work) | set(program.symbols)) - known
        if unknown:
            raise ArtifactError(f"{origin} is damaged: no input has the extents {', '.join(sorted(unknown))}.")
        fixed = known - set(program.symbols) - ({signature.batch} if program.rows else set())
        if fixed:  # it would read and write beyond arrays of other extents
            raise ArtifactError(f"{origin} is damaged: its program does not take {', '.join(sorted(map(str, fixed)))}.")
        self._program = program
        self._library = loaded(program.library, origin, _ENTRIES)
        self._weights = aligned(program.weights)
        self._weights_address = address(self._weights)
        self._calls: dict[tuple[int, ...], _Call] = {}
        self._direct = direct_calls(self._library, signature, self._weights)
        self._run_known, self._predict_known = self._direct.run, self._direct.predict
        self._forget_workspaces()

    def _forget_workspaces(self) -> None:
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._free: dict[int, list[_Workspace]] = {1: [], self.threads: []}

    def predict(self, x: Any, batch_size: int | None = 32, out: Array | None = None) -> Any:
        """As every session's; small arrays of a shape that came before take a shorter way."""
        result = self._predict_known(x, 32 if batch_size is None else batch_size, out)
        return super().predict(x, batch_size, out) if result is None else result

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """As every session's, by the same shorter way."""
        results = self._run_known(feeds)
        return super().run(feeds) if results is None else results

    def _execute(self, arrays: list[Array], plan: Plan) -> list[Array]:
        call = self._call_for(arrays, plan)
        outputs = [np.empty(shape, dtype) for shape, dtype in plan.results]
        with self._workspace(call.threads) as workspace:
            failed = self._library.kc_run(
                pointers(arrays),
                pointers(outputs),
                self._weights_address,
                workspace.arena(call.arena_bytes),
                call.symbols,
                workspace.pool,
            )
        if failed:
            raise KCompileError(f"the program of {self.name} refused the extents {dict(plan.bindings)}.")
        return outputs

    def _call_for(self, arrays: list[Array], plan: Plan) -> _Call:
        rows = self._program.rows
        if rows is not None and plan.bindings[self.signature.batch or ""] != rows:
            raise InputError(f"the program of {self.name} is for {rows} rows. Received: {dict(plan.bindings)}.")
        values = tuple([plan.bindings[symbol] for symbol in self._program.symbols])
        call = self._calls.get(values)
        if call is None:
            call = self._new_call(values, arrays, plan)
            if len(self._calls) < _MAX_CALLS:
                self._calls[values] = call
        if call.arena_bytes < 0:
            shapes = ", ".join(f"`{name}`: {array.shape}" for name, array in zip(self.inputs, arrays, strict=True))
            law = f"{self.name} cannot run on arrays this large at once"
            raise InputError(f"{law}. Received: {shapes}. Call predict with a smaller batch_size.")
        return call

    def _new_call(self, values: tuple[int, ...], arrays: list[Array], plan: Plan) -> _Call:
        work = int(dims.substitute(self._program.work, plan.bindings))
        symbols = (ctypes.c_int64 * len(values))(*values)
        rows = plan.bindings[self.signature.batch] if self.signature.batch else 0
        threads, direct = (self.threads if work >= least else 1 for least in (_WORTH_THREADS, _WORTH_WAITING_THREADS))
        size, direct_size = (self._library.kc_arena_bytes(symbols, count) for count in (threads, direct))
        with self._workspace(direct) as workspace:
            self._direct.learn(arrays, plan, values, direct_size, work, rows, workspace.pool or 0, direct > threads)
        return _Call(symbols, threads, size)

    @contextmanager
    def _workspace(self, threads: int) -> Generator["_Workspace"]:
        """A workspace that is nobody else's meanwhile."""
        if self._process != os.getpid():
            # A fork copies no threads: the parent's pool and its turn mean nothing here.
            self._forget_workspaces()
        with self._turn if threads > 1 else nullcontext():
            try:
                workspace = self._free[threads].pop()
            except IndexError:
                workspace = _Workspace(self._library, threads)
            try:
                yield workspace
            finally:
                self._free[threads].append(workspace)


class _Workspace:
    """Memory for intermediate results, and the threads that share the work (none for one thread)."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._arena = aligned_empty(0)
        self._address = address(self._arena)
        self.pool: int | None = None
        if threads == 1:
            return
        self._memory = aligned_empty(library.kc_pool_bytes(threads))
        self.pool = library.kc_pool_create(self._memory.ctypes.data, threads)
        if not self.pool:
            raise KCompileError(f"the system has no {threads} threads for a session. Load it with fewer `threads`.")
        ending = weakref.finalize(self, _end_pool, library, self.pool, self._memory, os.getpid())
        # When the process ends, a daemon thread may still be running the pool; it goes with the process.
        ending.atexit = False

    def arena(self, size: int) -> int:
        """The address of at least `size` bytes."""
        if self._arena.nbytes < size:
            self._arena = aligned_empty(size)
            self._address = address(self._arena)
        return self._address


def _end_pool(library: ctypes.CDLL, pool: int, memory: Array, process: int) -> None:
    """End a pool's threads, which live in `memory`, in the process that started them."""
    if process == os.getpid():
        library.kc_pool_destroy(pool)
    del memory
