"""``kcompile bench``."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from kcompile import api
from kcompile.cli import options
from kcompile.cli.arrays import read_inputs
from kcompile.cli.output import Progress, duration, facts, say, say_json
from kcompile.codegen.samples import draw_for
from kcompile.ir.types import Array
from kcompile.runtime import Session

_WARM_UP = 0.1
_FEWEST = 5


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, and what that makes of the rows."""

    artifact: str
    engine: str
    threads: int
    batch: int
    calls: int
    load: float
    first: float
    mean: float
    p50: float
    p90: float
    p99: float
    rows_per_second: float


@click.command("bench")
@click.argument("artifact", type=options.EXISTING)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Rows of one call.")
@options.threads
@options.shape
@click.option("--inputs", "-i", type=options.EXISTING, metavar="X.npz", help="Arrays to run on instead of drawn ones.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=1.0, show_default=True, help="How long to measure, about."
)
@options.seed
@options.as_json
def command(
    artifact: Path,
    batch: int,
    threads: int | None,
    shapes: tuple[tuple[str, tuple[int | None, ...]], ...],
    inputs: Path | None,
    seconds: float,
    seed: int,
    as_json: bool,
) -> None:
    """Time calls of an artifact, or of a Keras file by the reference.

    Calls are repeated for a tenth of a second first, so that caches, threads and the clock have settled.
    """
    begin = time.perf_counter()
    session = api.load(artifact, threads)
    loaded = time.perf_counter() - begin
    if inputs:
        feeds = read_inputs(inputs, list(session.inputs))
    else:
        feeds = draw_for(session.signature, batch, options.named_shapes(shapes, list(session.inputs)), seed)
    with Progress(as_json) as progress:
        progress.stage("measuring")
        timing = measure(session, feeds, seconds, artifact.name, loaded)
    if as_json:
        say_json(asdict(timing))
    else:
        _describe(timing)


def measure(session: Session, feeds: Mapping[str, Array], seconds: float, name: str, loaded: float) -> Timing:
    """Time calls of `session.run`."""
    first = _timed(session, feeds)
    _repeat(session, feeds, min(_WARM_UP, seconds))
    times = _repeat(session, feeds, seconds)
    rows = next(iter(feeds.values())).shape[0] if session.signature.batch else 1
    p50, p90, p99 = (float(p) for p in np.percentile(times, [50, 90, 99]))
    mean = float(np.mean(times))
    return Timing(
        name, session.engine, session.threads, rows, len(times), loaded, first, mean, p50, p90, p99, rows / mean
    )


def _timed(session: Session, feeds: Mapping[str, Array]) -> float:
    begin = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - begin


def _repeat(session: Session, feeds: Mapping[str, Array], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < _FEWEST:
        times.append(_timed(session, feeds))
    return times


def _describe(timing: Timing) -> None:
    per_call = f"p50 {duration(timing.p50)}, p90 {duration(timing.p90)}, p99 {duration(timing.p99)}"
    say(
        facts(
            [
                ("artifact", f"{timing.artifact} ({timing.engine}, {timing.threads} threads, batch {timing.batch})"),
                ("latency", f"{per_call}, mean {duration(timing.mean)} of {timing.calls} calls"),
                ("throughput", f"{timing.rows_per_second:,.0f} rows/s"),
                ("start", f"load {duration(timing.load)}, first call {duration(timing.first)}"),
            ]
        )
    )
