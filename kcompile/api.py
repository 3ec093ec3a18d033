"""The Python interface: the one module that sees every room.

kcompile.compile("model.h5", target="onnx", output="model.onnx")
kcompile.load("model.onnx").predict(x)
kcompile.verify("model.onnx", against="model.h5")
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kcompile.errors import ArtifactError, ModelError, TargetError, VerificationError
from kcompile.ir.graph import Graph
from kcompile.ir.types import Array
from kcompile.runtime import Session
from kcompile.runtime.bundle import Bundle, is_bundle, open_bundle
from kcompile.runtime.load import existing, is_artifact, load_bundle
from kcompile.runtime.load import load as load_artifact
from kcompile.runtime.reference import ReferenceSession
from kcompile.runtime.session import THREADS_KEY, check_threads
from kcompile.runtime.signing import check_private_key

if TYPE_CHECKING:
    from kcompile.codegen.backends import Backend, Program
    from kcompile.codegen.parity import Report, Samples
    from kcompile.frontend.model import Model
    from kcompile.ir.passes.precision import PrecisionReport

PathLike: TypeAlias = str | os.PathLike[str]
ModelLike: TypeAlias = "Model | str | os.PathLike[str]"

_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras", ".json", ".yaml", ".yml")
# Where the weights of a C library may be: words that `weights` of `compile` takes in place of a file.
WEIGHTS_PLACES = ("embedded", "external")
_HDF5 = b"\x89HDF\r\n\x1a\n"


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


def load_model(
    filepath: PathLike,
    custom_objects: "Mapping[str, Any] | None" = None,
    compile: bool = True,
    safe_mode: bool = True,
    *,
    weights: PathLike | None = None,
) -> "Model":
    """The Keras model in a file, as a model of kcompile's own.

    Args:
        filepath: a ``.keras`` or ``.h5`` file, or a ``.json`` or ``.yaml`` file with the architecture.
        custom_objects: layers, losses, metrics and functions for this file alone, by the names in it;
            `kcompile.saving.register_keras_serializable` and `kcompile.register_layer` enter them for good.
        compile: whether the model is compiled for training as its file says, with the state of its optimizer.
        safe_mode: of no effect: code in a file is never run.
        weights: a file of weights, for an architecture.

    Raises:
        ModelError: the file is damaged, incomplete or no Keras model.
        UnsupportedLayer: it uses layers that kcompile does not know; all are named.
    """
    from kcompile.frontend.keras_file import load_model as read

    del safe_mode
    for needed in (filepath, weights):
        if needed is not None:
            _require_keras_file(Path(needed))
    return read(Path(filepath), custom_objects, None if weights is None else Path(weights), compile)


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
    path = _output_path(chosen, _name_of(model), output)
    _check_signing(path, sign)
    clock = _Clock(on_stage)
    clock.start("reading the model")
    keras_model, file = _model_of(model, weights)
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


def _verified(graph: Graph, program: "Program", backend: "Backend", seed: int) -> "Report":
    """The report on a program that agrees with the reference."""
    from kcompile.codegen.parity import check_graph, require_agreement

    counts = (1, 2) if program.artifact["kind"] == "native" else (1,)
    sessions = [build.open(count) for build in (program, *program.better) for count in counts]
    report = check_graph(graph, *sessions, seed=seed)
    what = f"what target {backend.target!r} made of {graph.name}"
    require_agreement(report, graph, backend.session, what)
    for rows, fixed in _fixed_graphs(graph, sessions[0]):
        require_agreement(check_graph(fixed, *sessions, seed=seed), fixed, backend.session, f"{what} for {rows} rows")
    return report


def _fixed_graphs(graph: Graph, session: Session) -> list[tuple[int, Graph]]:
    """`graph` for each number of rows that `session` has code for, and for one that it has none for."""
    from kcompile.ir.evaluate import bind_graph

    batch = session.signature.batch
    if not session.batches or batch is None:
        return []
    other = next(rows for rows in range(2, len(session.batches) + 3) if rows not in session.batches)
    return [(rows, bind_graph(graph, {batch: rows})) for rows in (*session.batches, other)]


def trace(model: "Model", shapes: Mapping[str, Sequence[int | None]] | None = None) -> Graph:
    """The graph of a model, with the extents of `shapes` fixed as `compile` fixes them.

    Raises:
        InputError: `shapes` do not fit the model.
    """
    from kcompile.codegen.shapes import fix_shapes

    try:
        graph = model.trace()
    except ModelError:
        if not shapes or not set(shapes) <= set(model.input_names):
            raise
        graph = model.trace(shapes)
    return fix_shapes(graph, shapes or {})


def load(path: PathLike, threads: int | None = None, check: bool = False, key: PathLike | None = None) -> Session:
    """A session of an ``.onnx`` file, of a bundle, zipped or unpacked, or of a Keras file (by the NumPy reference).

    Args:
        path: the file or folder.
        threads: threads of one call; by default what the artifact was compiled for, else all CPUs.
        check: compare the SHA-256 of a bundle's members too, not only their CRC-32.
        key: a PEM file with the public key that a bundle must be signed by.

    Raises:
        ArtifactError: there is no such file, or it is damaged, of another machine or of another schema, or not signed
            by the key.
        ModelError: the Keras model cannot be read.
        MissingExtra: the artifact's engine is not installed.
    """
    found = existing(path)
    if not is_keras_file(found):
        return load_artifact(found, threads, check, None if key is None else Path(key))
    if key is not None:
        raise ArtifactError(f"{found.name} is no bundle, and so has no signature that `key` could check.")
    check_threads(threads)
    model = load_model(found, compile=False)
    graph = model.trace()
    return ReferenceSession(graph, model.signature(graph))


def verify(artifact: PathLike, against: "ModelLike | None" = None, seed: int = 0) -> "Report":
    """What an artifact computes, against the reference.

    Args:
        artifact: an ``.onnx`` file or a bundle.
        against: the Keras model, whose reference is computed on drawn inputs; without it, the samples that a bundle
            recorded are run again.
        seed: of the drawn inputs.

    Raises:
        VerificationError: they disagree; with `against`, the first Keras layer that is off is named.
        ArtifactError: the artifact is damaged, or has no samples while `against` is None.
    """
    report, explanation = examine(artifact, against, seed)
    if not report.agrees:
        lines = [f"  {difference}" for difference in report.differences if not difference.agrees]
        name = Path(artifact).name
        raise VerificationError("\n".join([f"{name} disagrees with the reference:", *lines, explanation]).rstrip())
    return report


def examine(artifact: PathLike, against: "ModelLike | None" = None, seed: int = 0) -> "tuple[Report, str]":
    """The report that `verify` judges and, where it disagrees, a sentence about the cause."""
    from kcompile.codegen.parity import check_graph, check_samples
    from kcompile.codegen.precision import allowances

    path = existing(artifact)
    bundle = open_bundle(path) if is_bundle(path) else None
    if bundle:
        bundle.check()
    session = load_bundle(bundle, 1) if bundle else load_artifact(path, 1)
    if against is None:
        samples, allowed = _recorded(path, bundle)
        report = check_samples(session, samples, allowed)
        cause = (
            "This machine computes something else. Give the Keras model with --against to find the layer that is off."
        )
        return report, "" if report.agrees else cause
    _name_of(against)
    model, _ = _model_of(against)
    graph = _as_compiled(model.trace(), session, path)
    report = check_graph(graph, session, seed=seed, extra=allowances(session.notes))
    for _, fixed in _fixed_graphs(graph, session):
        if report.agrees:
            graph, report = fixed, check_graph(fixed, session, seed=seed, extra=allowances(session.notes))
    if report.agrees:
        return report, ""
    return report, f"{_origin(session, model)}{_cause(graph, session, report)}"


def _origin(session: Session, model: "Model") -> str:
    """A sentence, where the artifact is known to be made from another file than `model`."""
    made_from = session.notes.get("kcompile.source_sha256", "")
    if not made_from or model.provenance.sha256 in ("", made_from):
        return ""
    file, own = session.notes.get("kcompile.source", "a file"), model.provenance.sha256
    return f"It was made from {file} with sha256 {made_from[:16]}…, this model's file has {own[:16]}…. "


def _cause(graph: Graph, session: Session, report: "Report") -> str:
    """Why `session` disagrees with `graph`: a layer that its back end gets wrong, or another model."""
    from kcompile.codegen.backends import backend
    from kcompile.codegen.parity import check_graph, first_wrong_layer

    chosen = backend("onnx" if session.engine == "onnxruntime" else "tvm")
    if check_graph(graph, chosen.session(graph)).agrees:
        return "Compiled anew, the model agrees: the artifact was made from another model, or by another version."
    return first_wrong_layer(graph, chosen.session, report.samples.inputs)


def _as_compiled(graph: Graph, session: Session, path: Path) -> Graph:
    """`graph` with the extents that were fixed when the artifact was compiled."""
    from kcompile.codegen.shapes import fix_shapes

    if list(graph.input_types) != list(session.inputs) or list(graph.output_names) != list(session.outputs):
        takes = f"({', '.join(graph.input_types)}) -> ({', '.join(graph.output_names)})"
        received = f"({', '.join(session.inputs)}) -> ({', '.join(session.outputs)})"
        raise VerificationError(f"{path.name} must be made from {graph.name}: {takes}. Received: {received}.")
    fixed = {
        name: [dim if isinstance(dim, int) else None for dim in type.shape] for name, type in session.inputs.items()
    }
    return fix_shapes(graph, fixed)


def _recorded(path: Path, bundle: Bundle | None) -> "tuple[Samples, dict[str, float]]":
    """The samples of a bundle, and how far each output may be off."""
    from kcompile.codegen.parity import Samples

    if bundle is None:
        raise ArtifactError(
            f"{path.name} holds no recorded samples. Give the Keras model that it was compiled from: "
            f"kcompile verify {path.name} --against MODEL"
        )
    return Samples(*bundle.samples()), bundle.limits()


def _require_keras_file(path: Path) -> None:
    """Make sure that there is a file, and none of which the kind alone says that no Keras model is in it."""
    if not path.exists():
        raise ModelError(f"there is no file {path}.")
    if is_artifact(path):
        law = f"{path.name} is compiled already; what is wanted here is the Keras model (.keras, .h5 or .json)"
        raise ModelError(f"{law}. An artifact is for kcompile.load, `kcompile run` and `kcompile bench`.")
    if (path / "saved_model.pb").exists():
        law = f"{path} is a SavedModel, which holds TensorFlow's graph instead of Keras's layers"
        raise ModelError(f'{law}. Save the model anew with `model.save("model.keras")`.')
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ModelError(f"{path} is {kind}. Give a Keras model: a .keras, .h5 or .json file.")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path} may not be read by this user.")
    if not path.stat().st_size:
        raise ModelError(f"{path.name} is empty.")


def is_keras_file(path: Path) -> bool:
    """Whether `path` holds a Keras model rather than an artifact, by its suffix or its first bytes."""
    if path.suffix.lower() in _KERAS_SUFFIXES:
        return True
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5


def _model_of(model: ModelLike, weights: PathLike | None = None) -> "tuple[Model, str]":
    """The model, and the name of its file, which is empty for one made in Python."""
    if isinstance(model, str | os.PathLike):
        return load_model(model, weights=weights, compile=False), Path(model).name
    if weights is not None:
        model.load_weights(os.fspath(weights))
    return model, ""


def _name_of(model: ModelLike) -> str:
    """The name of a model, which for a file is the file's.

    Raises:
        ModelError: it is neither.
    """
    if isinstance(model, str | os.PathLike):
        return Path(model).stem
    from kcompile.frontend.model import Model

    if not isinstance(model, Model):
        raise ModelError(f"`model` must be a path or a kcompile model. Received: {type(model).__name__}.")
    return model.name


def _notes(model: "Model", file: str, threads: int | None) -> dict[str, str]:
    """What an artifact says about its making; what is unknown is left out."""
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
