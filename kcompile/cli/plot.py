"""``kcompile plot``."""

from pathlib import Path

import click

from kcompile import api
from kcompile.cli import options
from kcompile.cli.output import Progress, say
from kcompile.errors import ModelError
from kcompile.frontend.drawing import plot_model


@click.command("plot")
@click.argument("path", metavar="MODEL", type=options.EXISTING)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PICTURE.svg",
    help="A .png, .svg or .pdf file to write.",
)
@click.option("--shapes/--no-shapes", default=True, show_default=True, help="Say the shapes of what goes in and out.")
@click.option("--names/--no-names", default=True, show_default=True, help="Say the layers' names.")
@click.option("--nested", is_flag=True, help="Show the layers of models inside, in a frame.")
@click.option(
    "--direction",
    type=click.Choice(["TB", "LR"]),
    default="TB",
    show_default=True,
    help="From top to bottom, or from left to right.",
)
def command(path: Path, output: Path, shapes: bool, names: bool, nested: bool, direction: str) -> None:
    """Draw the layers of a Keras file as a picture."""
    if not api.is_keras_file(path):
        raise ModelError(f"`kcompile plot` draws Keras files. Received: {path}.")
    with Progress(False) as progress:
        progress.stage("reading the model")
        model = api.load_model(path, compile=False)
        progress.stage("drawing")
        plot_model(model, output, show_shapes=shapes, show_layer_names=names, expand_nested=nested, rankdir=direction)
    say(f"{output}: {len(model.layers)} layers")
