"""Lower precision: kcompile's native code in bf16 and int8 against its own float32 and other engines' int8.

    python -m benchmarks.precision [MODEL ...] [--seconds 4]

Engines run on one thread and take turns in one process; each cell is the median of the process's CPU time over the
turns. ONNX Runtime and OpenVINO run the QDQ file that kcompile writes of the same quantised graph. Weights are random,
and so is the calibration data: the errors show what rounding does, not what it costs a trained model.
"""

import argparse
import importlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import kcompile
from benchmarks.engines import FILES, keras_file, machine
from benchmarks.models import MODELS
from benchmarks.turns import Local, Runner, turns

_DEFAULT = ("resnet50", "encoder", "mlp", "cifar_cnn", "mobilenet_v2")
_PACKAGES = ("kcompile", "numpy", "onnxruntime", "openvino", "apache-tvm")
_ROWS = 8
_FEW_ROWS = 2

Array: TypeAlias = np.ndarray


@dataclass
class Row:
    """One model: milliseconds by engine, and how far each result of ours is from float32, of the largest element."""

    model: str
    milliseconds: dict[str, float] = field(default_factory=dict[str, float])
    errors: dict[str, float] = field(default_factory=dict[str, float])
    notes: list[str] = field(default_factory=list[str])


def compare(name: str, seconds: float) -> Row:
    """One model in every precision on every engine."""
    path, row = keras_file(name), Row(name)
    (shape,) = (type.shape for type in kcompile.load_model(path).trace().input_types.values())
    data = np.random.default_rng(0).random((_FEW_ROWS if len(shape) > 3 else _ROWS, *map(int, shape[1:])), np.float32)
    x = data[:1]
    runners: dict[str, Runner] = {}
    for engine, make in _engines(path, data).items():
        try:
            runners[engine] = make(x)
            runners[engine]()
        except Exception as error:  # noqa: BLE001 -- whatever an engine raises is its result
            runners.pop(engine, None)
            row.notes.append(f"{engine}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
    if "float32" not in runners:
        raise SystemExit("\n".join(row.notes))
    exact = runners["float32"]()[0].copy()
    for engine, run in runners.items():
        row.errors[engine] = float(np.abs(run()[0].reshape(exact.shape) - exact).max() / np.abs(exact).max())
    times = turns([Local(run, 1) for run in runners.values()], seconds, 1)
    row.milliseconds = {engine: float(np.median(own)) * 1e3 for engine, own in zip(runners, times, strict=True)}
    return row


def _engines(path: Path, data: Array) -> dict[str, Callable[[Array], Runner]]:
    """What makes each engine's runner for an input."""
    name = path.stem
    int8: dict[str, Any] = {"precision": "int8", "calibration": {"in0": data}}

    def native(kind: str, **options: Any) -> Callable[[Array], Runner]:
        def make(x: Array) -> Runner:
            artifact = kcompile.compile(path, "tvm", FILES / f"{name}_{kind}.kcb", **options)
            session = kcompile.load(artifact, 1)
            feeds = {next(iter(session.inputs)): x}
            return lambda: list(session.run(feeds).values())

        return make

    def qdq() -> str:
        target = FILES / f"{name}_int8.onnx"
        return str(kcompile.compile(path, "onnx", target, **int8).path)

    return {
        "float32": native("float32"),
        "bf16": native("bf16", precision="bf16"),
        "int8": native("int8", **int8),
        "ONNX Runtime, int8": lambda x: _onnx_runtime(qdq(), x),
        "OpenVINO, int8": lambda x: _openvino(str(FILES / f"{name}_int8.onnx"), x),
    }


def _onnx_runtime(path: str, x: Array) -> Runner:
    module: Any = importlib.import_module("onnxruntime")
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    session = module.InferenceSession(path, options, ["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feeds)


def _openvino(path: str, x: Array) -> Runner:
    core = importlib.import_module("openvino").Core()
    model = core.read_model(path)
    model.reshape(list(x.shape))
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    return lambda: list(request.infer([x], share_inputs=True, share_outputs=True).values())


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown: milliseconds, how many times faster than float32, and the errors."""
    engines = list(dict.fromkeys(engine for row in rows for engine in row.milliseconds))
    titles = ["model", *(f"{engine}, ms" for engine in engines), "bf16 ×", "int8 ×", "bf16 error", "int8 error"]
    lines = [f"| {' | '.join(titles)} |", f"|---{'|--:' * (len(titles) - 1)}|"]
    for row in rows:
        cells = [f"{row.milliseconds[e]:.3g}" if e in row.milliseconds else "–" for e in engines]
        for kind in ("bf16", "int8"):
            own = row.milliseconds.get(kind)
            cells.append(f"{row.milliseconds['float32'] / own:.2f}" if own else "–")
        cells += [f"{row.errors[kind]:.1e}" if kind in row.errors else "–" for kind in ("bf16", "int8")]
        lines.append(f"| {' | '.join([row.model, *cells])} |")
    notes = [f"- {row.model}, {note}" for row in rows for note in row.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on the models that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seconds", type=float, default=4.0, help="per model")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.models) - set(MODELS))
    if unknown:
        parser.error(f"the models are {', '.join(MODELS)}. Received: {', '.join(unknown)}")
    rows = [compare(name, given.seconds) for name in given.models or _DEFAULT]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    given.output.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "versions": versions, "rows": [asdict(row) for row in rows]}
    (given.output / "precision.json").write_text(json.dumps(content, indent=2) + "\n")
    (given.output / "precision.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
