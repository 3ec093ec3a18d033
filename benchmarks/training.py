"""A step of `fit`, and one `predict`, against Keras with TensorFlow on the same cores.

    python -m benchmarks.training [--rounds 9] [--output benchmarks/results]

Each side is a process of its own (`make peers` makes the one of Keras), all cores allowed; they take turns, so that
whatever else the machine does slows both alike. Each cell is the median over the turns of wall time.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.worker import PEERS, ROOT, Worker

# Model, samples of a batch, and steps per turn, or "predict" for one call with one sample.
CASES = (
    *(("mlp", 32, "300"), ("cifar_cnn", 32, "20"), ("cifar_cnn", 128, "6"), ("lstm", 32, "20"), ("lstm", 128, "10")),
    ("mlp", 1, "predict"),
)


@dataclass(frozen=True)
class Row:
    """Milliseconds per step, or per call, of both."""

    model: str
    batch: int
    what: str
    kcompile: float
    keras: float

    @property
    def ratio(self) -> float:
        """How many times faster kcompile is."""
        return self.keras / self.kcompile


def seconds(worker: Worker, case: tuple[str, int, str]) -> float:
    """What a process takes for a case."""
    return float(worker.answer(" ".join(map(str, case))))


def compare(workers: dict[str, Worker], case: tuple[str, int, str], rounds: int) -> Row:
    """One row; the first turn of each compiles and is not counted."""
    turns = [{name: seconds(worker, case) for name, worker in workers.items()} for _ in range(rounds + 1)][1:]
    ours, theirs = (1e3 * statistics.median(turn[name] for turn in turns) for name in ("kcompile", "keras"))
    return Row(case[0], case[1], "predict" if case[2] == "predict" else "step", ours, theirs)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| model | batch | | kcompile, ms | Keras, ms | times as fast |", "|---|--:|---|--:|--:|--:|"]
    lines += [f"| {r.model} | {r.batch} | {r.what} | {r.kcompile:.3g} | {r.keras:.3g} | {r.ratio:.3g} |" for r in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare all cases and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=ROOT / "results")
    given = parser.parse_args()
    try:
        sides = {"kcompile": Path(sys.executable), "keras": PEERS}
        workers = {name: Worker(python, "training_worker.py", name) for name, python in sides.items()}
        rows = [compare(workers, case, given.rounds) for case in CASES]
    except RuntimeError as error:
        sys.exit(str(error))
    for worker in workers.values():
        worker.end()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    versions = {"kcompile": version("kcompile"), "numpy": version("numpy")}
    content = {"machine": machine, "versions": versions, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
    (given.output / "training.json").write_text(json.dumps(content, indent=2) + "\n")
    (given.output / "training.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
