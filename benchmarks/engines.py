"""kcompile's native code against other engines, in one process.

    python -m benchmarks.engines [MODEL ...] [--threads 1] [--batch 1] [--seconds 2] [--engine NAME ...]

Each engine runs the same model from one Keras file: kcompile's native program and its ONNX file on ONNX Runtime, that
ONNX file on OpenVINO, and LiteRT's file of the Keras file (`peer_tflite.py`). All compute in float32. The engines take
turns, so that whatever else the machine does slows all alike; each cell is the 10th percentile of the turns. With one
thread it is the process's CPU time that counts, which is least disturbed by other programs.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import kcompile
from benchmarks.models import MODELS

FILES = Path(__file__).parent / ".cache" / "engines"
OURS = "kcompile tvm"
_FEWEST_TURNS = 15
# Files that compute the same function differ by float32 rounding only.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4

Runner: TypeAlias = Callable[[], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Setting:
    """What is run: a model's Keras file on an input, with a number of threads."""

    path: Path
    x: np.ndarray
    threads: int


def native(setting: Setting) -> Runner:
    """kcompile's native program, through `run`."""
    artifact = kcompile.compile(setting.path, target="tvm", output=setting.path.with_suffix(".kcb"))
    return _session(kcompile.load(artifact, setting.threads), setting.x)


def onnx_runtime(setting: Setting) -> Runner:
    """kcompile's ONNX file on ONNX Runtime."""
    options: Any = importlib.import_module("onnxruntime").SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
    session = importlib.import_module("onnxruntime").InferenceSession(_onnx(setting), options, ["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: setting.x}
    return lambda: session.run(None, feeds)


def openvino(setting: Setting) -> Runner:
    """kcompile's ONNX file on OpenVINO, compiled for the input's shape, without falling back to bfloat16."""
    core = importlib.import_module("openvino").Core()
    model = core.read_model(_onnx(setting))
    model.reshape(list(setting.x.shape))
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(
        model, "CPU", {**hints, "INFERENCE_NUM_THREADS": setting.threads}
    ).create_infer_request()
    return lambda: list(request.infer([setting.x], share_inputs=True, share_outputs=True).values())


def litert(setting: Setting) -> Runner:
    """LiteRT, whose kernels are XNNPACK's."""
    path = setting.path.with_suffix(".tflite")
    if not path.exists():
        failures = setting.path.parent / "tflite_failures.json"
        reason = json.loads(failures.read_text()).get(setting.path.stem, "") if failures.exists() else ""
        raise RuntimeError(reason or "there is no .tflite file; make it with benchmarks/peer_tflite.py")
    module = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(str(path), num_threads=setting.threads)
    number = interpreter.get_input_details()[0]["index"]
    if tuple(interpreter.get_input_details()[0]["shape"]) != setting.x.shape:
        interpreter.resize_tensor_input(number, setting.x.shape)
    interpreter.allocate_tensors()
    result = interpreter.get_output_details()[0]["index"]

    def run() -> Sequence[np.ndarray]:
        interpreter.set_tensor(number, setting.x)
        interpreter.invoke()
        return [interpreter.get_tensor(result)]

    return run


ENGINES: dict[str, Callable[[Setting], Runner]] = {
    OURS: native,
    "kcompile onnx": onnx_runtime,
    "OpenVINO": openvino,
    "LiteRT": litert,
}
_PACKAGES = ("kcompile", "numpy", "onnxruntime", "openvino", "ai-edge-litert", "apache-tvm")


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


def compare(name: str, batch: int, threads: int, seconds: float, engines: Sequence[str]) -> Row:
    """One model on every engine."""
    path = keras_file(name)
    (shape,) = (type.shape for type in kcompile.load_model(path).trace().input_types.values())
    x = np.random.default_rng(0).random((batch, *map(int, shape[1:])), np.float32)
    row = Row(name, batch, threads)
    runners: dict[str, Runner] = {}
    for engine in engines:
        try:
            runners[engine] = ENGINES[engine](Setting(path, x, threads))
            runners[engine]()
        except Exception as error:  # noqa: BLE001 -- whatever an engine raises is its result
            runners.pop(engine, None)
            row.notes[engine] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    _check(row, runners)
    times = turns(list(runners.values()), seconds, time.process_time if threads == 1 else time.perf_counter)
    row.turns = len(times[0])
    row.milliseconds = {engine: float(np.percentile(own, 10)) * 1e3 for engine, own in zip(runners, times, strict=True)}
    return row


def keras_file(name: str) -> Path:
    """The model's Keras file, written when it is first asked for."""
    path = FILES / f"{name}.keras"
    if not path.exists():
        FILES.mkdir(parents=True, exist_ok=True)
        (FILES / ".gitignore").write_text("*\n")
        MODELS[name]().save(path)
    return path


def turns(runners: Sequence[Runner], seconds: float, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds per call of each, taken in turns of calls that last half a millisecond at least."""
    calls = [max(1, int(5e-4 / _time(run, 3, clock))) for run in runners]
    times: list[list[float]] = [[] for _ in runners]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < _FEWEST_TURNS:
        for i, run in enumerate(runners):
            times[i].append(_time(run, calls[i], clock))
    return times


def _time(run: Runner, calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        run()
    return max(clock() - start, 1e-9) / calls


def _check(row: Row, runners: dict[str, Runner]) -> None:
    """Note engines whose results differ from the first one's."""
    results = {engine: run()[0].copy() for engine, run in runners.items()}
    first = next(iter(results.values()))
    for engine, result in results.items():
        if not np.allclose(first, result.reshape(first.shape), _RELATIVE, _ABSOLUTE):
            row.notes[engine] = f"its results differ by {np.abs(first - result.reshape(first.shape)).max():.1e}"


def _session(session: kcompile.Session, x: np.ndarray) -> Runner:
    feeds = {next(iter(session.inputs)): x}
    return lambda: list(session.run(feeds).values())


def _onnx(setting: Setting) -> str:
    path = setting.path.with_suffix(".onnx")
    if not path.exists() or path.stat().st_mtime < setting.path.stat().st_mtime:
        kcompile.compile(setting.path, target="onnx", output=path)
    return str(path)


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on the models that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], metavar="MODEL")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--engine", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--seconds", type=float, default=2.0, help="per row")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args(arguments)
    rows = [
        compare(name, batch, threads, given.seconds, given.engine)
        for name in given.models or MODELS
        for batch in given.batch
        for threads in given.threads
    ]
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    given.output.mkdir(parents=True, exist_ok=True)
    cells = [{**asdict(row), "ratio": row.ratio} for row in rows]
    content = json.dumps({"machine": machine(), "versions": found, "rows": cells}, indent=2)
    (given.output / "engines.json").write_text(content + "\n")
    (given.output / "engines.md").write_text(table(rows, given.engine))
    print(table(rows, given.engine))


if __name__ == "__main__":
    main()
