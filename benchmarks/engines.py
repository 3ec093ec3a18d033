"""kcompile's native code against other engines, in one process.

    python -m benchmarks.engines [MODEL ...] [--threads 1] [--batch 1] [--seconds 3] [--engine NAME ...]

Each engine runs the same model from one Keras file: kcompile's native program and its ONNX file on ONNX Runtime,
tf2onnx's file on ONNX Runtime too, OpenVINO and IREE from kcompile's ONNX file, LiteRT from its own, and Keras with
TensorFlow, by `predict` and by a `tf.function`, in a process of its own (`peer_files.py`, `keras_peer.py`). All compute
in float32. The engines take turns (`turns.py` says how); each cell is the 10th percentile of the turns. An engine that
fails has a note in the place of a time, and one whose results are off has one beside it.

Results are written after every model, so that an engine that ends the process leaves those before it.
"""

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import kcompile
from benchmarks.models import MODELS
from benchmarks.models.trained import NAMES, read, trained
from benchmarks.peers import ENGINES, OURS, Setting, engine, worker
from benchmarks.plot import plot
from benchmarks.turns import Engine, turns

FILES = Path(__file__).parent / ".cache" / "engines"
RESULTS = Path(__file__).parent / "results"
# Files that compute the same function differ by float32 rounding only.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
_PACKAGES = ("kcompile", "numpy", "onnxruntime", "openvino", "ai-edge-litert", "iree-base-runtime", "apache-tvm")
ALL = (*MODELS, *NAMES)


@dataclass
class Row:
    """Milliseconds per call by engine, for one model, batch and number of threads, and what failed or is off."""

    model: str
    batch: int
    threads: int
    milliseconds: dict[str, float] = field(default_factory=dict[str, float])
    notes: dict[str, str] = field(default_factory=dict[str, str])
    turns: int = 0

    @property
    def ratio(self) -> float | None:
        """How many times faster kcompile's native program is than the best other engine."""
        others = [value for name, value in self.milliseconds.items() if name != OURS]
        return min(others) / self.milliseconds[OURS] if others and OURS in self.milliseconds else None


def compare(name: str, batch: int, threads: int, seconds: float, names: Sequence[str]) -> Row:
    """One model on every engine."""
    setting, row = Setting(keras_file(name), inputs(name, batch), threads), Row(name, batch, threads)
    engines: dict[str, Engine] = {}
    for each in names:
        try:
            engines[each] = engine(each, setting)
            _check(row, each, engines[each].results()[0], engines)
        except Exception as error:  # noqa: BLE001 -- whatever an engine raises is its result
            engines.pop(each, None)
            row.notes[each] = _said(error)
    if engines:
        times = turns(list(engines.values()), seconds, threads)
        row.turns = max(map(len, times))
        row.milliseconds = {each: float(np.percentile(own, 10)) * 1e3 for each, own in zip(engines, times, strict=True)}
    return row


def keras_file(name: str) -> Path:
    """The model's Keras file, written when it is first asked for."""
    path = FILES / f"{name}.keras"
    if not path.exists():
        FILES.mkdir(parents=True, exist_ok=True)
        (FILES / ".gitignore").write_text("*\n")
        model = read(name) if name in NAMES else MODELS[name]()
        model.save(path)
    return path


def inputs(name: str, batch: int) -> np.ndarray:
    """Rows for a model: those recorded for a trained one, again and again, and random ones for the others."""
    if name in NAMES:
        (recorded,) = trained(name).recorded()[0]
        return np.resize(recorded, (batch, *recorded.shape[1:]))
    (shape,) = (type.shape for type in kcompile.load_model(keras_file(name)).trace().input_types.values())
    return np.random.default_rng(0).random((batch, *map(int, shape[1:])), np.float32)


def _said(error: Exception) -> str:
    """The first line of an error, without the folder that files are in."""
    text = str(error).replace(f"{FILES}{os.sep}", "").partition("\n")[0]
    return f"{type(error).__name__}: {text[:240]}"


def _check(row: Row, name: str, result: np.ndarray, engines: dict[str, Engine]) -> None:
    """Note an engine whose result differs from the first one's."""
    first = next(iter(engines.values())).results()[0]
    if not np.allclose(first, result.reshape(first.shape), _RELATIVE, _ABSOLUTE):
        row.notes[name] = f"its results differ by {np.abs(first - result.reshape(first.shape)).max():.1e}"


def table(rows: Sequence[Row], engines: Sequence[str]) -> str:
    """The rows as Markdown: milliseconds, and the best other engine's time divided by ours."""
    titles = ["model", "batch", "threads", *(f"{engine}, ms" for engine in engines), "best other / ours"]
    lines = [f"| {' | '.join(titles)} |", f"|---{'|--:' * (len(titles) - 1)}|"]
    for row in rows:
        cells = [f"{row.milliseconds[e]:.4g}" if e in row.milliseconds else "–" for e in engines]
        ratio = f"{row.ratio:.2f}" if row.ratio else "–"
        lines.append(f"| {' | '.join([row.model, str(row.batch), str(row.threads), *cells, ratio])} |")
    notes = [f"- {row.model}, {engine}: {text}" for row in rows for engine, text in row.notes.items()]
    return "\n".join([*lines, *([""] if notes else []), *dict.fromkeys(notes)]) + "\n"


def machine() -> dict[str, Any]:
    """What the figures stand for."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return {"processor": processor, "cpus": os.cpu_count(), "load": os.getloadavg()[0]}


def versions(names: Sequence[str], threads: int) -> dict[str, str]:
    """Of the packages that take part."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    try:
        return found | (worker(threads).versions if any("eras" in name for name in names) else {})
    except RuntimeError:
        return found


def rows(given: argparse.Namespace) -> Iterator[Row]:
    """Every row that is asked for; of models that have not been fetched, none."""
    for name in given.models or ALL:
        try:
            keras_file(name)
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}")
            continue
        for threads in given.threads:
            for batch in given.batch:
                yield compare(name, batch, threads, given.seconds, given.engine)


def write(output: Path, found: Sequence[Row], given: argparse.Namespace) -> None:
    """JSON, Markdown and the picture of rows."""
    output.mkdir(parents=True, exist_ok=True)
    cells = [{**asdict(row), "ratio": row.ratio} for row in found]
    about = {"machine": machine(), "versions": versions(given.engine, given.threads[0])}
    (output / "engines.json").write_text(json.dumps({**about, "rows": cells}, indent=2) + "\n")
    (output / "engines.md").write_text(table(found, given.engine))
    plot(output / "engines.svg", cells, given.engine, OURS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on the models that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", choices=[*ALL, []], metavar="MODEL", help=f"of {', '.join(ALL)}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--seconds", type=float, default=3.0, help="per row")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    found: list[Row] = []
    for row in rows(given):
        found.append(row)
        print(table([row], given.engine).splitlines()[2], flush=True)
        write(given.output, found, given)
    print(table(found, given.engine))


if __name__ == "__main__":
    main()
