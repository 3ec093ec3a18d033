"""The main job on real trained models: compile to both targets, verify, and time next to the reference.

make demo
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import kcompile
from kcompile.cli.output import duration, say, size, table
from kcompile.codegen.samples import draw_inputs
from kcompile.runtime import Session

MODELS = Path(__file__).parent / "models"
TARGETS = {"onnx": ".onnx", "tvm": ".kcb"}
FER, INTRON = MODELS / "fer_emotion" / "emotion_model.hdf5", MODELS / "mmsplice_intron3" / "Intron3.h5"


def main() -> None:
    """Show what kcompile does with each model, then what its own Keras said of one."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(f"kcompile {kcompile.__version__} on {threads} CPUs\n")
    with tempfile.TemporaryDirectory() as folder:
        for path in (FER, INTRON):
            show(path, Path(folder))
        show_recorded(Path(folder))


def show(path: Path, folder: Path) -> None:
    """Compile `path` to both targets and print a table."""
    model = kcompile.load_model(path)
    takes = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in model.inputs)
    print(f"{path.parent.name}/{path.name}: {model.count_params():,} parameters, {takes}")
    x = draw_inputs(model.trace())
    rows = [["NumPy reference", "", "", "", duration(median_latency(kcompile.load(path), x))]]
    for target, suffix in TARGETS.items():
        artifact = kcompile.compile(path, target, folder / f"{path.stem}{suffix}")
        worst = max(difference.relative for difference in artifact.report.differences)
        rows.append(
            [
                f"{target} ({artifact.path.name})",
                size(artifact.size),
                duration(sum(artifact.seconds.values())),
                f"off by {worst:.0e}",
                duration(median_latency(kcompile.load(artifact), x)),
            ]
        )
    say(table(["", "size", "compiled in", "verified", "median latency"], rows, "<>>>>") + "\n")


def median_latency(session: Session, x: dict[str, np.ndarray], seconds: float = 0.5) -> float:
    """The median time of one call with one row, after a warm-up."""
    row = {name: np.ascontiguousarray(array[:1]) for name, array in x.items()}
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 10:
        begin = time.perf_counter()
        session.run(row)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[len(times) // 5 :])


def show_recorded(folder: Path) -> None:
    """Compare with what the Keras that wrote the model gave for recorded images."""
    with np.load(FER.parent / "recorded.npz") as recorded:
        images, expected = recorded["in0"], recorded["out0"]
    print(f"{FER.parent.name} on {len(images)} recorded images, against Keras 2.0's own output:")
    for target, suffix in TARGETS.items():
        y = kcompile.load(folder / f"{FER.stem}{suffix}").predict(images)
        off = float(np.abs(y - expected).max() / np.abs(expected).max())
        same = bool((y.argmax(axis=1) == expected.argmax(axis=1)).all())
        print(f"  {target:<5} off by {off:.0e} of the largest output, {'the same' if same else 'ANOTHER'} class each")
        if not same or off > 1e-4:
            sys.exit(f"{target} disagrees with Keras")


if __name__ == "__main__":
    main()
