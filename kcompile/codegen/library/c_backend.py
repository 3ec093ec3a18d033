"""The back end of plain C: one source file and its header, in C99, for any machine that has a C compiler."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kcompile.codegen.backends import Backend, Program, work
from kcompile.codegen.library import project
from kcompile.codegen.library.backend import Options, check_ram, fixed, layers, tools
from kcompile.codegen.library.interface import Interface, header, identifier, interface
from kcompile.codegen.library.selftest import selftest, words
from kcompile.codegen.tvm.build import link_source
from kcompile.codegen.tvm.c_source import HELPERS, TYPES, Printer, dtypes
from kcompile.codegen.tvm.entry import Location
from kcompile.codegen.tvm.library import live_stages
from kcompile.codegen.tvm.lower import Lowered, lower
from kcompile.codegen.tvm.targets import PORTABLE, host
from kcompile.errors import TargetError
from kcompile.ir.graph import Graph
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.pipeline import inference
from kcompile.runtime.library import LibraryProgram, LibrarySession
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Signature


def c_backend(target: str, options: Options) -> Backend:
    """The back end of ``"c"``.

    Raises:
        TargetError: an option is wrong.
    """
    if options.weights != "embedded":
        raise TargetError('`weights` must be "embedded" for target "c": the file holds them as numbers.')

    def compile(graph: Graph, signature: Signature, notes: Mapping[str, str]) -> Program:
        return _program(inference(graph), signature, options)

    return Backend(target, (".kcb",), compile, lambda graph: fixed(graph, target))


def _program(graph: Graph, signature: Signature, options: Options) -> Program:
    name = options.name or identifier(signature.name)
    lowered = lower(fuse(graph), replace(PORTABLE, compact=options.optimize == "size"), name)
    workspace, stages = lowered.arena.bytes({}), live_stages(lowered)
    check_ram(workspace, stages, options.max_ram)
    face = interface(signature, name, workspace, PORTABLE.alignment, len(lowered.weights), False)
    facts = project.Facts("C", "C99", PORTABLE.compiler, "", False, None, ("math.h", "string.h"), layers(graph))
    text = _source(face, lowered)
    texts = {f"{name}.c": text, f"{name}.h": header(face), "Makefile": project.makefile(face, facts)}
    texts |= {"CMakeLists.txt": project.cmake(face, facts), "README.md": project.readme(face, facts)}

    def session(threads: int) -> Session:
        del threads  # the code has the caller's
        library = link_source(text, (f"{name}.h", header(face)), host())
        return LibrarySession(signature, LibraryProgram(library, None, f"{name}_run", workspace), signature.name)

    memory: dict[str, Any] = {
        "weight_bytes": len(lowered.weights),
        "workspace_bytes": face.workspace,
        "workspace_alignment": face.alignment,
        "stages": [stage.to_json() for stage in stages],
    }
    return Program(
        signature,
        {"kind": "library", "source": f"{name}.c", "header": f"{name}.h", "function": f"{name}_run"},
        {file: content.encode() for file, content in texts.items()},
        {"name": "c", "architecture": "C99", "flags": []},
        memory,
        tools(),
        session,
        {"work": work(graph), "verified_on": host().name, "layers": list(facts.layers)},
        lambda report: {"main.c": selftest(face, report).encode()},
    )


def _source(face: Interface, lowered: Lowered) -> str:
    """The C file: helpers, weights, a function per kernel, and the one that calls them."""
    printer = Printer()
    functions = [printer.function(name, function) for name, function in lowered.functions.items()]
    weights, calls = _calls(face, lowered)
    helpers = [HELPERS[name] for name in HELPERS if name in printer.used]
    includes = ["<math.h>", "<string.h>"]
    body = [f"    (void){unused};" for unused in ("workspace",)]
    return "\n".join(
        [
            f"/* {face.name}: see {face.name}.h. */",
            f'#include "{face.name}.h"',
            "",
            *(f"#include {include}" for include in includes),
            "",
            *helpers,
            *weights,
            *functions,
            face.declaration,
            "{",
            *body,
            *calls,
            "    return 0;",
            "}",
            "",
        ]
    )


def _calls(face: Interface, lowered: Lowered) -> tuple[list[str], list[str]]:
    """The weights' arrays, each with the dtype that a kernel reads it as, and the calls."""
    ends = sorted({a.number for call in lowered.calls for a in call.arguments if a.kind == "weights"})
    ends.append(len(lowered.weights))
    arrays: dict[str, str] = {}

    def argument(location: Location, dtype: str) -> str:
        if location.kind == "input":
            return f"inputs->{face.inputs[location.number].field}"
        if location.kind == "output":
            return f"outputs->{face.outputs[location.number].field}"
        if location.place is not None:
            return f"({TYPES[dtype]} *)(void *)((unsigned char *)workspace + {location.place.offset})"
        name = f"{face.name}_{dtype}_{location.number}"
        content = lowered.weights[location.number : ends[ends.index(location.number) + 1]]
        arrays[name] = words(f"static const {TYPES[dtype]} {name}", np.frombuffer(content, dtype))
        return name

    calls = [
        f"    {call.name}({', '.join(map(argument, call.arguments, dtypes(lowered.functions[call.name])))});"
        for call in lowered.calls
    ]
    return list(arrays.values()), calls
