"""``kcompile MODEL``."""

from pathlib import Path
from typing import Any

import click

from kcompile import api
from kcompile.cli import options
from kcompile.cli.output import Progress, duration, facts, say, say_json, size, verdict


@click.command("compile")
@click.argument("model", type=options.EXISTING)
@click.option(
    "--target",
    "-t",
    default="onnx",
    show_default=True,
    help="onnx, tvm (this machine), or tvm:MACHINE such as tvm:x86-64-v3.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="File to write: .onnx or .kcb for onnx, .kcb for tvm.  [default: MODEL's name in this folder]",
)
@options.shape
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Threads of a session that is loaded without saying how many.  [default: all CPUs there]",
)
@click.option("--opset", type=int, help="Opset of the ONNX file.  [default: the newest that runs here]")
@options.seed
@options.as_json
@click.option("--quiet", "-q", is_flag=True, help="Print nothing unless something is wrong.")
def command(
    model: Path,
    target: str,
    output: Path | None,
    shapes: tuple[tuple[str, tuple[int | None, ...]], ...],
    threads: int | None,
    opset: int | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compile a Keras file (.h5, .hdf5, .keras), verify the result and write it.

    The result is run on drawn inputs and compared with the NumPy reference of the unoptimised model. One that disagrees
    is not written, and the first Keras layer that is off is named.

    \b
    Examples:
      kcompile model.h5
      kcompile model.keras --target tvm -o model.kcb --threads 2
      kcompile detector.h5 --target tvm --shape image=1,320,320,3
    """
    with Progress(quiet or as_json) as progress:
        loaded = api.load_model(model) if shapes else None
        fixed = options.named_shapes(shapes, loaded.input_names) if loaded else None
        artifact = api.compile(
            model, target, output, shapes=fixed, threads=threads, seed=seed, on_stage=progress.stage, opset=opset
        )
    if as_json:
        say_json(_record(artifact))
    elif not quiet:
        _describe(artifact)


def _record(artifact: api.Artifact) -> dict[str, Any]:
    return {
        "path": str(artifact.path),
        "target": artifact.target,
        "bytes": artifact.size,
        "verification": artifact.report.to_json(),
        "seconds": {stage: round(seconds, 4) for stage, seconds in artifact.seconds.items()},
    }


def _describe(artifact: api.Artifact) -> None:
    worst = max(artifact.report.differences, key=lambda difference: difference.relative)
    agreement = f"off by at most {worst.relative:.1e} of the largest output ({worst.ulp:.0f} ulp)"
    stages = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in artifact.seconds.items())
    say(
        facts(
            [
                ("wrote", f"{artifact.path} ({size(artifact.size)}, target {artifact.target})"),
                ("verified", f"{verdict(True, 'agrees')} with the reference, {agreement}"),
                ("took", f"{duration(sum(artifact.seconds.values()))} ({stages})"),
            ]
        )
    )
