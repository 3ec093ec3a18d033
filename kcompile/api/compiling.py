"""From a Keras model to a verified artifact."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcompile.api.loading import ModelLike, PathLike, model_of, name_of, trace
from kcompile.api.verifying import fixed_graphs
from kcompile.errors import ArtifactError, TargetError
from kcompile.ir.types import Array
from kcompile.runtime.session import THREADS_KEY, check_threads
from kcompile.runtime.signing import check_private_key

if TYPE_CHECKING:
    from kcompile.codegen.backends import Backend, Program
    from kcompile.codegen.parity import Report
    from kcompile.frontend.model import Model
    from kcompile.ir.graph import Graph
    from kcompile.ir.passes.precision import PrecisionReport

# Where the weights of a C library may be: words that `weights` of `compile` takes in place of a file.
WEIGHTS_PLACES = ("embedded", "external")


@dataclass(frozen=True)
class Artifact:
    """What `compile` wrote; it can be given wherever a path is taken.

    Attributes:
        path: the file.
        target: as it was asked for.
        size: of the file, in bytes.
        report: what the verification saw.
        seconds: what each stage took.
        precision: what few bits cost, where they were asked for.
        choice: why the artifact is what it is, for target "auto" and with `tune`.
    """

    path: Path
    target: str
    size: int
    report: "Report"
    seconds: Mapping[str, float]
    precision: "PrecisionReport | None" = None
    choice: str = ""

    def __fspath__(self) -> str:
        return str(self.path)


def compile(
    model: ModelLike,
    target: str = "onnx",
    output: PathLike | None = None,
    *,
    weights: PathLike | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    threads: int | None = None,
    seed: int = 0,
    sign: PathLike | None = None,
    on_stage: Callable[[str], None] | None = None,
    precision: str = "float32",
    calibration: "str | Path | Mapping[str, Array] | None" = None,
    labels: str | None = None,
    calibration_method: str | None = None,
    activations: str | None = None,
    bias_correction: bool | None = None,
    max_accuracy_drop: float | None = None,
    **options: Any,
) -> Artifact:
    """Compile a Keras model, verify what came out, and write it.

    Args:
        model: a Keras file, or a model made in Python.
        target: ``"onnx"``, ``"tvm"`` for this machine, ``"tvm:<machine>"``, ``"c"``, or ``"auto"``, the faster of the
            first two by measurement.
        output: the file to write: ``.kcb``, or ``.onnx`` for target "onnx"; by default the model's name in the present
            folder. It is written under another name and renamed at the end, so that it is whole or not there.
        weights: a file of weights, for a model made in Python or a file with an architecture; or where those of a C
            library are: ``"embedded"`` or ``"external"``, in a file beside it.
        shapes: extents to fix, by input: ``{"image": (None, 224, 224, 3)}``; None leaves an extent as it is.
        threads: threads of a session that is loaded without saying how many; by default all CPUs.
        seed: of the inputs that the artifact is verified on.
        sign: a PEM file with a private key of P-256, P-384 or P-521, to sign a bundle with; `load` checks it.
        on_stage: called with the name of each stage as it begins.
        precision: ``"float32"``, ``"bf16"`` or ``"int8"`` for the products of convolutions and dense layers.
        calibration: rows of real inputs, in an ``.npz`` file or by name; without, int8 serves dense layers alone.
        labels: the name in the calibration data of the rows' classes; by default ``"labels"``, if there are any.
        calibration_method: ``"entropy"``, ``"mse"``, ``"percentile"`` or ``"minmax"``.
        activations: scales for a whole ``"tensor"``, or for each row (``"token"``); by default these for sequences.
        bias_correction: whether biases make up for the rounding of weights; by default they do.
        max_accuracy_drop: layers stay in float32 until the accuracy on the labels, or the agreement with float32, falls
            by no more than this share.
        options: of the target: `opset` for "onnx"; for "tvm", `cpu` and `features` (LLVM's names). For this machine,
            `cpu` may be "native", "baseline" for any CPU of its kind, or "all" for code of each level, of which `load`
            takes the best that runs; `fast_math` (3 x 3 convolutions by larger tiles, up to 1.4 times as fast, with
            results that may be off by ten times as much as float32 makes them), `batch`, numbers of rows such as
            ``(1, 8)`` to make code of their own for, beside that for any, and `tune` (kernels are measured and the
            fastest kept, which takes up to some minutes and is remembered). For C libraries `name` (of the function),
            `weights` ("embedded" or "external"), `weights_dtype` ("f32" or "f16"), `optimize` ("speed" or "size") and
            `max_ram` (bytes of the workspace).

    Raises:
        ModelError: the model cannot be read.
        UnsupportedLayer, UnsupportedOp: kcompile or the target lacks a layer or an op; all are named.
        InputError: `shapes` do not fit the model.
        TargetError: the target, an option or the output's suffix is wrong.
        MissingExtra: the target's compiler is not installed.
        ArtifactError: the output cannot be written.
        VerificationError: the artifact disagrees with the reference; nothing is written.
    """
    from kcompile.codegen.backends import backend
    from kcompile.codegen.precision import Request, narrowed, note_of

    if weights in WEIGHTS_PLACES:
        options, weights = {**options, "weights": weights}, None
    settings = {
        "calibration_method": calibration_method,
        "activations": activations,
        "bias_correction": bias_correction,
        "max_accuracy_drop": max_accuracy_drop,
    }
    request = Request(precision, calibration, labels, settings)
    request.check()
    if options.get("tune") is True and on_stage:
        options["tune"] = on_stage
    chosen = backend(target, precision=precision, **options)
    path = _output_path(chosen, name_of(model), output)
    _check_signing(path, sign)
    clock = _Clock(on_stage)
    clock.start("reading the model")
    keras_model, file = model_of(model, weights)
    notes = _notes(keras_model, file, threads)
    graph = chosen.prepare(trace(keras_model, shapes))
    narrow = None
    if precision != "float32":
        clock.start("choosing precisions")
        narrow = narrowed(graph, request, chosen)
        graph, notes = narrow.graph, notes | note_of(narrow, graph)
    clock.start("compiling")
    program = chosen.compile(graph, keras_model.signature(graph), notes)
    notes = notes | dict(program.notes)
    clock.start("verifying")
    report = _verified(graph, program, chosen, seed)
    clock.start("writing")
    _write(path, program, notes, report, sign)
    seconds, cost = clock.stop(), narrow.report if narrow else None
    return Artifact(path, target, path.stat().st_size, report, seconds, cost, "; ".join(program.notes.values()))


def _verified(graph: "Graph", program: "Program", backend: "Backend", seed: int) -> "Report":
    """The report on a program that agrees with the reference."""
    from kcompile.codegen.parity import check_graph, require_agreement

    counts = (1, 2) if program.artifact["kind"] == "native" else (1,)
    sessions = [build.open(count) for build in (program, *program.better) for count in counts]
    report = check_graph(graph, *sessions, seed=seed)
    what = f"what target {backend.target!r} made of {graph.name}"
    require_agreement(report, graph, backend.session, what)
    for rows, fixed in fixed_graphs(graph, sessions[0]):
        require_agreement(check_graph(fixed, *sessions, seed=seed), fixed, backend.session, f"{what} for {rows} rows")
    return report


def _notes(model: "Model", file: str, threads: int | None) -> dict[str, str]:
    """What an artifact says about its making; what is unknown is left out."""
    from importlib.metadata import version

    notes = {
        "kcompile.version": version("kcompile"),
        "kcompile.source": file,
        "kcompile.source_sha256": model.provenance.sha256,
        "kcompile.keras_version": model.provenance.keras_version,
        THREADS_KEY: str(check_threads(threads)) if threads is not None else "",
    }
    return {key: value for key, value in notes.items() if value}


def _output_path(chosen: "Backend", name: str, output: PathLike | None) -> Path:
    """The file to write, in a folder that is there."""
    path = Path(f"{name}{chosen.suffixes[0]}") if output is None else Path(output)
    if path.suffix not in chosen.suffixes:
        law = f"`output` for target {chosen.target!r} must end in {' or '.join(chosen.suffixes)}"
        raise TargetError(f"{law}. Received: {path}.")
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder. Give the name of a file in it.")
    if not path.parent.is_dir():
        raise ArtifactError(f"there is no folder {path.parent}. Make it first.")
    return path


def _check_signing(path: Path, key: PathLike | None) -> None:
    """Make sure before the work that the result can be signed."""
    if key is None:
        return
    if path.suffix != ".kcb":
        raise TargetError(f"`sign` is for bundles. Received: the output {path}. Write a .kcb file.")
    check_private_key(Path(key))


def _write(
    path: Path, program: "Program", notes: Mapping[str, str], report: "Report", key: PathLike | None = None
) -> None:
    """Write the program as a bundle, or as the bare ONNX file that it is."""
    from kcompile.codegen.bundle import Contents, replacing, write_bundle

    with replacing(path) as file:
        if path.suffix == ".kcb":
            write_bundle(file, Contents(program, notes, report, None if key is None else Path(key)))
        else:
            file.write(program.members[program.artifact["model"]])


class _Clock:
    """Times stages one after another, and tells who listens when one begins."""

    def __init__(self, listener: Callable[[str], None] | None) -> None:
        self._listener = listener
        self._stage = ""
        self._begin = 0.0
        self._seconds: dict[str, float] = {}

    def start(self, stage: str) -> None:
        """Begin `stage`, and with it end the one before."""
        self.stop()
        self._stage = stage
        if self._listener:
            self._listener(stage)

    def stop(self) -> dict[str, float]:
        """The seconds of every stage, the present one ended."""
        now = time.perf_counter()
        if self._stage:
            self._seconds[self._stage] = now - self._begin
        self._stage, self._begin = "", now
        return dict(self._seconds)
