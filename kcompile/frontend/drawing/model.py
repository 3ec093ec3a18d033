"""A model as a picture: a box for each layer, arrows for its tensors, a frame around each model inside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcompile.errors import ModelError
from kcompile.frontend.drawing.layout import Layout, Point, layered
from kcompile.frontend.drawing.pictures import check_path, new_figure, write
from kcompile.frontend.layer_graph import LayerNode, layer_nodes, shape_text
from kcompile.frontend.model import Model
from kcompile.ir.types import TensorType

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Sizes in points.
_TITLE, _TEXT, _LINE = 10.0, 8.5, 13.0
_PADDING, _MARGIN, _FRAME, _HEAD = 8.0, 14.0, 12.0, 5.0
_INK, _EDGE, _FRAME_FILL = "#1c2733", "#6b7785", "#f4f6f8"
# The fill of a box by the family of its layer.
_FILLS = {
    "inputs": "#e3e8ee",
    "core": "#d7e5f7",
    "convolution": "#cfe8dc",
    "pooling": "#f8e3c8",
    "normalization": "#e7daf3",
    "activation": "#fbd9d3",
    "regularization": "#eeeeee",
    "merging": "#d2ecf0",
    "recurrent": "#f6edc4",
    "attention": "#f7d9e8",
    "model": "#e9edf2",
}
_OTHER = "#e8ecdf"


@dataclass(frozen=True)
class _Shown:
    """What the boxes say."""

    shapes: bool
    dtype: bool
    names: bool
    activations: bool
    trainable: bool
    nested: bool
    sideways: bool


@dataclass
class _Block:
    """A box with a title and lines of text, or a frame around a model inside."""

    title: str
    lines: list[str]
    fill: str
    inner: "_Scene | None" = None
    size: Point = (0.0, 0.0)


@dataclass
class _Scene:
    """The blocks of a model and where they stand."""

    blocks: list[_Block] = field(default_factory=list[_Block])
    layout: Layout = field(default_factory=lambda: Layout([], [], (0.0, 0.0)))


def plot_model(
    model: Model,
    to_file: str | Path = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
) -> Path:
    """Draw the layers of a model and what goes between them.

    Args:
        to_file: a ``.png``, ``.svg`` or ``.pdf`` file.
        show_shapes: whether boxes say the shapes of what goes in and out.
        show_dtype: whether they say the types of elements.
        show_layer_names: whether they say the layers' names beside their kinds.
        rankdir: "TB" from top to bottom, "LR" from left to right.
        expand_nested: whether models inside are shown by their layers, in a frame.
        dpi: dots per inch of a PNG.

    Returns:
        The path of the file.

    Raises:
        ModelError: the model has no graph yet, or an argument is something else.
        MissingExtra: Matplotlib is not installed.
    """
    path = check_path(to_file)
    if not isinstance(model, Model):
        raise ModelError(f"`plot_model` takes a model. Received: {type(model).__name__}.")
    if rankdir not in ("TB", "LR"):
        raise ModelError(f'`rankdir` must be "TB" or "LR". Received: {rankdir!r}.')
    shown = _Shown(
        show_shapes,
        show_dtype,
        show_layer_names,
        show_layer_activations,
        show_trainable,
        expand_nested,
        rankdir == "LR",
    )
    _paint(lambda: _scene(model, shown), path, dpi, shown.sideways)
    return path


def _paint(make_scene: Callable[[], _Scene], path: Path, dpi: int, sideways: bool) -> None:
    figure = new_figure(1, 1)
    # Not sooner: the sizes of texts need Matplotlib, which `new_figure` asks for.
    scene = make_scene()
    width, height = (side + 2 * _MARGIN for side in _turned(scene.layout.size, sideways))
    figure.set_size_inches(width / 72, height / 72)
    axes: Any = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    _draw_scene(axes, scene, (_MARGIN, _MARGIN), sideways)
    write(figure, path, dpi)


def _turned(point: Point, sideways: bool) -> Point:
    return (point[1], point[0]) if sideways else point


# -- what is drawn ----------------------------------------------------------------------------------------------------


def _scene(model: Model, shown: _Shown) -> _Scene:
    nodes = layer_nodes(model)
    places = {node.name: i for i, node in enumerate(nodes)}
    blocks = [_block(node, shown) for node in nodes]
    arrows = [(places[name], i) for i, node in enumerate(nodes) for name in node.inputs]
    sizes = [_turned(block.size, shown.sideways) for block in blocks]
    return _Scene(blocks, layered(sizes, arrows))


def _block(node: LayerNode, shown: _Shown) -> _Block:
    layer = node.layer
    title = f"{layer.name if layer else node.name} ({node.kind})" if shown.names else node.kind
    inner = _scene(layer, shown) if shown.nested and isinstance(layer, Model) and layer.is_graph else None
    block = _Block(title, _lines(node, shown), _fill(node), inner)
    texts = [(_width(title, _TITLE, bold=True)), *(_width(line, _TEXT) for line in block.lines)]
    width, height = max(texts) + 2 * _PADDING, _LINE * (1 + len(block.lines)) + _PADDING
    if inner is not None:
        inside = _turned(inner.layout.size, shown.sideways)
        width, height = max(width, inside[0] + 2 * _FRAME), height + inside[1] + 2 * _FRAME
    block.size = (max(width, 64.0), height)
    return block


def _lines(node: LayerNode, shown: _Shown) -> list[str]:
    layer = node.layer
    lines: list[str] = []
    if shown.activations and getattr(layer, "activation", None) is not None:
        given: Any = getattr(layer, "activation")  # noqa: B009 - only some layers have one
        lines.append(f"activation: {given if isinstance(given, str) else getattr(given, '__name__', str(given))}")
    if shown.shapes:
        lines += [f"in: {_shapes(node.takes)}"] if node.takes else []
        lines.append(f"out: {_shapes(node.gives)}")
    if shown.dtype:
        lines.append("dtype: " + ", ".join(dict.fromkeys(type.dtype for type in node.gives)))
    if shown.trainable and layer is not None and layer.weights:
        lines.append("trainable" if layer.trainable else "frozen")
    return lines


def _shapes(types: Sequence[TensorType]) -> str:
    """Shapes in a list, equal neighbours counted."""
    runs = [(shape, len(list(run))) for shape, run in groupby(map(shape_text, types))]
    return ", ".join(f"{count} × {shape}" if count > 1 else shape for shape, count in runs)


def _fill(node: LayerNode) -> str:
    if isinstance(node.layer, Model):
        return _FILLS["model"]
    if node.kind == "InputLayer":
        return _FILLS["inputs"]
    module = type(node.layer).__module__.rpartition(".")[2]
    return next((fill for family, fill in _FILLS.items() if module.startswith(family)), _OTHER)


def _width(text: str, size: float, bold: bool = False) -> float:
    """The width of a text in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]


# -- drawing ----------------------------------------------------------------------------------------------------------


def _draw_scene(axes: "Axes", scene: _Scene, origin: Point, sideways: bool) -> None:
    def moved(point: Point) -> Point:
        x, y = _turned(point, sideways)
        return x + origin[0], y + origin[1]

    for block, corner in zip(scene.blocks, scene.layout.corners, strict=True):
        _draw_block(axes, block, moved(corner), sideways)
    for route in scene.layout.routes:
        _draw_arrow(axes, [moved(point) for point in route], sideways)


def _draw_block(axes: "Axes", block: _Block, corner: Point, sideways: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = corner, block.size
    style = "round,pad=0,rounding_size=4"
    framed = block.inner is not None
    fill = _FRAME_FILL if framed else block.fill
    axes.add_patch(
        FancyBboxPatch(
            corner, width, height, boxstyle=style, facecolor=fill, edgecolor=_EDGE, linestyle="--" if framed else "-",
            linewidth=0.8,
        )
    )  # fmt: skip
    middle, line = x + width / 2, y + _PADDING / 2 + _LINE / 2
    text: Mapping[str, Any] = {"ha": "center", "va": "center_baseline", "color": _INK, "parse_math": False}
    axes.text(middle, line, block.title, fontsize=_TITLE, weight="bold", **text)
    for i, each in enumerate(block.lines):
        axes.text(middle, line + (i + 1) * _LINE, each, fontsize=_TEXT, **text)
    if block.inner is not None:
        inside = _turned(block.inner.layout.size, sideways)
        top = y + _LINE * (1 + len(block.lines)) + _PADDING + _FRAME
        _draw_scene(axes, block.inner, (middle - inside[0] / 2, top), sideways)


def _draw_arrow(axes: "Axes", points: Sequence[Point], sideways: bool) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Curve

    *before, (x, y) = points
    neck = (x - _HEAD, y) if sideways else (x, y - _HEAD)
    steps: list[Point] = [points[0]]
    codes = [Curve.MOVETO]
    for i, (start, end) in enumerate(pairwise([*before, neck])):
        if i % 2 == 0:  # within a rank
            steps.append(end)
            codes.append(Curve.LINETO)
            continue
        # The last gap ends where the arrow's head begins, if that reaches up into it.
        end = _before(end, neck, sideways)
        middle = (start[0] + end[0]) / 2 if sideways else (start[1] + end[1]) / 2
        steps += [(middle, start[1]), (middle, end[1])] if sideways else [(start[0], middle), (end[0], middle)]
        steps.append(end)
        codes += [Curve.CURVE4] * 3
    axes.add_patch(PathPatch(Curve(steps, codes), facecolor="none", edgecolor=_EDGE, linewidth=1.0))
    side = _HEAD / 2.2
    feet = [(neck[0], y - side), (neck[0], y + side)] if sideways else [(x - side, neck[1]), (x + side, neck[1])]
    axes.add_patch(Polygon([(x, y), *feet], closed=True, facecolor=_EDGE, edgecolor="none"))


def _before(point: Point, neck: Point, sideways: bool) -> Point:
    return (min(point[0], neck[0]), point[1]) if sideways else (point[0], min(point[1], neck[1]))
