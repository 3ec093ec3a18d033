"""How much faster several threads run a model than one, beside what the machine's cores do at once.

    python -m benchmarks.scaling [MODEL ...] [--threads 2] [--rounds 100]

In each round of some milliseconds a bundle runs on one thread; on several, one call after another; and on one thread of
each of so many callers at once, which share nothing but the machine. The first column of ratios is what the threads of
a call gain, the second is how much more the callers get done than one alone: cores that share a cache, a clock or, on
virtual machines, even a core, do less than their number. Times are the 10th percentiles of the rounds, as those of the
engines are, and every round has a turn of each model: a virtual machine's cores may be moved apart for some seconds, in
which what one writes the other reads slowly, and threads gain less.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import kcompile
from benchmarks.engines import RESULTS, inputs, keras_file, machine, versions

MODELS = ("cifar_cnn", "emotion_cnn", "mobilenet_v3_small", "mobilenet_v2", "efficientnet_b0", "resnet50")
# Seconds that the calls of a round take on one thread, about.
_ROUND = 0.04
_FEWEST_CALLS, _WARM_UP = 2, 8


@dataclass(frozen=True)
class Row:
    """Milliseconds of a call on one thread and on several, what these gain, and what callers at once gain."""

    model: str
    one: float
    several: float
    gain: float
    callers: float


class Contest:
    """One model: a session of one thread, one of several, and callers with a session each."""

    def __init__(self, name: str, threads: int) -> None:
        path = keras_file(name)
        bundle = kcompile.compile(path, target="tvm", output=path.with_suffix(".kcb")).path
        self.name = name
        self._x = inputs(name, 1)
        self._alone, self._shared = (kcompile.load(bundle, count) for count in (1, threads))
        self._callers = [kcompile.load(bundle, 1) for _ in range(threads)]
        self._calls = max(_FEWEST_CALLS, round(_ROUND / self._seconds(self._alone, _FEWEST_CALLS)))
        self._times: list[tuple[float, float, float]] = []

    def round(self, pool: Executor) -> None:
        """One turn of each."""
        at_once = statistics.mean(pool.map(self._seconds, self._callers))
        self._times.append((self._seconds(self._alone), self._seconds(self._shared), at_once))

    def row(self) -> Row:
        """What the rounds have shown."""
        one, several, at_once = (float(np.percentile(each, 10)) * 1e3 for each in zip(*self._times, strict=True))
        return Row(self.name, one, several, one / several, len(self._callers) * one / at_once)

    def _seconds(self, session: kcompile.Session, calls: int | None = None) -> float:
        for _ in range(_WARM_UP):
            session.predict(self._x)
        count, start = calls or self._calls, time.perf_counter()
        for _ in range(count):
            session.predict(self._x)
        return (time.perf_counter() - start) / count


def contests(names: Sequence[str], threads: int) -> Iterator[Contest]:
    """Of models that can be had."""
    for name in names:
        try:
            yield Contest(name, threads)
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}")


def table(rows: Sequence[Row], threads: int) -> str:
    """The rows as Markdown."""
    head = ["model", "1 thread, ms", f"{threads} threads, ms", "gain", f"{threads} callers at once"]
    lines = [f"| {' | '.join(head)} |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        lines.append(f"| {row.model} | {row.one:.4g} | {row.several:.4g} | {row.gain:.2f} | {row.callers:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the models that are named, or all convolutional ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    found = list(contests(given.models or MODELS, given.threads))
    with ThreadPoolExecutor(given.threads) as pool:
        for _ in range(given.rounds):
            for contest in found:
                contest.round(pool)
    rows = [contest.row() for contest in found]
    given.output.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "versions": versions((), 1), "threads": given.threads}
    (given.output / "scaling.json").write_text(json.dumps({**about, "rows": [*map(asdict, rows)]}, indent=2) + "\n")
    (given.output / "scaling.md").write_text(table(rows, given.threads))
    print(table(rows, given.threads))


if __name__ == "__main__":
    main()
