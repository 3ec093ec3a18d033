"""``kcompile inspect``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kcompile import api
from kcompile.cli import options
from kcompile.cli.output import Progress, facts, heading, say, say_json, size, table
from kcompile.cli.precision import noted, show_precision
from kcompile.errors import ArtifactError
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Graph
from kcompile.runtime.bundle import Bundle, is_bundle, open_bundle
from kcompile.runtime.onnx import SIGNATURE_KEY


@click.command("inspect")
@click.argument("path", metavar="MODEL_OR_ARTIFACT", type=options.EXISTING)
@click.option("--ir", "show_ir", is_flag=True, help="Print a model's graph before and after the passes.")
@click.option("--explain", "show_skips", is_flag=True, help="Say which rewrites of a model were not made, and why.")
@click.option("--memory", "show_memory", is_flag=True, help="Draw the workspace of a C library over time.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="OUT.svg", help="File for --memory to draw to.")
@options.shape
@options.as_json
def command(
    path: Path,
    show_ir: bool,
    show_skips: bool,
    show_memory: bool,
    picture: Path | None,
    shapes: tuple[tuple[str, tuple[int | None, ...]], ...],
    as_json: bool,
) -> None:
    """Show what a Keras file or an artifact holds.

    Of a model: its layers with their results, parameters and multiply-accumulates (MACs) for one row, and the memory
    that it needs. Of an artifact: inputs and outputs, target, memory, members, and what the verification saw.
    """
    if not api.is_keras_file(path):
        if show_ir or show_skips or shapes:
            raise click.UsageError("--ir, --explain and --shape are for models: an artifact holds machine code.")
        if show_memory:
            _show_memory(path, picture)
        else:
            _show_artifact(path, as_json)
        return
    if show_memory:
        raise click.UsageError("--memory is for bundles of C libraries: only they have a workspace that is planned.")
    with Progress(as_json) as progress:
        progress.stage("reading the model")
        model = api.load_model(path, compile=False)
        graph = api.trace(model, options.named_shapes(shapes, model.input_names))
    if show_ir or show_skips:
        _show_graph(graph, show_ir, show_skips)
    else:
        _show_model(model, graph, as_json)


def _show_graph(graph: Graph, show_ir: bool, show_skips: bool) -> None:
    from kcompile.ir.passes.fusion import fuse
    from kcompile.ir.passes.pipeline import explain, inference

    if show_ir:
        after = inference(graph)
        say(heading("# as traced"))
        say(str(graph))
        say(heading("# after the passes"))
        say(str(after))
        say(heading("# in groups, as native kernels compute them"))
        say(str(fuse(after)))
    if show_skips:
        skips = [str(skip) for skip in explain(graph)]
        say("\n".join(dict.fromkeys(skips)) or "Every rewrite that a pattern allows was made.")


def _show_model(model: Any, graph: Graph, as_json: bool) -> None:
    from kcompile.cli.anatomy import anatomy

    found = anatomy(model, graph)
    if as_json:
        say_json(found.to_json())
        return
    rows = [[r.layer, r.kind, r.output, f"{r.parameters:,}", _count(r.macs)] for r in found.layers]
    say(table(["layer", "type", "result", "parameters", "MACs"], rows, "<<<>>"))
    say()
    at = ", ".join(f"{symbol}={value}" for symbol, value in found.extents.items())
    say(
        facts(
            [
                ("model", found.name + (f" (Keras {found.keras_version})" if found.keras_version else "")),
                ("inputs", _named(found.inputs)),
                ("outputs", _named(found.outputs)),
                ("parameters", f"{found.parameters:,}"),
                ("MACs of one row", _count(found.macs)),
                ("weights", f"{size(found.weight_bytes[0])}, {size(found.weight_bytes[1])} after the passes"),
                ("intermediates", f"{size(found.peak_bytes)} at once" + (f", at {at}" if at else "")),
                ("ops", f"{found.nodes[0]}, {found.nodes[1]} after the passes"),
            ]
        )
    )


def _show_memory(path: Path, picture: Path | None) -> None:
    from kcompile.cli.memory import draw, show

    memory = open_bundle(path).manifest["memory"] if is_bundle(path) else {}
    if "stages" not in memory:
        raise ArtifactError(f"{path.name} is no bundle of a C library: its memory is planned when it is called.")
    show(memory)
    if picture:
        draw(memory, picture)
        say(f"wrote {picture}")


def _show_artifact(path: Path, as_json: bool) -> None:
    if is_bundle(path):
        bundle = open_bundle(path)
        if as_json:
            say_json(dict(bundle.manifest))
        else:
            _show_bundle(bundle)
        return
    session = api.load(path, threads=1)
    if as_json:
        say_json({"kind": session.engine, "signature": session.signature.to_json(), "notes": session.notes})
        return
    say(
        facts(
            [
                ("model", session.name),
                ("inputs", _named(session.inputs)),
                ("outputs", _named(session.outputs)),
                ("file", size(path.stat().st_size)),
                *noted({name: value for name, value in session.notes.items() if name != SIGNATURE_KEY}),
            ]
        )
    )
    show_precision(session.notes)


def _show_bundle(bundle: Bundle) -> None:
    manifest, signature = bundle.manifest, bundle.signature
    target, memory = manifest["target"], manifest["memory"]
    machine = ", ".join(str(target[key]) for key in ("triple", "cpu", "opset") if target.get(key))
    arena = memory.get("arena_bytes")
    needs = ", ".join(memory["needs"]) or "nothing" if "needs" in memory else ""
    seen = [f"`{d['output']}` off by {d['relative']:.1e} of its largest" for d in manifest["verification"]["outputs"]]
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    say(
        facts(
            [
                ("model", signature.name),
                ("inputs", _named(signature.inputs)),
                ("outputs", _named(signature.outputs)),
                ("target", target["name"] + (f" ({machine})" if machine else "")),
                ("code for", ", ".join(manifest.get("builds", []))),
                ("weights", size(memory["weight_bytes"])),
                ("code", size(memory["code_bytes"]) if "code_bytes" in memory else ""),
                ("workspace", size(memory["workspace_bytes"]) if "workspace_bytes" in memory else ""),
                ("bands", _bands(memory["bands"]) if "bands" in memory else ""),
                ("stack", _stack(memory)),
                ("calls", needs),
                ("step", _step(manifest.get("program", {}))),
                ("arena", size(arena) if isinstance(arena, int) else f"{arena} bytes" if arena else ""),
                ("verified", "; ".join(seen)),
                ("made by", versions),
                *noted(manifest["notes"]),
            ]
        )
    )
    show_precision(manifest["notes"])
    layers = manifest.get("program", {}).get("layers", [])
    if layers:
        say()
        rows = [[r["layer"], r["op"], r["result"], _count(r["macs"])] for r in layers]
        say(table(["layer", "ops", "result", "MACs"], rows, "<<<>"))
    say()
    rows = [[name, size(record["bytes"]), record["sha256"]] for name, record in manifest["members"].items()]
    say(table(["member", "size", "sha256"], rows, "<><"))


def _step(program: Mapping[str, Any]) -> str:
    """What is to be said of the step of a recurrent model."""
    step = program.get("step")
    if step:
        return f"{step['steps']} make a run; workspace {size(step['workspace_bytes'])}"
    return f"none: {program['no_step']}" if "no_step" in program else ""


def _stack(memory: Mapping[str, Any]) -> str:
    """The stack of a C library, and the length of vectors that it holds for where the machine decides that."""
    if memory.get("stack_bytes") is None:
        return ""
    length = f" where vectors have {memory['stack_vector_bits']} bits" if "stack_vector_bits" in memory else ""
    return size(memory["stack_bytes"]) + length


def _bands(bands: Mapping[str, Any]) -> str:
    """What is to be said of first layers that run in bands of rows."""
    saved = f"{size(bands['workspace_without'])} of workspace without"
    return f"{bands['count']} up to {bands['layer']}; {saved}, {_count(bands['extra_macs'])} MACs less"


def _named(types: Mapping[str, object]) -> str:
    return ", ".join(f"{name}: {type}" for name, type in types.items())


def _count(number: Dim) -> str:
    return f"{number:,}" if isinstance(number, int) else number
