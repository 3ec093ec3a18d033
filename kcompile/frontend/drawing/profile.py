"""The time of each layer as bars."""

from pathlib import Path

from kcompile.frontend.drawing.pictures import check_path, new_figure, write
from kcompile.runtime.profile import LayerTime, Profile

_BAR, _GRID = "#1f5fa8", "#dddddd"
_WIDTH, _ROW, _MARGIN = 8.0, 0.24, 1.0
_UNITS = ((1.0, "s"), (1e-3, "ms"), (0.0, "µs"))
_SCALES = {"s": 1.0, "ms": 1e3, "µs": 1e6}


def plot_profile(profile: Profile, path: str | Path, dpi: int = 150) -> Path:
    """Draw the time of each layer from top to bottom, with its rate and its share of the machine's peak.

    Args:
        path: a ``.png``, ``.svg`` or ``.pdf`` file.

    Raises:
        ModelError: the file is another or cannot be written.
        MissingExtra: Matplotlib is not installed.
    """
    path = check_path(path)
    layers = profile.layers
    figure = new_figure(_WIDTH, _MARGIN + _ROW * len(layers))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    longest = max((layer.seconds for layer in layers), default=0.0)
    unit = next(unit for least, unit in _UNITS if longest >= least)
    places = list(range(len(layers)))
    bars = axes.barh(places, [layer.seconds * _SCALES[unit] for layer in layers], color=_BAR, height=0.7)
    axes.bar_label(bars, [_label(layer) for layer in layers], padding=3, fontsize=7)
    axes.set_yticks(places, [layer.layer or "(none)" for layer in layers], fontsize=7)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.margins(x=0.4)
    axes.set_xlabel(f"{unit} of one call on one thread")
    axes.set_title(f"{profile.name} ({profile.engine})", fontsize=10)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    write(figure, path, dpi)
    return path


def _label(layer: LayerTime) -> str:
    rate = "" if layer.flops is None else f", {layer.flops / 1e9:.0f} GFLOP/s"
    of_peak = "" if layer.peak_share is None else f", {layer.peak_share:.0%} of peak"
    return f"{layer.share:.0%}{rate}{of_peak}"
