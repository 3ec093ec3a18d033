"""The ``kcompile`` command: its sub-commands, and how errors become exit codes."""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click

from kcompile.errors import KCompileError, VerificationError

FAILED, USAGE, DISAGREES, INTERRUPTED = 1, 2, 3, 130

EPILOG = """\b
Exit codes:
  0    done
  1    the model, the artifact or the machine does not allow it
  2    the command line is wrong
  3    the verification failed
  130  interrupted (Ctrl-C); nothing half-written is left

\b
Environment:
  NO_COLOR        no colours, also on a terminal
  KCOMPILE_DEBUG  show Python tracebacks, as --debug does
"""

# Each command lives in the module of its name, which is imported when it is called.
COMMANDS = {
    "compile": "Compile a Keras model, verify the result and write it.",
    "inspect": "Show what a model or an artifact holds.",
    "run": "Run an artifact on arrays in a file.",
    "bench": "Time an artifact.",
    "profile": "Show which layers an artifact's time goes to.",
    "verify": "Compare an artifact with the reference.",
    "plot": "Draw a model's layers as a picture.",
    "layers": "List the layers and what each target can express.",
    "targets": "List the targets and what each needs.",
}


class _Commands(click.Group):
    """Commands by name; a line that begins with no command compiles."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"kcompile.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in ("--help", "-h", "--version", *COMMANDS):
            _check_is_no_misspelt_command(ctx, args[0])
            args = ["compile", *args]
        return super().parse_args(ctx, args)


def _check_is_no_misspelt_command(ctx: click.Context, word: str) -> None:
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    if near and not word.startswith("-") and not Path(word).suffix and not Path(word).exists():
        raise click.UsageError(f"No such command or model {word!r}. Did you mean {near[0]!r}?", ctx)


@click.group(
    cls=_Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="MODEL | COMMAND [ARGS]...",
)
@click.option("--debug", is_flag=True, help="Show Python tracebacks of errors.")
@click.version_option(version("kcompile"), message="kcompile %(version)s")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Compile Keras models to verified artifacts, and run them.

    \b
      kcompile model.h5 --target onnx -o model.onnx     one verified ONNX file
      kcompile model.keras --target tvm -o model.kcb    one verified native bundle for this machine

    A model without a command is compiled: see `kcompile compile --help`.
    """
    del debug  # `run` has seen it
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """The exit code of a command line; ``--debug`` may stand anywhere in it."""
    debug = "--debug" in arguments or bool(os.environ.get("KCOMPILE_DEBUG"))
    try:
        result = cli.main(
            [word for word in arguments if word != "--debug"], prog_name="kcompile", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        _show(f"{error.format_message()} {_hint(error)}".rstrip())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except KCompileError as error:
        if debug:
            traceback.print_exc()
        _show(str(error))
        return DISAGREES if isinstance(error, VerificationError) else FAILED
    except MemoryError as error:
        if debug:
            traceback.print_exc()
        _show(f"there is not enough memory: {error or 'an array does not fit'}.")
        return FAILED
    except (BrokenPipeError, SystemExit):
        # The reader of the output has seen enough, of which click makes an exit; Python would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _show(text: str) -> None:
    """Print an error."""
    color = False if os.environ.get("NO_COLOR") else None
    click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True, color=color)


def _hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"See `{context.command_path} --help`." if context else ""
