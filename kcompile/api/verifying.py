"""What an artifact computes, against the reference."""

from pathlib import Path
from typing import TYPE_CHECKING

from kcompile.api.loading import ModelLike, PathLike, model_of, name_of
from kcompile.errors import ArtifactError, VerificationError
from kcompile.runtime import Session
from kcompile.runtime.bundle import Bundle, is_bundle, open_bundle
from kcompile.runtime.load import existing, load_bundle
from kcompile.runtime.load import load as load_artifact

if TYPE_CHECKING:
    from kcompile.codegen.parity import Report, Samples
    from kcompile.frontend.model import Model
    from kcompile.ir.graph import Graph


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
    name_of(against)
    model, _ = model_of(against)
    graph = _as_compiled(model.trace(), session, path)
    report = check_graph(graph, session, seed=seed, extra=allowances(session.notes))
    for _, fixed in fixed_graphs(graph, session):
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


def _cause(graph: "Graph", session: Session, report: "Report") -> str:
    """Why `session` disagrees with `graph`: a layer that its back end gets wrong, or another model."""
    from kcompile.codegen.backends import backend
    from kcompile.codegen.parity import check_graph, first_wrong_layer

    chosen = backend("onnx" if session.engine == "onnxruntime" else "tvm")
    if check_graph(graph, chosen.session(graph)).agrees:
        return "Compiled anew, the model agrees: the artifact was made from another model, or by another version."
    return first_wrong_layer(graph, chosen.session, report.samples.inputs)


def _as_compiled(graph: "Graph", session: Session, path: Path) -> "Graph":
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


def fixed_graphs(graph: "Graph", session: Session) -> "list[tuple[int, Graph]]":
    """`graph` for each number of rows that `session` has code for, and for one that it has none for."""
    from kcompile.ir.evaluate import bind_graph

    batch = session.signature.batch
    if not session.batches or batch is None:
        return []
    other = next(rows for rows in range(2, len(session.batches) + 3) if rows not in session.batches)
    return [(rows, bind_graph(graph, {batch: rows})) for rows in (*session.batches, other)]
