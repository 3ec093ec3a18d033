"""Lower precision on the command line: its options, and the report on it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from kcompile.cli.output import say, table
from kcompile.codegen.precision import PRECISION_KEY
from kcompile.ir.passes.precision import PrecisionReport

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--precision",
        type=click.Choice(["float32", "bf16", "int8"]),
        default="float32",
        show_default=True,
        help="Of the products of convolutions and dense layers.",
    ),
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        metavar="DATA.npz",
        help="Rows of real inputs, by the inputs' names or in0, in1, …, that int8 ranges are chosen by. Without, int8 "
        "serves dense layers alone.",
    ),
    click.option("--labels", metavar="KEY", help="Name of the rows' classes in DATA.npz.  [default: labels, if there]"),
    click.option(
        "--calibration-method",
        type=click.Choice(["entropy", "mse", "percentile", "minmax"]),
        help="How ranges are chosen.  [default: mse]",
    ),
    click.option(
        "--activations",
        type=click.Choice(["auto", "tensor", "token"]),
        help="One scale per tensor, or one per row, found at run time.  [default: per row for sequences]",
    ),
    click.option(
        "--bias-correction/--no-bias-correction",
        default=None,
        help="Whether biases make up for the rounding of weights.  [default: they do]",
    ),
    click.option(
        "--max-accuracy-drop",
        type=float,
        metavar="SHARE",
        help="Keep layers in float32 until accuracy, or agreement with float32, falls by no more: 0.01.",
    ),
)


def precision_options(command: F) -> F:
    """The options of lower precision."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def precision_summary(report: PrecisionReport) -> str:
    """One line: what is in few bits, and what that costs."""
    narrow = sum(layer.precision == report.precision for layer in report.layers)
    parts = [f"{report.precision} in {narrow} of {len(report.layers)} layers"] if report.layers else []
    if report.drop is not None and report.before is not None and report.after is not None:
        rows = f"on {report.samples} rows"
        error = f"relative error {report.after:.2e} {rows}"
        fall = f"{report.measure} {report.after:.2%} {rows}, {report.drop:.2%} below {report.before:.2%}"
        parts.append(error if report.measure == "relative error" else fall)
    return "; ".join([*parts, *report.notes])


def precision_table(report: PrecisionReport) -> str:
    """The layers with their errors."""
    rows = [
        [
            layer.layer,
            layer.op,
            f"{layer.precision} by {layer.activations}" if layer.activations else layer.precision,
            "" if layer.error is None else f"{layer.error:.2e}",
            layer.reason,
        ]
        for layer in report.layers
    ]
    return table(["layer", "op", "precision", "relative error", "why"], rows, "<<<><")


def noted(notes: Mapping[str, str]) -> list[tuple[str, str]]:
    """The notes of an artifact in order, of the report on few bits the summary."""
    report = _report(notes)
    rest = sorted((name, value) for name, value in notes.items() if name != PRECISION_KEY)
    return [*rest, *([("precision", precision_summary(report))] if report else [])]


def show_precision(notes: Mapping[str, str]) -> None:
    """Print the table of layers, where the notes of an artifact have one."""
    report = _report(notes)
    if report and report.layers:
        say(f"\n{precision_table(report)}")


def _report(notes: Mapping[str, str]) -> PrecisionReport | None:
    text = notes.get(PRECISION_KEY)
    return PrecisionReport.from_json(json.loads(text)) if text else None
