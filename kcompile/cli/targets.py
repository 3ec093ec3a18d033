"""``kcompile targets``."""

import click

from kcompile.cli import options
from kcompile.cli.output import say, say_json, table
from kcompile.codegen.tvm.targets import MACHINES, Machine

_HEADER = ["target", "gives", "LLVM triple", "CPU", "its self-test is built and run with"]


@click.command("targets")
@options.as_json
def command(as_json: bool) -> None:
    """List the targets of --target, and what each needs.

    Beside these, tvm:TRIPLE takes any triple that LLVM knows, with --cpu and --features. All but onnx need the extra
    kcompile[tvm]; the compilers and emulators are only for the self-test that a C library comes with.
    """
    records = [_record(machine) for machine in MACHINES.values()]
    if as_json:
        say_json({"targets": records})
        return
    rows = [["onnx", "one .onnx file", "", "", ""], ["tvm", "the bundle for this machine", "", "", ""]]
    rows += [["c", "a C99 source file", "", "", "any C compiler"]]
    rows += [[r["target"], r["gives"], r["triple"], r["cpu"], r["tools"]] for r in records]
    say(table(_HEADER, rows, "<<<<<"))


def _record(machine: Machine) -> dict[str, str]:
    gives = "a bundle for kcompile.load" if machine.threaded else "a C library, .a and .so"
    return {
        "target": f"tvm:{machine.name}",
        "gives": gives if machine.emulation else "a C library, .a",
        "triple": machine.triple,
        "cpu": machine.cpu,
        "features": ",".join(machine.features),
        "tools": ", ".join(tool for tool in (_name(machine.compiler), machine.emulator.partition(" ")[0]) if tool),
    }


def _name(compiler: str) -> str:
    """The program of a command, without its options."""
    return "zig cc" if "ziglang" in compiler else compiler.partition(" ")[0]
