"""Figures of Matplotlib, made without its global state; their files depend on nothing but their content."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcompile.errors import MissingExtra, ModelError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = (".png", ".svg", ".pdf")
# Agg, which draws PNGs, takes fewer than 2^16 pixels on each side.
_MAX_SIDE, _MAX_PIXELS = 30_000, 150_000_000


def new_figure(width: float, height: float) -> "Figure":
    """A figure of a size in inches.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra('pictures need Matplotlib. Install it with: pip install "kcompile[plot]"') from None
    return Figure(figsize=(width, height), facecolor="white")


def check_path(path: str | Path) -> Path:
    """The path, which must name a picture.

    Raises:
        ModelError: its suffix is another.
    """
    if Path(path).suffix.lower() not in _FORMATS:
        raise ModelError(f"a picture is written to a {', '.join(_FORMATS)} file. Received: {str(path)!r}.")
    return Path(path)


def write(figure: "Figure", path: Path, dpi: int) -> None:
    """Write a figure in the format of the path's suffix; a PNG in fewer dots per inch where it would be too large.

    Raises:
        ModelError: the file cannot be written.
    """
    import matplotlib

    kind = path.suffix.lower().removeprefix(".")
    dated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": None}
    width, height = figure.get_size_inches()
    dpi = min(dpi, int(_MAX_SIDE / max(width, height)), int(math.sqrt(_MAX_PIXELS / (width * height))))
    try:
        with matplotlib.rc_context({"svg.hashsalt": "kcompile"}):
            figure.savefig(path, format=kind, dpi=dpi, metadata=dated[kind])
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}.") from error
