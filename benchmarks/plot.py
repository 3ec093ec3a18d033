"""The picture of `benchmarks.engines`: how many times as long as kcompile each engine takes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kcompile.frontend.drawing.pictures import new_figure, write

_COLOURS = ("#1f5fa8", "#7fb0e0", "#8a6bbf", "#d1651b", "#3a8f4d", "#b03a5b", "#888888", "#c9a227")
_MARKERS = "oosD^vXP"
# Inches: of a panel, of what stands around its lines, of a line, and of the legend.
_WIDTH, _AROUND, _HEIGHT, _LEGEND = 4.6, 0.8, 0.24, 0.5
_COLUMNS = 2
_DPI = 150


def plot(path: Path, rows: Sequence[Mapping[str, Any]], engines: Sequence[str], ours: str) -> None:
    """Draw a panel per batch and number of threads, with a line per model and a mark per engine; `ours` is at 1."""
    rows = [row for row in rows if ours in row["milliseconds"]]
    panels = sorted({(row["batch"], row["threads"]) for row in rows})
    if not panels:
        return
    models = list(dict.fromkeys(row["model"] for row in rows))
    columns = min(_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    height = _LEGEND + lines * (_AROUND + _HEIGHT * len(models))
    figure = new_figure(_WIDTH * columns, height)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - _LEGEND / height))
    shared: Any = None
    for i, (batch, threads) in enumerate(panels):
        axes: Any = figure.add_subplot(lines, columns, i + 1, sharey=shared)
        shared = shared or axes
        mine = [row for row in rows if (row["batch"], row["threads"]) == (batch, threads)]
        for number, engine in enumerate(engines):
            _marks(axes, number, engine, ours, [row for row in mine if engine in row["milliseconds"]], models)
        _dress(axes, f"batch {batch}, {threads} thread{'s' * (threads > 1)}", models, labelled=i % columns == 0)
    handles, labels = shared.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=math.ceil(len(engines) / 2), frameon=False, fontsize=8)
    write(figure, path, _DPI)


def _marks(
    axes: Any, number: int, engine: str, ours: str, rows: Sequence[Mapping[str, Any]], models: Sequence[str]
) -> None:
    axes.plot(
        [row["milliseconds"][engine] / row["milliseconds"][ours] for row in rows],
        [models.index(row["model"]) for row in rows],
        _MARKERS[number % len(_MARKERS)],
        color=_COLOURS[number % len(_COLOURS)],
        markersize=5,
        label=engine,
    )


def _dress(axes: Any, title: str, models: Sequence[str], labelled: bool) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("times as long as kcompile tvm", fontsize=8)
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.tick_params(labelsize=8, labelleft=labelled)
    axes.axvline(1, color="#1f5fa8", linewidth=0.8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
