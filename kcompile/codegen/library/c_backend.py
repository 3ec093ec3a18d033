"""The back end of plain C: one source file and its header, in C99, for any machine that has a C compiler."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kcompile.codegen.backends import Backend, Program, work
from kcompile.codegen.library import project
from kcompile.codegen.library.backend import (
    Options,
    check_ram,
    chosen,
    functions,
    in_bands,
    layers,
    prepared,
    stepping,
    tools,
)
from kcompile.codegen.library.bindings import cpp, rust
from kcompile.codegen.library.interface import Interface, Port, header, identifier, interface, step_interface
from kcompile.codegen.library.selftest import selftest, words
from kcompile.codegen.library.step_check import verify_steps
from kcompile.codegen.library.stepping import Step, step_of
from kcompile.codegen.parity import Report
from kcompile.codegen.tvm.build import link_source
from kcompile.codegen.tvm.c_source import HELPERS, TYPES, Printer, dtypes
from kcompile.codegen.tvm.depth_first import depth_first
from kcompile.codegen.tvm.entry import Location
from kcompile.codegen.tvm.library import live_stages
from kcompile.codegen.tvm.lower import Lowered, lower
from kcompile.codegen.tvm.targets import PORTABLE, Machine, host
from kcompile.codegen.tvm.weights import Weights
from kcompile.errors import TargetError
from kcompile.ir.graph import Graph
from kcompile.ir.passes.pipeline import inference
from kcompile.runtime.library import LibraryProgram, LibrarySession, StepProgram
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Signature

# What the C expression of a state begins with.
_STATE = "state->"


def c_backend(target: str, options: Options) -> Backend:
    """The back end of ``"c"``.

    Raises:
        TargetError: an option is wrong.
    """
    if options.weights != "embedded":
        raise TargetError('`weights` must be "embedded" for target "c": the file holds them as numbers.')

    def compile(graph: Graph, signature: Signature, notes: Mapping[str, str]) -> Program:
        return _program(inference(graph), signature, options)

    return Backend(target, (".kcb",), compile, lambda graph: prepared(graph, target, options))


def _program(graph: Graph, signature: Signature, options: Options) -> Program:
    name = options.name or identifier(signature.name)
    step = step_of(graph)
    machine = chosen(PORTABLE, options)
    run, bands = depth_first(graph, machine, options.max_ram)
    source = _Source(run, step, name, machine)
    workspace, stages = source.run.arena.bytes({}), live_stages(source.run)
    check_ram(workspace, stages, options.max_ram)
    face = interface(signature, name, workspace, PORTABLE.alignment, len(source.weights), False)
    if not isinstance(step, str) and source.step:
        face = replace(face, step=step_interface(step, source.step.arena.bytes({}), PORTABLE.alignment))
    facts = project.Facts("C", "C99", PORTABLE.compiler, "", False, None, ("math.h", "string.h"), layers(graph))
    facts = replace(facts, no_step=step if isinstance(step, str) else "", bands=bands)
    text = source.text(face)
    texts = {f"{name}.c": text, f"{name}.h": header(face), "Makefile": project.makefile(face, facts)}
    texts |= {"CMakeLists.txt": project.cmake(face, facts), "README.md": project.readme(face, facts)}
    texts |= {f"{name}.hpp": cpp(face), f"{name}.rs": rust(face)}

    def native(function: str, workspace: int) -> LibraryProgram:
        library = link_source(text, (f"{name}.h", header(face)), host())
        return LibraryProgram(library, None, function, workspace)

    def session(threads: int) -> Session:
        del threads  # the code has the caller's
        return LibrarySession(signature, native(f"{name}_run", workspace), signature.name)

    def recorded(report: Report) -> Mapping[str, bytes]:
        if face.step:
            program = StepProgram(native(f"{name}_step", face.step.workspace), [s.size for s in face.step.states])
            verify_steps(face.step, program, report, signature.name)
        return {"main.c": selftest(face, report).encode()}

    memory: dict[str, Any] = {
        "weight_bytes": len(source.weights),
        "workspace_bytes": face.workspace,
        "workspace_alignment": face.alignment,
        **in_bands(bands),
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
        {"work": work(graph), "verified_on": host().name, "layers": list(facts.layers), **stepping(step, face)},
        recorded,
    )


class _Source:
    """The C file: helpers, weights, a function per kernel, and those that call them."""

    def __init__(self, graph: Graph, step: Step | str, name: str, machine: Machine) -> None:
        blob = Weights(machine)
        run, following = functions(graph, step, name)
        self.run = lower(run.graph, machine, run.prefix, blob)
        self.step = lower(following.graph, machine, following.prefix, blob, following.outputs) if following else None
        self.weights = bytes(blob.blob())
        parts = [part for part in (self.run, self.step) if part]
        self._functions = {name: made for part in parts for name, made in part.functions.items()}
        self._ends = sorted(
            {a.number for part in parts for c in part.calls for a in c.arguments if a.kind == "weights"}
        )
        self._ends.append(len(self.weights))
        self._arrays: dict[str, str] = {}

    def text(self, face: Interface) -> str:
        """The file."""
        printer = Printer()
        kernels = [printer.function(name, function) for name, function in self._functions.items()]
        bodies = [*self._body(face.declaration, self.run, face, face.inputs, face.outputs)]
        if face.step and self.step:
            states = tuple(replace(state, field=f"{_STATE}{state.field}") for state in face.step.states)
            ports = ((*side, *states) for side in (face.step.inputs, face.step.outputs))
            bodies += ["", *self._body(face.step_declaration, self.step, face, *ports)]
        helpers = [HELPERS[name] for name in HELPERS if name in printer.used]
        start = [f"/* {face.name}: see {face.name}.h. */", f'#include "{face.name}.h"', ""]
        includes = ["#include <math.h>", "#include <string.h>", ""]
        return "\n".join([*start, *includes, *helpers, *self._arrays.values(), *kernels, *bodies, ""])

    def _body(
        self, declaration: str, lowered: Lowered, face: Interface, inputs: Sequence[Port], outputs: Sequence[Port]
    ) -> list[str]:
        """A function that makes the calls; the weights' arrays that they read are written on the way."""

        def argument(location: Location, dtype: str) -> str:
            if location.kind in ("input", "output"):
                field = (inputs if location.kind == "input" else outputs)[location.number].field
                array = field if field.startswith(_STATE) else f"{location.kind}s->{field}"
                items = location.offset // np.dtype(dtype).itemsize
                return f"{array} + {items}" if items else array
            if location.place is not None:
                offset = int(location.place.offset) + location.offset
                return f"({TYPES[dtype]} *)(void *)((unsigned char *)workspace + {offset})"
            name = f"{face.name}_{dtype}_{location.number}"
            content = self.weights[location.number : self._ends[self._ends.index(location.number) + 1]]
            self._arrays[name] = words(f"static const {TYPES[dtype]} {name}", np.frombuffer(content, dtype))
            return name

        calls = [
            f"    {call.name}({', '.join(map(argument, call.arguments, dtypes(lowered.functions[call.name])))});"
            for call in lowered.calls
        ]
        return [declaration, "{", "    (void)workspace;", *calls, "    return 0;", "}"]
