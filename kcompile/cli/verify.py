"""``kcompile verify``."""

from pathlib import Path

import click

from kcompile import api
from kcompile.cli import options
from kcompile.cli.output import Progress, say, say_json, table, verdict


@click.command("verify")
@click.argument("artifact", type=options.EXISTING)
@click.option(
    "--against",
    type=options.EXISTING,
    metavar="MODEL",
    help="The Keras file that it was compiled from. Without it, the samples that a bundle recorded are run again.",
)
@options.seed
@options.as_json
@click.pass_context
def command(ctx: click.Context, artifact: Path, against: Path | None, seed: int, as_json: bool) -> None:
    """Compare an artifact's numbers with the reference, and a bundle's members with their checksums.

    Exits with 3 where they disagree; with --against, the first Keras layer that is off is named.
    """
    with Progress(as_json) as progress:
        progress.stage("verifying")
        report, cause = api.examine(artifact, against, seed)
    if as_json:
        say_json({"artifact": str(artifact), **report.to_json(), "cause": cause})
    else:
        rows = [
            [d.output, f"{d.absolute:.2e}", f"{d.relative:.2e}", f"{d.ulp:.0f}", f"{d.allowed:.2e}", _word(d.agrees)]
            for d in report.differences
        ]
        say(table(["output", "absolute", "relative", "ulp", "allowed", ""], rows, "<>>>><"))
        say(verdict(report.agrees, f"{artifact.name} {_word(report.agrees)} with the reference"))
        if cause:
            say(cause)
    ctx.exit(0 if report.agrees else 3)


def _word(agrees: bool) -> str:
    return "agrees" if agrees else "disagrees"
