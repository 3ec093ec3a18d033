"""Programs with code of their own for certain numbers of rows, beside the code for any: ``--batch 1,8``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kcompile.codegen.backends import Program
from kcompile.errors import InputError, TargetError
from kcompile.ir.graph import Graph
from kcompile.runtime.batches import BatchedSession
from kcompile.runtime.bundle import OF_A_BATCH
from kcompile.runtime.native import NativeProgram
from kcompile.runtime.reference import graph_signature
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Signature

# Far more than code of their own serves; sizes of more rows may leave 32 bits.
_MOST_ROWS = 1 << 16


def check_batches(batch: int | Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of rows, in order.

    Raises:
        TargetError: they are none.
    """
    given: Sequence[Any] = () if batch is None else (batch,) if isinstance(batch, int) else tuple(batch)
    if not all(isinstance(rows, int) and not isinstance(rows, bool) and 0 < rows <= _MOST_ROWS for rows in given):
        law = f"`batch` must be numbers of rows from 1 to {_MOST_ROWS}, such as (1, 8)"
        raise TargetError(f"{law}. Received: {batch!r}.")
    return tuple(sorted(set(given)))


def check_rows(graph: Graph) -> Graph:
    """`graph`, whose number of rows must be open.

    Raises:
        InputError: it is fixed, or the rows cannot be split.
    """
    if graph_signature(graph).batch is None:
        law = f"`batch` needs rows that are open and independent of each other, and those of {graph.name} are not"
        raise InputError(f"{law}. Fix extents with `shapes`.")
    return graph


def with_batches(
    general: Program, native: NativeProgram, signature: Signature, special: Mapping[int, tuple[Program, NativeProgram]]
) -> Program:
    """One program of the `general` one and those for certain numbers of rows; equal weights are stored once."""
    members, records = dict(general.members), dict[str, Any]()
    for rows, (program, _) in special.items():
        artifact = dict(program.artifact)
        if program.members[artifact["weights"]] == general.members[general.artifact["weights"]]:
            artifact["weights"] = general.artifact["weights"]
        members |= {artifact[role]: program.members[program.artifact[role]] for role in ("library", "weights")}
        own = replace(program, artifact=artifact)
        records[str(rows)] = dict(zip(OF_A_BATCH, (own.artifact, own.description, own.memory), strict=True))

    def session(threads: int) -> Session:
        programs = {rows: own for rows, (_, own) in special.items()}
        return BatchedSession(signature, native, programs, threads, signature.name)

    description = {**general.description, "batches": records}
    return replace(general, members=members, description=description, open=session)
