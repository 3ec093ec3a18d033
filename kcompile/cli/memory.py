"""The workspace of a C library over time, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from kcompile.cli.output import say, size, table

_WIDTH = 48
_FREE, _USED = "·", "█"


def show(memory: Mapping[str, Any]) -> None:
    """Print a line per stage: which layer runs, and which parts of the workspace hold arrays meanwhile."""
    stages: Sequence[Mapping[str, Any]] = memory["stages"]
    total = memory["workspace_bytes"]
    used = [sum(length for _, length in stage["arrays"]) for stage in stages]
    peak = max(used, default=0)
    rows: list[list[str]] = []
    for stage, count in zip(stages, used, strict=True):
        mark = "peak" if count == peak else ""
        rows.append([stage["layer"], stage["function"], size(count), mark, _picture(stage["arrays"], total)])
    say(table(["layer", "stage", "in use", "", f"0 … {size(total)}"], rows, "<<><<"))


def _picture(arrays: Sequence[Sequence[int]], total: int) -> str:
    """The workspace as cells; one that an array touches counts as used."""
    cells = [_FREE] * _WIDTH
    for offset, length in arrays:
        first, last = offset * _WIDTH // total, -(-(offset + length) * _WIDTH // total)
        cells[first:last] = [_USED] * (last - first)
    return "".join(cells)
