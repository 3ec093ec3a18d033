"""The table that `model.summary()` prints, in the shape of Keras 3's."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from kcompile.errors import ModelError
from kcompile.frontend.functional import Functional
from kcompile.frontend.layer import Layer
from kcompile.frontend.model import Model
from kcompile.frontend.tracing import Call, KerasTensor, flatten, map_structure
from kcompile.frontend.weight import Weight


@dataclass(frozen=True)
class _Column:
    title: str
    end: float
    """Where the column ends, as a part of the line."""
    align: Literal["<", ">"] = "<"


# Columns and line lengths as Keras 3 chooses them.
_STACK = (88, (_Column("Layer (type)", 0.45), _Column("Output Shape", 0.80), _Column("Param #", 1.0, ">")))
_GRAPH = (
    108,
    (
        _Column("Layer (type)", 0.3),
        _Column("Output Shape", 0.56),
        _Column("Param #", 0.74, ">"),
        _Column("Connected to", 1.0),
    ),
)


# What the column of trainable layers adds to a line.
_TRAINABLE = 11


def summary_text(
    model: Model, line_length: int | None = None, expand_nested: bool = False, show_trainable: bool = False
) -> str:
    """The whole summary; `line_length` is at most the terminal's width by default.

    Raises:
        ModelError: the line is too short for the columns.
    """
    stacked = not isinstance(model, Functional) or _is_stack(model)
    default, columns = _STACK if stacked else _GRAPH
    if show_trainable:
        default, columns = _with_trainable(default, columns)
    line = line_length or min(default, shutil.get_terminal_size().columns - 4)
    widths = _widths(columns, line)
    if min(widths) < 1:
        raise ModelError(f"a summary needs a line of at least 40 characters. Received: line_length={line}.")
    rows = list(_rows(model, stacked, expand_nested, show_trainable))
    trainable, frozen = model.trainable_weights, model.non_trainable_weights
    state = model.optimizer.variables if model.compiled and model.optimizer.built else []
    return "\n".join(
        [
            f'Model: "{model.name}"',
            *_table(columns, widths, rows),
            _total("Total params", [*trainable, *frozen, *state]),
            _total("Trainable params", trainable),
            _total("Non-trainable params", frozen),
            *([_total("Optimizer params", state)] if state else []),
        ]
    )


def _with_trainable(line: int, columns: Sequence[_Column]) -> tuple[int, tuple[_Column, ...]]:
    """The table with one more narrow column."""
    wider = line + _TRAINABLE
    narrowed = (replace(column, end=column.end * line / wider) for column in columns)
    return wider, (*narrowed, _Column("Trainable", 1.0))


def _rows(model: Model, stacked: bool, expand: bool, show_trainable: bool, depth: int = 0) -> Iterator[list[str]]:
    for layer in model.layers:
        row = _row(layer, model, stacked)
        row[0] = f"{'    ' * depth}└ {row[0]}" if depth else row[0]
        yield [*row, _trains(layer)] if show_trainable else row
        if expand and isinstance(layer, Model):
            yield from _rows(layer, stacked, expand, show_trainable, depth + 1)


def _trains(layer: Layer) -> str:
    return "-" if not layer.weights else "Y" if layer.trainable else "N"


def _widths(columns: Sequence[_Column], line: int) -> list[int]:
    """The columns' widths, of which Keras takes borders and padding off in equal parts, left to right."""
    ends = [int(column.end * line) for column in columns]
    widths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    excess = 3 * len(columns) + 1 + sum(widths) - line
    for i, left in enumerate(range(len(columns), 0, -1)):
        part = round(excess / left)
        widths[i] -= part
        excess -= part
    return widths


def _is_stack(model: Functional) -> bool:
    """Whether each layer is called once, on the result of the layer before."""
    calls = model.topology.calls
    chained = all([t.call for t in call.inputs] == [before] for before, call in pairwise(calls))
    return chained and len({id(call.layer) for call in calls}) == len(calls)


def _row(layer: Layer, model: Model, stacked: bool) -> list[str]:
    count = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
    row = [f"{layer.name} ({type(layer).__name__})", _output_shape(layer), count]
    return row if stacked else [*row, _connections(layer, model)]


def _output_shape(layer: Layer) -> str:
    outputs = layer.calls[-1].outputs if layer.calls else layer.traced_outputs
    if outputs is None:
        return "?"
    if isinstance(outputs, Mapping):
        return str(map_structure(lambda tensor: tensor.shape, outputs))
    shapes = [tensor.shape for tensor in flatten(outputs)]
    return str(shapes if len(shapes) > 1 else shapes[0])


def _connections(layer: Layer, model: Model) -> str:
    calls = model.topology.calls_of(layer)
    return ", ".join(_connection(tensor) for call in calls for tensor in call.inputs) or "-"


def _connection(tensor: KerasTensor) -> str:
    call: Call | None = tensor.call
    assert call is not None
    return f"{call.layer.name}[{call.layer.calls.index(call)}][{tensor.index}]"


def _table(columns: Sequence[_Column], widths: Sequence[int], rows: Sequence[Sequence[str]]) -> list[str]:
    def rule(left: str, line: str, middle: str, right: str) -> str:
        return left + middle.join(line * (width + 2) for width in widths) + right

    def cells(row: Sequence[str], bar: str) -> list[str]:
        wrapped = [_wrap(text, width) for text, width in zip(row, widths, strict=True)]
        height = max(map(len, wrapped))
        lines = [[cell[i] if i < len(cell) else "" for cell in wrapped] for i in range(height)]
        aligned = [
            [f"{text:{column.align}{width}}" for text, column, width in zip(line, columns, widths, strict=True)]
            for line in lines
        ]
        return [f"{bar} {f' {bar} '.join(line)} {bar}" for line in aligned]

    table = [rule("┏", "━", "┳", "┓"), *cells([c.title for c in columns], "┃"), rule("┡", "━", "╇", "┩")]
    for number, row in enumerate(rows):
        table += [rule("├", "─", "┼", "┤")] * (number > 0) + cells(row, "│")
    return [*table, rule("└", "─", "┴", "┘")]


def _wrap(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def _total(title: str, weights: Sequence[Weight]) -> str:
    count = sum(weight.array.size for weight in weights)
    return f" {title}: {count:,} ({_readable(sum(weight.array.nbytes for weight in weights))})"


def _readable(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TB"
