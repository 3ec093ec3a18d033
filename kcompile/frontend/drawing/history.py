"""The curves of a `fit`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.drawing.pictures import check_path, new_figure, write
from kcompile.frontend.training.callbacks.simple import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAINING, _VALIDATION, _GRID = "#1f5fa8", "#d1651b", "#dddddd"
_WIDTH, _HEIGHT = 4.6, 3.2


def plot_history(
    history: "History | Mapping[str, Sequence[Any]]", path: str | Path = "history.png", dpi: int = 150
) -> Path:
    """Draw losses and metrics over the epochs, those of validation beside those of training.

    Args:
        history: what `fit` returns, or its `history`.
        path: a ``.png``, ``.svg`` or ``.pdf`` file.

    Raises:
        ModelError: there are no epochs, or the file is another or cannot be written.
        MissingExtra: Matplotlib is not installed.
    """
    path = check_path(path)
    curves = {name: _numbers(values) for name, values in _curves(history).items()}
    epochs = _epochs(history, curves)
    names = [name for name in curves if not (name.startswith("val_") and name.removeprefix("val_") in curves)]
    names.sort(key=lambda name: (name == "learning_rate", name.removeprefix("val_") != "loss"))
    columns = min(len(names), 2 if len(names) < 5 else 3)
    rows = math.ceil(len(names) / columns)
    figure = new_figure(columns * _WIDTH, rows * _HEIGHT)
    figure.set_layout_engine("constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        _draw(axes, name, {n: (_of(epochs, c), c) for n in (name, f"val_{name}") if (c := curves.get(n)) is not None})
    write(figure, path, dpi)
    return path


def _curves(history: Any) -> Mapping[str, Sequence[Any]]:
    found = history.history if isinstance(history, History) else history
    if not isinstance(found, Mapping):
        law = "`history` must be what `fit` returns, or its `history`"
        raise ModelError(f"{law}. Received: {type(found).__name__}.")
    if not any(len(values) for values in found.values()):
        raise ModelError("`history` must have at least one epoch. Received: none.")
    return {str(name): values for name, values in found.items() if len(values)}


def _numbers(values: Sequence[Any]) -> list[float]:
    """One number for each epoch; of metrics that are arrays the mean."""
    return [float(np.mean(value)) for value in values]


def _epochs(history: Any, curves: Mapping[str, Sequence[float]]) -> list[int]:
    """The numbers of the epochs, from 1 on, at least as many as the longest curve has."""
    longest = max(len(curve) for curve in curves.values())
    known = [epoch + 1 for epoch in history.epoch] if isinstance(history, History) else []
    return known if len(known) >= longest else list(range(1, longest + 1))


def _of(epochs: Sequence[int], curve: Sequence[float]) -> Sequence[int]:
    """The epochs that a curve has values for: of one that has fewer, every so many, as `validation_freq` has it."""
    every = len(epochs) // len(curve)
    return epochs[every - 1 :: every][: len(curve)]


def _draw(axes: "Axes", name: str, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for each, (epochs, values) in curves.items():
        validation = each.startswith("val_")
        axes.plot(
            epochs,
            values,
            color=_VALIDATION if validation else _TRAINING,
            label="validation" if validation else "training",
            marker="o" if len(values) <= 20 else "",
            markersize=3.5,
            linewidth=1.6,
        )
    axes.set_title(name.removeprefix("val_").replace("_", " "), fontsize=11)
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    if all(len(epochs) == 1 for epochs, _ in curves.values()):
        only = next(iter(curves.values()))[0][0]
        axes.set_xlim(only - 0.5, only + 0.5)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
