"""``kcompile layers``."""

import importlib

import click

from kcompile.cli import options
from kcompile.cli.output import facts, heading, say, say_json
from kcompile.codegen.lowering import LoweringTable
from kcompile.errors import MissingExtra
from kcompile.ir.op import Op

_TABLES = {"onnx": ("kcompile.codegen.onnx", "ONNX"), "tvm": ("kcompile.codegen.tvm.rules", "TVM")}


@click.command("layers")
@options.as_json
def command(as_json: bool) -> None:
    """List the Keras layers that kcompile reads and, for each target, the ops that it cannot express.

    A layer that is not listed can be taught with @kcompile.register_layer.
    """
    names = _layers()
    refused = {target: _refused(target) for target in _TABLES}
    if as_json:
        say_json({"layers": names, "refused": refused})
        return
    say(heading(f"{len(names)} layers"))
    say(click.wrap_text(", ".join(names), width=100))
    for target, reasons in refused.items():
        say()
        if isinstance(reasons, str):
            say(f"{heading(f'target {target}')}: {reasons}")
        elif not reasons:
            say(f"{heading(f'target {target}')}: expresses them all")
        else:
            say(heading(f"target {target}: all but these ops"))
            say(facts(list(reasons.items())))


def _layers() -> list[str]:
    """Keras's own names of the layers that are registered."""
    importlib.import_module("kcompile.frontend.layers")
    registry = importlib.import_module("kcompile.frontend.layer").LAYERS
    return sorted({name.partition(">")[2] for name in registry if name.startswith("keras>")})


def _refused(target: str) -> dict[str, str] | str:
    """The ops that a target cannot express, with reasons; a sentence where its compiler is not installed."""
    module, name = _TABLES[target]
    try:
        table: LoweringTable[object] = getattr(importlib.import_module(module), name)
    except (MissingExtra, ImportError):
        return f'not installed; pip install "kcompile[{target}]"'
    refused = {cls.op_name: reason for cls, reason in table.unsupported.items() if not _decomposes(cls)}
    return refused | {cls.op_name: "no lowering is known" for cls in table.missing() if not _decomposes(cls)}


def _decomposes(cls: type[Op]) -> bool:
    """Whether the op can be written with others."""
    return cls.decompose is not Op.decompose
