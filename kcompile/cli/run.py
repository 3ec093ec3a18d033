"""``kcompile run``."""

from pathlib import Path

import click

from kcompile import api
from kcompile.cli import options
from kcompile.cli.arrays import read_inputs, write_outputs
from kcompile.cli.output import Progress, say


@click.command("run")
@click.argument("artifact", type=options.EXISTING)
@click.option("--inputs", "-i", type=options.EXISTING, required=True, metavar="X.npz", help="Arrays by input name.")
@click.option(
    "--outputs", "-o", type=click.Path(path_type=Path), required=True, metavar="Y.npz", help="File to write, by name."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Rows per call.")
@options.threads
@options.key
def command(
    artifact: Path, inputs: Path, outputs: Path, batch_size: int, threads: int | None, key: Path | None
) -> None:
    """Run an artifact, or a Keras file by the reference, on the arrays in a file.

    X.npz names its arrays as the model names its inputs, or in0, in1 and so on; a model of one input takes an .npy too.
    """
    with Progress() as progress:
        progress.stage("running")
        session = api.load(artifact, threads, key=key)
        results = session.predict_named(read_inputs(inputs, list(session.inputs)), batch_size)
        write_outputs(outputs, results)
    shapes = ", ".join(f"{name} {array.dtype.name}{list(array.shape)}" for name, array in results.items())
    say(f"wrote {outputs}: {shapes}")
