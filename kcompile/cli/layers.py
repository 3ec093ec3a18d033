"""``kcompile layers``."""

import click

from kcompile.cli import options
from kcompile.cli.output import facts, say, say_json, table


@click.command("layers")
@options.as_json
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the page docs/supported_layers.md.")
def command(as_json: bool, as_markdown: bool) -> None:
    """List the Keras layers that kcompile knows, and what each can be used for.

    A layer that is not listed can be taught with @kcompile.register_layer.
    """
    from kcompile.cli import support

    found = support.supports()
    if as_json:
        say_json({"layers": [{"name": item.layer, "family": item.family, **item.reasons} for item in found]})
    elif as_markdown:
        say(support.markdown(found).rstrip())
    else:
        say(table(["family", "layer", *support.COLUMNS, ""], support.rows(found), "<<^^^^<"))
        say()
        say(facts([(str(number), reason) for number, reason in enumerate(support.reasons_of(found), 1)]))
