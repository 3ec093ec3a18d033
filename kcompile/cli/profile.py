"""``kcompile profile``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kcompile import api
from kcompile.cli import options
from kcompile.cli.arrays import read_inputs
from kcompile.cli.output import Progress, duration, facts, say, say_json, size, table
from kcompile.codegen.bundle import replacing
from kcompile.codegen.samples import draw_for
from kcompile.errors import ArtifactError
from kcompile.frontend.drawing.pictures import check_path
from kcompile.frontend.drawing.profile import plot_profile
from kcompile.runtime.profile import LayerTime, Profile, profile

_TITLES = ("layer", "kernels", "time", "share", "GFLOP/s", "of peak", "bytes", "GB/s")
_NO_LAYER = "(none)"


@click.command("profile")
@click.argument("artifact", type=options.EXISTING)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Rows of one call.")
@options.shape
@click.option("--inputs", "-i", type=options.EXISTING, metavar="X.npz", help="Arrays to run on instead of drawn ones.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=1.0, show_default=True, help="How long to measure, about."
)
@click.option(
    "--trace", type=click.Path(path_type=Path), metavar="T.json", help="A file to write for chrome://tracing, Perfetto."
)
@click.option(
    "--picture", type=click.Path(path_type=Path), metavar="P.svg", help="A .png, .svg or .pdf file to draw bars in."
)
@options.seed
@options.as_json
def command(
    artifact: Path,
    batch: int,
    shapes: tuple[tuple[str, tuple[int | None, ...]], ...],
    inputs: Path | None,
    seconds: float,
    trace: Path | None,
    picture: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Show time, GFLOP/s, share of peak and bytes of each Keras layer of an artifact, on one thread.

    Two operations count for a multiply-accumulate of the layer, also where a kernel needs fewer of them (Winograd, and
    padding that it skips). The peak is that of float32 multiply-adds in registers, measured in the same run. Bytes are
    those of the arrays that a layer's kernels read or write, each counted once and whole. A layer that was merged into
    another shows under it.
    """
    if api.is_keras_file(artifact):
        law = "a profile is of compiled code"
        raise ArtifactError(f"{law}. Received: the Keras file {artifact}. Compile it, for example with --target tvm.")
    if picture:
        check_path(picture)
    session = api.load(artifact, 1)
    if inputs:
        feeds = read_inputs(inputs, list(session.inputs))
    else:
        feeds = draw_for(session.signature, batch, options.named_shapes(shapes, list(session.inputs)), seed)
    with Progress(as_json) as progress:
        progress.stage("measuring")
        found = profile(artifact, feeds, seconds)
    if trace:
        with replacing(trace) as file:
            file.write(json.dumps({"traceEvents": trace_events(found), "displayTimeUnit": "ns"}).encode())
    if picture:
        plot_profile(found, picture)
    if as_json:
        say_json(_record(found))
    else:
        _describe(found)


def trace_events(found: Profile) -> list[dict[str, Any]]:
    """One typical call as complete events: layers in one row, their stages in the next.

    The form is Chrome's "Trace Event Format", with times in microseconds.
    """
    rows = {1: "layers", 2: "kernels"}
    named = [{"ph": "M", "pid": 1, "tid": t, "name": "thread_name", "args": {"name": n}} for t, n in rows.items()]
    events: list[dict[str, Any]] = [*named]
    layer: dict[str, Any] = {}
    begin = 0.0
    for stage in found.stages:
        microseconds = stage.seconds * 1e6
        name = stage.layer or _NO_LAYER
        if layer.get("name") != name:
            layer = {"ph": "X", "pid": 1, "tid": 1, "cat": "layer", "name": name, "ts": begin, "dur": 0.0}
            events.append(layer)
        layer["dur"] += microseconds
        counts = {"kind": stage.kind, "layer": stage.layer, "macs": stage.macs, "bytes": stage.bytes}
        event = {"ph": "X", "pid": 1, "tid": 2, "cat": "kernel", "name": stage.name, "ts": begin, "dur": microseconds}
        events.append({**event, "args": counts})
        begin += microseconds
    return events


def _record(found: Profile) -> dict[str, Any]:
    return {
        **{key: value for key, value in asdict(found).items() if key != "stages"},
        "total": asdict(found.total),
        "layers": [asdict(layer) for layer in found.layers],
        "stages": [asdict(stage) for stage in found.stages],
    }


def _describe(found: Profile) -> None:
    extents = ", ".join(f"{symbol} = {value}" for symbol, value in found.extents.items())
    rows = [_row(layer, ", ".join(layer.kinds)) for layer in found.layers]
    say(table(_TITLES, [*rows, _row(found.total, str(len(found.stages)))], "<<>>>>>>"))
    say()
    say(
        facts(
            [
                ("model", f"{found.name} ({found.engine}, 1 thread{', ' if extents else ''}{extents})"),
                ("one call", f"{duration(found.seconds)}, over {found.passes} calls"),
                ("peak", _peak(found)),
            ]
        )
    )


def _peak(found: Profile) -> str:
    if not found.peak:
        return ""
    above = any(layer.peak_share and layer.peak_share > 1 for layer in found.layers)
    narrow = "; products of few bits may exceed it" if above else ""
    return f"{found.peak / 1e9:.1f} GFLOP/s of float32 on one core, measured{narrow}"


def _row(layer: LayerTime, kernels: str) -> list[str]:
    return [
        layer.layer or _NO_LAYER,
        kernels,
        duration(layer.seconds),
        f"{layer.share:.1%}",
        "" if layer.flops is None else f"{layer.flops / 1e9:.1f}",
        "" if layer.peak_share is None else f"{layer.peak_share:.0%}",
        size(layer.bytes),
        "" if layer.bandwidth is None else f"{layer.bandwidth / 1e9:.1f}",
    ]
