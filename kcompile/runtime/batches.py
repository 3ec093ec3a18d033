"""Native programs that hold code of their own for certain numbers of rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kcompile.ir.types import Array
from kcompile.runtime.native import NativeProgram, NativeSession
from kcompile.runtime.signature import Plan, Signature


class BatchedSession(NativeSession):
    """A program for any number of rows, beside programs which take the calls that have just theirs.

    Args:
        signature: what it takes and gives; its rows can be split.
        program: for any number of rows.
        special: the others, by their numbers of rows.
        threads: the most threads of one call.
        origin: what errors call the program.
        notes: what the bundle says about its making.

    Raises:
        ArtifactError: a library cannot be loaded here, or lacks an entry.
    """

    def __init__(
        self,
        signature: Signature,
        program: NativeProgram,
        special: Mapping[int, NativeProgram],
        threads: int,
        origin: str = "the program",
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(signature, program, threads, origin, notes)
        self._special = {
            rows: NativeSession(signature, replace(own, rows=rows), threads, origin) for rows, own in special.items()
        }
        sessions = (*self._special.values(), self)
        self._run_known = _first([session._run_known for session in sessions])
        self._predict_known = _first([session._predict_known for session in sessions])

    @property
    def batches(self) -> tuple[int, ...]:
        return tuple(self._special)

    def _execute(self, arrays: list[Array], plan: Plan) -> list[Array]:
        own = self._special.get(plan.bindings[self.signature.batch or ""])
        return super()._execute(arrays, plan) if own is None else own._execute(arrays, plan)


def _first(functions: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """What the first of `functions` gives that does not give None."""

    def first(*arguments: object) -> Any:
        for function in functions:
            result = function(*arguments)
            if result is not None:
                return result
        return None

    return first
