"""How long ResNet50 takes from a Keras file to ONNX bytes, and how much memory.

    python -m benchmarks.compile_resnet50 [--output benchmarks/results]

A process of its own reads the file, traces it, runs the passes and emits ONNX, without the verification that follows.
Memory
is the largest resident set of that process less that before the file was read.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import resnet50

_STEP = r"""
import json, re, sys, time
from kcompile.codegen.backends import backend
from kcompile.frontend.keras_file import load_model
from kcompile.runtime.reference import graph_signature
def peak():
    return int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) * 1024 / 1e6

compiler = backend("onnx")
before = peak()
start = time.perf_counter()
model = load_model(sys.argv[1])
read = time.perf_counter()
graph = model.trace()
compiler.compile(graph, graph_signature(graph), {})
done = time.perf_counter()
weights = sum(array.nbytes for array in model.get_weights())
print(json.dumps({
    "parameters": model.count_params(), "read_s": read - start, "compile_s": done - read,
    "weights_mb": weights / 1e6, "peak_mb": peak() - before,
}))
"""


def measure(path: Path) -> dict[str, float]:
    """The figures of one file."""
    result = subprocess.run([sys.executable, "-c", _STEP, str(path)], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def main() -> None:
    """Measure both formats."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    output = parser.parse_args().output
    model = resnet50.build()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".keras", ".h5"):
            path = Path(folder) / f"resnet50{suffix}"
            model.save(path)
            rows[suffix] = measure(path)
    lines = [
        "| file | read, s | passes and emission, s | weights, MB | peak, MB | peak / weights |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for suffix, row in rows.items():
        ratio = row["peak_mb"] / row["weights_mb"]
        cells = (row["read_s"], row["compile_s"], row["weights_mb"], row["peak_mb"], ratio)
        lines.append(f"| {suffix} | " + " | ".join(f"{cell:.3g}" for cell in cells) + " |")
    output.mkdir(parents=True, exist_ok=True)
    (output / "compile_resnet50.json").write_text(json.dumps(rows, indent=2) + "\n")
    (output / "compile_resnet50.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
