"""The workspace of a C library over time, as text and as a picture."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from kcompile.cli.output import say, size, table
from kcompile.errors import ArtifactError

_WIDTH = 48
_FREE, _USED = "·", "█"
# Of the picture, in pixels: a stage's width, the workspace's height, and what stands beside and below them.
_STEP, _HEIGHT, _LEFT, _TOP, _BELOW = 36, 320, 90, 30, 190


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


def draw(memory: Mapping[str, Any], path: Path) -> None:
    """Write an SVG: a column per stage from left to right, and in it the arrays at their places, address 0 at the foot.

    Raises:
        ArtifactError: the file cannot be written, or is none of SVG.
    """
    if path.suffix.lower() != ".svg":
        raise ArtifactError(f"a picture is an SVG file. Received: {path}.")
    stages: Sequence[Mapping[str, Any]] = memory["stages"]
    width, height = _LEFT + _STEP * len(stages) + 20, _TOP + _HEIGHT + _BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="13">workspace: {escape(size(memory["workspace_bytes"]))}</text>',
        *_columns(stages, memory["workspace_bytes"]),
        "</svg>",
    ]
    try:
        path.write_text("\n".join(parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from None


def _columns(stages: Sequence[Mapping[str, Any]], total: int) -> Iterator[str]:
    used = [sum(length for _, length in stage["arrays"]) for stage in stages]
    foot = _TOP + _HEIGHT
    for number, (stage, count) in enumerate(zip(stages, used, strict=True)):
        x = _LEFT + _STEP * number
        at_peak = count == max(used)
        for offset, length in stage["arrays"]:
            top, high = foot - (offset + length) * _HEIGHT / total, max(length * _HEIGHT / total, 1)
            color = "#c0392b" if at_peak else "#2e86c1"
            yield (
                f'<rect x="{x}" y="{top:.1f}" width="{_STEP - 2}" height="{high:.1f}" fill="{color}" stroke="white">'
                f"<title>{escape(stage['layer'])}: {length} bytes at {offset}</title></rect>"
            )
        name = escape(stage["layer"] or stage["function"])
        weight = ' font-weight="bold"' if at_peak else ""
        middle = x + _STEP // 2
        yield (
            f'<text x="{middle}" y="{foot + 12}" font-size="11"{weight} transform="rotate(60 {middle} {foot + 12})">'
            f"{name}, {escape(size(count))}</text>"
        )
    for share in range(5):
        y = foot - _HEIGHT * share / 4
        right = _LEFT + _STEP * len(stages)
        yield f'<line x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke="#999" stroke-width="0.5"/>'
        label = escape(size(total * share // 4))
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" font-size="11" text-anchor="end">{label}</text>'
