"""``kcompile MODEL``."""

import re
from pathlib import Path
from typing import Any

import click

from kcompile import api
from kcompile.cli import options
from kcompile.cli.output import Progress, duration, facts, say, say_json, size, verdict
from kcompile.cli.precision import precision_options, precision_summary, precision_table

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _bytes(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """A number of bytes, in multiples of 1024 with K, M or G."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)\s*([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{text!r} is no number of bytes. Write 900, 256K or 1M.", ctx, parameter)
    return int(found[1]) * _UNITS[found[2].upper()]


def _flags(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """LLVM's feature flags, given with commas between them."""
    del ctx, parameter
    return None if text is None else tuple(flag.strip() for flag in text.split(",") if flag.strip())


def _rows(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Numbers of rows, given with commas between them."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise click.BadParameter(f"{text!r} is no list of numbers of rows. Write 1 or 1,8.", ctx, parameter)
    return tuple(map(int, words))


@click.command("compile")
@click.argument("model", type=options.EXISTING)
@click.option(
    "--target",
    "-t",
    default="onnx",
    show_default=True,
    help="onnx, tvm (this machine), auto (the faster of the two here), tvm:MACHINE such as tvm:cortex-m7, or c; see "
    "`kcompile targets`.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="File to write: .onnx or .kcb for onnx, .kcb for tvm.  [default: MODEL's name in this folder]",
)
@click.option(
    "--weights",
    metavar="FILE|external",
    help="File of weights, where MODEL is an architecture (.json, .yaml). Or where those of a C library are: embedded, "
    "or external, in a file beside it.  [default: embedded]",
)
@options.shape
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Threads of a session that is loaded without saying how many.  [default: all CPUs there]",
)
@click.option("--opset", type=int, help="Opset of the ONNX file.  [default: the newest that runs here]")
@click.option(
    "--cpu",
    metavar="CPU",
    help="For target tvm: native, baseline for any CPU of its kind, or all, of which loading takes the best that runs. "
    "For another machine: LLVM's name of its CPU.  [default: native]",
)
@click.option("--features", callback=_flags, metavar="FLAGS", help="LLVM's feature flags to add: +dotprod,+bf16.")
@click.option("--name", metavar="NAME", help="What the names in a C library begin with.  [default: the model's name]")
@click.option(
    "--max-ram", callback=_bytes, metavar="BYTES", help="The most that a C library's workspace may take: 256K, 1M, 900."
)
@click.option("--sign", type=options.EXISTING, metavar="PEM", help="Private key (P-256, P-384, P-521) to sign with.")
@click.option("--weights-dtype", metavar="f32|f16", help="How a C library stores kernels and tables.  [default: f32]")
@click.option("--optimize", metavar="speed|size", help="What counts in the code of a C library.  [default: speed]")
@click.option(
    "--fast-math",
    is_flag=True,
    default=None,
    help="Let a tvm target lose a digit of float32 for speed, in 3 x 3 convolutions.",
)
@click.option(
    "--batch",
    callback=_rows,
    metavar="ROWS",
    help="Numbers of rows that target tvm makes code of their own for, beside that for any: 1,8.",
)
@click.option(
    "--tune",
    is_flag=True,
    default=None,
    help="Let target tvm keep kernels that measure faster here than the usual ones, which takes a minute or two.",
)
@precision_options
@options.seed
@options.as_json
@click.option("--quiet", "-q", is_flag=True, help="Print nothing unless something is wrong.")
def command(
    model: Path,
    target: str,
    output: Path | None,
    weights: str | None,
    shapes: tuple[tuple[str, tuple[int | None, ...]], ...],
    threads: int | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    **target_options: Any,
) -> None:
    """Compile a Keras file (.h5, .hdf5, .keras), verify the result and write it.

    The result is run on drawn inputs and compared with the NumPy reference of the unoptimised model. One that disagrees
    is not written, and the first Keras layer that is off is named.

    \b
    Examples:
      kcompile model.h5
      kcompile model.keras --target tvm -o model.kcb --threads 2
      kcompile detector.h5 --target tvm --shape image=1,320,320,3
      kcompile architecture.json --weights weights.h5
      kcompile keywords.keras --target tvm:cortex-m7 --max-ram 256K -o keywords.kcb
      kcompile model.h5 --target tvm --precision int8 --calibration data.npz --max-accuracy-drop 0.01
    """
    with Progress(quiet or as_json) as progress:
        file = None if weights in api.WEIGHTS_PLACES else weights
        loaded = api.load_model(model, weights=file, compile=False) if shapes else None
        fixed = options.named_shapes(shapes, loaded.input_names) if loaded else None
        artifact = api.compile(
            model,
            target,
            output,
            weights=weights,
            shapes=fixed,
            threads=threads,
            seed=seed,
            on_stage=progress.stage,
            **target_options,
        )
    if as_json:
        say_json(_record(artifact))
    elif not quiet:
        _describe(artifact)


def _record(artifact: api.Artifact) -> dict[str, Any]:
    precision = {"precision": artifact.precision.to_json()} if artifact.precision else {}
    return {
        "path": str(artifact.path),
        "target": artifact.target,
        "bytes": artifact.size,
        "verification": artifact.report.to_json(),
        **precision,
        **({"choice": artifact.choice} if artifact.choice else {}),
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
                ("chosen", artifact.choice),
                ("precision", precision_summary(artifact.precision) if artifact.precision else ""),
                ("took", f"{duration(sum(artifact.seconds.values()))} ({stages})"),
            ]
        )
    )
    if artifact.precision and artifact.precision.layers:
        say(f"\n{precision_table(artifact.precision)}")
