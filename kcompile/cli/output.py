"""What the commands print with: tables, sizes, JSON, and a progress line."""

import json
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

import click

_PATIENCE = 1.0
_INTERVAL = 0.2


def say(text: str = "") -> None:
    """Print a line of results."""
    click.echo(text)


def say_json(value: Any) -> None:
    """Print JSON."""
    click.echo(json.dumps(value, indent=2))


def heading(text: str) -> str:
    """`text` as a heading."""
    return click.style(text, bold=True)


def verdict(good: bool, text: str) -> str:
    """`text` in green or red."""
    return click.style(text, fg="green" if good else "red", bold=True)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Columns under titles; `align` has ``<`` or ``>`` for each column, left by default."""
    sides: list[Literal["<", ">"]] = [">" if i < len(align) and align[i] == ">" else "<" for i in range(len(titles))]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (f"{cell:{side}{width}}" for cell, side, width in zip(cells, sides, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([click.style(line(titles), bold=True), *map(line, rows)])


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """One fact a line, with the names in a column; those without a value are left out."""
    kept = [(name, str(value)) for name, value in pairs if value not in ("", None)]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in kept)


def size(count: float) -> str:
    """A number of bytes for people: ``1.4 MB``, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float) -> str:
    """A time for people, with three digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * scale
        if value >= 1 or unit == "µs":
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
    return ""


class Progress:
    """A line on a terminal that says what goes on, once that has taken a second; it is wiped away at the end."""

    def __init__(self, quiet: bool = False) -> None:
        self._shown = sys.stderr.isatty() and not quiet
        self._stage = ""
        self._begin = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def stage(self, name: str) -> None:
        """Say that `name` has begun."""
        self._stage = name

    def __enter__(self) -> Self:
        if self._shown:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._shown:
            self._thread.join()

    def _draw(self) -> None:
        if self._over.wait(_PATIENCE):
            return
        while not self._over.is_set():
            sys.stderr.write(f"\r{self._stage} … {time.monotonic() - self._begin:.0f} s\x1b[K")
            sys.stderr.flush()
            self._over.wait(_INTERVAL)
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
