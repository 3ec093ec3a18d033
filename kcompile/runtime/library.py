"""C libraries on this machine: a shared library with the one function ``<model>_run``, called through ctypes."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcompile.ir.types import Array
from kcompile.runtime.memory import Content, address, aligned, aligned_empty, loaded, pointers
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Plan, Signature


@dataclass(frozen=True)
class LibraryProgram:
    """A library as a bundle holds it.

    Attributes:
        library: the shared library.
        weights: what its function takes beside arrays and workspace; None where they are in the library.
        function: the function's name.
        workspace: bytes of memory that a run needs.
    """

    library: Content
    weights: Content | None
    function: str
    workspace: int


class StepProgram:
    """The step of a recurrent model; `sizes` are the numbers of float32 elements of its states, which begin at zero."""

    def __init__(self, program: LibraryProgram, sizes: Sequence[int], origin: str = "the library") -> None:
        external = program.weights is not None
        entries = {program.function: ([ctypes.c_void_p] * (5 if external else 4), ctypes.c_int)}
        self._run = getattr(loaded(program.library, origin, entries), program.function)
        self._weights = None if program.weights is None else aligned(program.weights)
        self._workspace = aligned_empty(program.workspace)
        self.state = np.zeros(sum(sizes), np.float32)

    def __call__(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Take one element of the sequence, and write the outputs."""
        weights = [] if self._weights is None else [address(self._weights)]
        self._run(pointers(inputs), pointers(outputs), address(self.state), *weights, address(self._workspace))


class LibrarySession(Session):
    """A C library, which runs on the caller's thread.

    Args:
        signature: what it takes and gives; all extents are known.
        program: the library.
        origin: what errors call it.
        notes: what the bundle says about its making.

    Raises:
        ArtifactError: the library cannot be loaded here, or lacks its function.
    """

    engine = "library"

    def __init__(
        self,
        signature: Signature,
        program: LibraryProgram,
        origin: str = "the library",
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(signature, 1, notes)
        self._program = program
        external = program.weights is not None
        entries = {program.function: ([ctypes.c_void_p] * (4 if external else 3), ctypes.c_int)}
        self._run = getattr(loaded(program.library, origin, entries), program.function)
        self._weights = None if program.weights is None else aligned(program.weights)

    def _execute(self, arrays: list[Array], plan: Plan) -> list[Array]:
        outputs = [np.empty(shape, dtype) for shape, dtype in plan.results]
        workspace = aligned_empty(self._program.workspace)
        weights = [] if self._weights is None else [address(self._weights)]
        self._run(pointers(arrays), pointers(outputs), *weights, address(workspace))
        return outputs
