"""The files around a library: how to build with it, how to call it, and a loader for Python."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kcompile.codegen.library.interface import Interface, Port, comment
from kcompile.codegen.tvm.depth_first import Bands

_LOADER = Path(__file__).parent / "loader.py.in"


@dataclass(frozen=True)
class Facts:
    """What is to be told about a library beside its interface.

    Attributes:
        target: the machine's name.
        triple: LLVM's triple and CPU.
        compiler: a command that compiles and links C for it.
        emulator: a command that runs its programs elsewhere; may be empty.
        shared: whether there is a shared library.
        code: bytes of code and its constants, without the weights; None for a source file.
        needs: functions that the library calls.
        layers: the Keras layers with their results and multiply-accumulates.
        no_step: why a recurrent model has no step.
        stack: bytes of stack that a call takes; None where another compiler decides that.
        bands: how the first layers run in bands, if they do.
        vector_bits: the length of vectors that the stack is counted for, where the machine decides it; else 0.
    """

    target: str
    triple: str
    compiler: str
    emulator: str
    shared: bool
    code: int | None
    needs: Sequence[str]
    layers: Sequence[Mapping[str, Any]]
    no_step: str = ""
    stack: int | None = None
    bands: Bands | None = None
    vector_bits: int = 0

    def library(self, name: str) -> str:
        """What a program is built with."""
        return f"{name}.c" if self.code is None else f"lib{name}.a"


def makefile(face: Interface, facts: Facts) -> str:
    """``Makefile``: builds the self-test and runs it."""
    return f"""# The self-test of {face.name} for {facts.target}. `make check` builds and runs it.
# BOARD takes what a bare machine needs beside: start-up code, and -T with a linker script.
# RUN is the command that runs the program; on the machine itself, say `make check RUN=`.
CC = {facts.compiler}
CFLAGS = -O2
BOARD =
RUN = {facts.emulator}

selftest: main.c {face.name}.h {facts.library(face.name)}
\t$(CC) -std=c99 -Wall -Wextra -Wpedantic $(CFLAGS) -o $@ main.c $(BOARD) {facts.library(face.name)} -lm

.PHONY: check clean
check: selftest
\t$(RUN) ./selftest

clean:
\trm -f selftest
"""


def cmake(face: Interface, facts: Facts) -> str:
    """``CMakeLists.txt``: the library as a target to link with, and the self-test."""
    imported = f"""add_library({face.name} STATIC IMPORTED GLOBAL)
set_target_properties({face.name} PROPERTIES IMPORTED_LOCATION "${{CMAKE_CURRENT_SOURCE_DIR}}/lib{face.name}.a")"""
    return f"""cmake_minimum_required(VERSION 3.13)
project({face.name} C)

{imported if facts.code is not None else f"add_library({face.name} STATIC {face.name}.c)"}
set_target_properties({face.name} PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_SOURCE_DIR}}"
  INTERFACE_LINK_LIBRARIES m)

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  enable_testing()
  add_executable({face.name}_selftest main.c)
  target_link_libraries({face.name}_selftest PRIVATE {face.name})
  add_test(NAME {face.name} COMMAND {face.name}_selftest WORKING_DIRECTORY ${{CMAKE_CURRENT_SOURCE_DIR}})
endif()
"""


def loader(face: Interface) -> str:
    """``<model>.py``: loads the shared library with numpy."""
    parts = {
        "NAME": face.name,
        "EXAMPLE": ", ".join(f"{port.name!r}: x{i}" for i, port in enumerate(face.inputs)),
        "INPUTS": _table(face.inputs),
        "OUTPUTS": _table(face.outputs),
        "STEPINPUTS": _table(face.step.inputs) if face.step else "{}",
        "STEPOUTPUTS": _table(face.step.outputs) if face.step else "{}",
        "STATES": str({s.name: s.size for s in face.step.states} if face.step else {}),
        "WORKSPACE": str(max(face.workspace, face.step.workspace if face.step else 0)),
        "ALIGNMENT": str(face.alignment),
        "WEIGHTS": str(face.weights),
        "EXTERNAL": str(face.external),
    }
    return re.sub(r"@([A-Z]+)@", lambda mark: parts[mark[1]], _LOADER.read_text(encoding="utf-8"))


def _table(members: Sequence[Port]) -> str:
    return "{" + ", ".join(f"{p.name!r}: ({p.type.dtype!r}, {p.type.static_shape()!r})" for p in members) + "}"


def readme(face: Interface, facts: Facts) -> str:
    """``README.md`` of the model."""
    name, macro = face.name, face.macro
    code = "as compiled" if facts.code is None else f"{facts.code} bytes"
    needs = ", ".join(f"`{symbol}`" for symbol in facts.needs) or "nothing"
    length = f" where vectors have {facts.vector_bits} bits" if facts.vector_bits else ""
    taken = "" if facts.stack is None else f", of which a call takes at most {facts.stack} bytes{length}"
    takes = [f"| {kind} | `{comment(p.name)}` | `{p.field}` | `{p.type}` | {p.bytes} |" for kind, p in _all_ports(face)]
    call = [
        f'#include "{name}.h"',
        "",
        f"static _Alignas({macro}_WORKSPACE_ALIGNMENT) unsigned char workspace[{macro}_WORKSPACE_BYTES];  /* C11 */",
        "",
        f"{name}_inputs inputs = {{{', '.join(p.field for p in face.inputs)}}};",
        f"{name}_outputs outputs = {{{', '.join(p.field for p in face.outputs)}}};",
        f"{name}_run(&inputs, &outputs, {'weights, ' if face.external else ''}workspace);",
    ]
    python = (
        [f"`{name}.py` loads `lib{name}.so` with numpy alone; its first lines show how.", ""] if facts.shared else []
    )
    rows = [f"| `{layer['layer']}` | {layer['op']} | `{layer['result']}` | {layer['macs']} |" for layer in facts.layers]
    return "\n".join(
        [
            f"# {name} for {facts.target}",
            "",
            f"A Keras model as a C library for {facts.target} ({facts.triple}), made by kcompile.",
            "",
            f"| code | weights{' (weights.bin)' if face.external else ''} | workspace |",
            "|---|---|---|",
            f"| {code} | {face.weights} bytes | {face.workspace} bytes, {face.alignment}-byte aligned |",
            "",
            f"Beside the stack{taken}, that is all the memory it uses. From other libraries it needs {needs}.",
            "",
            *_bands_section(facts.bands),
            "## Call it",
            "",
            "| | in the model | in C | type | bytes |",
            "|---|---|---|---|---|",
            *takes,
            "",
            "```c",
            *call,
            "```",
            "",
            f"Build with `{facts.library(name)}` and `-lm`, or link with `{name}` of this folder in a CMake project.",
            "Runs may go on at the same time where each has a workspace and outputs of its own.",
            *(["Load or map `weights.bin` at a multiple of 64 bytes."] if face.external else []),
            "",
            *_step_section(face, facts),
            "## Check it",
            "",
            "`make check` builds `main.c` and runs it on recorded inputs, for which the NumPy reference of the model",
            "computed the expected outputs. `make check CC=…` takes another compiler for this machine.",
            "",
            *(python if facts.shared else []),
            "## Layers",
            "",
            "| layer | op | result | MACs |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _bands_section(bands: Bands | None) -> list[str]:
    """What bands save, and what they cost."""
    if bands is None:
        return []
    return [
        f"The layers up to `{comment(bands.layer)}` run in {bands.count} bands of {bands.rows} rows of its result, one",
        f"after another: all at once they would take {bands.workspace_without} bytes of workspace. Rows at the borders",
        f"of bands are computed twice, which adds {bands.extra_macs} multiply-accumulates.",
        "",
    ]


def _step_section(face: Interface, facts: Facts) -> list[str]:
    """How to take steps, or why there are none."""
    if face.step is None:
        return [f"There is no step function: {facts.no_step}.", ""] if facts.no_step else []
    name, macro = face.name, face.macro
    weights = "weights, " if face.external else ""
    return [
        "## Step by step",
        "",
        f"`{name}_step` takes one element of the sequence and keeps in a structure what the layers remember, so that a",
        f"program need not hold the sequence. {face.step.length} steps give what a run gives.",
        "",
        "```c",
        f"static {name}_state state;  /* all zero: the beginning; {sum(s.bytes for s in face.step.states)} bytes */",
        f"{name}_step(&inputs, &outputs, &state, {weights}workspace);  /* {macro}_STEP_WORKSPACE_BYTES are enough */",
        "```",
        "",
    ]


def _all_ports(face: Interface) -> list[tuple[str, Port]]:
    return [*(("input", port) for port in face.inputs), *(("output", port) for port in face.outputs)]
