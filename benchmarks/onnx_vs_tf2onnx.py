"""kcompile's ONNX files against tf2onnx's, on ONNX Runtime, in one process.

    python -m benchmarks.onnx_vs_tf2onnx [NAME ...] [--seconds 1.0] [--output benchmarks/results]

`make bench` makes tf2onnx's files first, in an environment of their own.

The two files of a model take turns, so that whatever else the machine does slows both alike. Each cell is the median
over the turns; the ratio is that of the medians, above 1 where kcompile's file is faster. With one thread the process's
CPU time counts, which other processes do not lengthen; with more, wall time.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime

import kcompile

FILES = Path(__file__).parent / ".cache" / "peers"
BATCHES = (1, 32)
THREADS = (1, 2)
_FEWEST_TURNS = 7

# Files that compute the same function differ by float32 rounding only.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4


@dataclass(frozen=True)
class Row:
    """Milliseconds per call of both files for one model, batch and number of threads; `note` says what went wrong."""

    model: str
    batch: int
    threads: int
    kcompile: float | None = None
    tf2onnx: float | None = None
    turns: int = 0
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times faster kcompile's file is."""
        return self.tf2onnx / self.kcompile if self.kcompile and self.tf2onnx else None


def compare(name: str, seconds: float) -> Iterator[Row]:
    """All cells of one model."""
    ours = kcompile.compile(FILES / f"{name}.keras", target="onnx", output=FILES / f"{name}.kcompile.onnx")
    theirs = FILES / f"{name}.onnx"
    failures: dict[str, str] = json.loads((FILES / "failures.json").read_text())
    for threads in THREADS:
        mine = _session(Path(ours), threads)
        try:
            peer = None if name in failures else _session(theirs, threads)
        except Exception:  # noqa: BLE001 -- ONNX Runtime's errors have no common base but this
            peer, failures[name] = None, "ONNX Runtime refuses the file"
        for batch in BATCHES:
            yield _cell(name, mine, peer, batch, threads, seconds, failures.get(name, ""))


def _cell(
    name: str,
    mine: onnxruntime.InferenceSession,
    peer: onnxruntime.InferenceSession | None,
    batch: int,
    threads: int,
    seconds: float,
    failure: str,
) -> Row:
    feed = _inputs(mine, batch)
    clock = time.process_time if threads == 1 else time.perf_counter
    if peer is None:
        (times,) = _turns([mine], [feed], seconds, clock)
        return Row(name, batch, threads, statistics.median(times), turns=len(times), note=failure)
    other = dict(zip([x.name for x in peer.get_inputs()], feed.values(), strict=True))
    expected, received = peer.run(None, other), mine.run(None, feed)
    agree = all(np.allclose(a, b, _RELATIVE, _ABSOLUTE) for a, b in zip(expected, received, strict=True))
    first, second = _turns([mine, peer], [feed, other], seconds, clock)
    note = "" if agree else "the results differ"
    return Row(name, batch, threads, statistics.median(first), statistics.median(second), len(first), note)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _inputs(session: onnxruntime.InferenceSession, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feed: dict[str, np.ndarray] = {}
    for x in session.get_inputs():
        shape = [batch, *x.shape[1:]]
        if x.type == "tensor(float)":
            feed[x.name] = rng.random(shape, np.float32)
        else:
            feed[x.name] = rng.integers(1, 1000, shape).astype(np.int32)
            feed[x.name][:, shape[1] // 2 :] = 0  # padding after the tokens
    return feed


def _turns(
    sessions: Sequence[onnxruntime.InferenceSession],
    feeds: Sequence[dict[str, np.ndarray]],
    seconds: float,
    clock: Callable[[], float],
) -> list[list[float]]:
    """Milliseconds of each session's calls, taken in turns of calls that last a millisecond at least."""
    pairs = list(zip(sessions, feeds, strict=True))
    calls = [max(1, int(1e-3 / _time(session, feed, 3, time.perf_counter))) for session, feed in pairs]
    times: list[list[float]] = [[] for _ in sessions]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < _FEWEST_TURNS:
        for i, (session, feed) in enumerate(pairs):
            times[i].append(_time(session, feed, calls[i], clock) * 1e3)
    return times


def _time(
    session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray], calls: int, clock: Callable[[], float]
) -> float:
    start = clock()
    for _ in range(calls):
        session.run(None, feed)
    return (clock() - start) / calls


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| model | batch | threads | kcompile, ms | tf2onnx, ms | times as fast |", "|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        cells = [f"{x:.3g}" if x else row.note or "–" for x in (row.kcompile, row.tf2onnx, row.ratio)]
        mark = f" ({row.note})" if row.note and row.ratio else ""
        lines.append(f"| {row.model} | {row.batch} | {row.threads} | {cells[0]} | {cells[1]} | {cells[2]}{mark} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare the models that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=1.0, help="per cell")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.stem for path in FILES.glob("*.keras"))
    rows = [row for name in names for row in compare(name, arguments.seconds)]
    machine = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    versions = {"kcompile": kcompile.__version__, "onnxruntime": onnxruntime.__version__}
    cells = [{**asdict(row), "ratio": row.ratio} for row in rows]
    arguments.output.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"machine": machine, "versions": versions, "rows": cells}, indent=2)
    (arguments.output / "onnx_vs_tf2onnx.json").write_text(content + "\n")
    (arguments.output / "onnx_vs_tf2onnx.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
