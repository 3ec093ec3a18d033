"""The engines that `benchmarks.engines` compares: what each makes of a Keras file, ready to be called."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import kcompile
from benchmarks.keras_peer import KerasProcess
from benchmarks.turns import Engine, Local, Runner

OURS = "kcompile tvm"
_FAILURES = "peer_failures.json"
# What IREE's importer of ONNX files knows, and how long it may take over a model.
_IREE_OPSET, _IREE_SECONDS = 20, 240


@dataclass(frozen=True)
class Setting:
    """What is run: a model's Keras file on an input, with a number of threads."""

    path: Path
    x: np.ndarray
    threads: int

    def file(self, suffix: str) -> Path:
        """Another file of the model."""
        return self.path.with_suffix(suffix)

    def is_made(self, path: Path) -> bool:
        """Whether a file has been made of the Keras file that is there now."""
        return path.exists() and path.stat().st_mtime >= self.path.stat().st_mtime


def native(setting: Setting) -> Runner:
    """kcompile's native program, through `run`."""
    session = kcompile.load(_compiled(setting.path), setting.threads)
    feeds = {next(iter(session.inputs)): setting.x}
    return lambda: list(session.run(feeds).values())


@cache
def _compiled(path: Path) -> Path:
    """A bundle of this very version, made once per process."""
    return kcompile.compile(path, target="tvm", output=path.with_suffix(".kcb")).path


def onnx_runtime(setting: Setting) -> Runner:
    """kcompile's ONNX file on ONNX Runtime."""
    return _on_onnx_runtime(_onnx(setting.path), setting)


def tf2onnx(setting: Setting) -> Runner:
    """tf2onnx's file on ONNX Runtime."""
    return _on_onnx_runtime(_peer_file(setting, ".tf2onnx.onnx"), setting)


def _on_onnx_runtime(path: Path, setting: Setting) -> Runner:
    module: Any = importlib.import_module("onnxruntime")
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
    options.log_severity_level = 4
    session = module.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: setting.x}
    return lambda: session.run(None, feeds)


@cache
def _onnx(path: Path) -> Path:
    return kcompile.compile(path, target="onnx", output=path.with_suffix(".onnx")).path


def openvino(setting: Setting) -> Runner:
    """kcompile's ONNX file on OpenVINO, compiled for the input's shape, without falling back to bfloat16."""
    core = importlib.import_module("openvino").Core()
    model = core.read_model(str(_onnx(setting.path)))
    model.reshape(list(setting.x.shape))
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(
        model, "CPU", {**hints, "INFERENCE_NUM_THREADS": setting.threads}
    ).create_infer_request()
    return lambda: list(request.infer([setting.x], share_inputs=True, share_outputs=True).values())


def litert(setting: Setting) -> Runner:
    """LiteRT, whose kernels are XNNPACK's, with a file of the batch where there is one."""
    own = setting.file(f".b{len(setting.x)}.tflite")
    path = own if own.exists() else _peer_file(setting, ".b1.tflite")
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


def iree(setting: Setting) -> Runner:
    """IREE, compiled for this CPU and the input's shape from kcompile's ONNX file."""
    runtime: Any = importlib.import_module("iree.runtime")
    if setting.threads == 1:
        device = runtime.get_device("local-sync", cache=False)
    else:
        runtime.flags.parse_flags(f"--task_topology_group_count={setting.threads}")
        device = runtime.get_driver("local-task").create_default_device()
    context = runtime.SystemContext(config=runtime.Config(device=device))
    program = runtime.VmModule.mmap(context.instance, str(_iree_program(setting)))
    context.add_vm_module(program)
    (name,) = (name for name in program.function_names if "$" not in name and not name.startswith("__"))
    function = context.modules[program.name][name]
    return lambda: [function(setting.x).to_host()]


def _iree_program(setting: Setting) -> Path:
    batch = len(setting.x)
    made, source = setting.file(f".b{batch}.vmfb"), setting.file(f".b{batch}.iree.onnx")
    if setting.is_made(made):
        return made
    model = kcompile.load_model(setting.path)
    (name,) = model.trace().input_types
    kcompile.compile(model, "onnx", source, shapes={name: setting.x.shape}, opset=_IREE_OPSET)
    imported = setting.file(f".b{batch}.mlir")
    _tool("iree-import-onnx", str(source), "-o", str(imported))
    device = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"]
    options = ["--iree-input-type=onnx", *device, "--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3"]
    _tool("iree-compile", str(imported), *options, "-o", str(made))
    for passing in (imported, source):
        passing.unlink()
    return made


def _tool(name: str, *arguments: str) -> None:
    """Run a program of this environment.

    Raises:
        RuntimeError: it failed; its first error is the text.
    """
    command = [str(Path(sys.executable).parent / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_IREE_SECONDS)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise RuntimeError((errors or done.stderr.splitlines() or [f"{name} failed"])[0].rpartition("error: ")[2])


def _peer_file(setting: Setting, suffix: str) -> Path:
    """A file that `peer_files.py` made.

    Raises:
        RuntimeError: it could not be, and why.
    """
    path, note = setting.file(suffix), setting.path.parent / _FAILURES
    if setting.is_made(path):
        return path
    reason = json.loads(note.read_text()).get(path.name, "") if note.exists() else ""
    raise RuntimeError(reason or f"there is no {path.name}; make it with benchmarks/peer_files.py")


@cache
def worker(threads: int) -> KerasProcess:
    """Keras with TensorFlow, in a process that lives as long as this one."""
    return KerasProcess(threads)


_LOCAL: dict[str, Callable[[Setting], Runner]] = {
    OURS: native,
    "kcompile onnx": onnx_runtime,
    "tf2onnx": tf2onnx,
    "OpenVINO": openvino,
    "LiteRT": litert,
    "IREE": iree,
}
_KERAS = {"tf.function": "function", "Keras predict": "predict"}
ENGINES = (*_LOCAL, *_KERAS)


def engine(name: str, setting: Setting) -> Engine:
    """The engine of a name, ready to take turns."""
    if name in _KERAS:
        return worker(setting.threads).engine(setting.path, setting.x, _KERAS[name])
    return Local(_LOCAL[name](setting), setting.threads)
