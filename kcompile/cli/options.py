"""Options that several commands take."""

from collections.abc import Sequence
from pathlib import Path

import click

EXISTING = click.Path(exists=True, path_type=Path)

threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Threads of one call.  [default: what it was compiled for, else all CPUs]",
)
key = click.option("--key", type=EXISTING, metavar="PEM", help="Public key that a bundle must be signed by.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of the inputs that are drawn.")


def _shapes(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[str, tuple[int | None, ...]], ...]:
    """``NAME=1,224,224,3``, or the shape alone for a model of one input, as pairs; extents that stay open are None."""
    pairs: list[tuple[str, tuple[int | None, ...]]] = []
    for value in texts:
        name, _, text = value.rpartition("=")
        words = [word.strip() for word in text.strip("()[]").split(",") if word.strip()]
        if not words or not all(word in ("?", "None") or word.isdecimal() for word in words):
            law = f"{value!r} is no shape. Write NAME=1,224,224,3 with ? for an extent that stays open."
            raise click.BadParameter(law, ctx, parameter)
        pairs.append((name, tuple(None if word in ("?", "None") else int(word) for word in words)))
    return tuple(pairs)


shape = click.option(
    "--shape",
    "shapes",
    callback=_shapes,
    multiple=True,
    metavar="NAME=EXTENTS",
    help="Fix open extents of an input: image=?,224,224,3. May be given more than once.",
)


def named_shapes(
    shapes: Sequence[tuple[str, tuple[int | None, ...]]], inputs: Sequence[str]
) -> dict[str, tuple[int | None, ...]]:
    """The shapes by input; one without a name is the only input's."""
    for name, _ in shapes:
        if not name and len(inputs) != 1:
            raise click.UsageError(f"--shape needs a name: the model's inputs are {', '.join(inputs)}.")
    return {name or inputs[0]: extents for name, extents in shapes}
