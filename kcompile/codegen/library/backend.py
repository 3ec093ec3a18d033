"""The back end of C libraries: from a graph to the members of a bundle that is unpacked where the library is used.

What is verified here is the library itself where this machine runs its code, else the same kernels and the same memory
plan, compiled for this machine. The library's own self-test then compares on the device.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from kcompile.codegen.backends import Backend, Program, describe, work
from kcompile.codegen.library import project
from kcompile.codegen.library.archive import archive
from kcompile.codegen.library.bindings import cpp, rust
from kcompile.codegen.library.interface import Interface, header, identifier, interface, step_interface
from kcompile.codegen.library.objects import Contents, contents
from kcompile.codegen.library.rounding import rounded
from kcompile.codegen.library.selftest import selftest
from kcompile.codegen.library.step_check import verify_steps
from kcompile.codegen.library.stepping import Step, step_of
from kcompile.codegen.parity import Report
from kcompile.codegen.tvm.depth_first import Bands, depth_first
from kcompile.codegen.tvm.library import Function, Library, Live, compile_library
from kcompile.codegen.tvm.scalable_stack import vector_bits
from kcompile.codegen.tvm.targets import Machine, host
from kcompile.errors import TargetError
from kcompile.ir import dims
from kcompile.ir.evaluate import bind_graph
from kcompile.ir.graph import Graph
from kcompile.ir.ops import Constant
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.pipeline import inference
from kcompile.runtime.bundle import machine_misfit
from kcompile.runtime.library import LibraryProgram, LibrarySession, StepProgram
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Signature

_WEIGHTS = "weights.bin"


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        name: what every C name begins with; the model's own name where it is empty.
        weights: ``"embedded"`` in the library, or ``"external"`` in a file.
        weights_dtype: ``"f32"``, or ``"f16"`` to round kernels and tables and store them in half the bytes.
        max_ram: the most bytes that the workspace may have.
        optimize: ``"speed"``, or ``"size"`` where few bytes of code count for more.
    """

    name: str = ""
    weights: str = "embedded"
    weights_dtype: str = "f32"
    max_ram: int | None = None
    optimize: str = "speed"

    def __post_init__(self) -> None:
        if self.weights not in ("embedded", "external"):
            raise TargetError(f'`weights` must be "embedded" or "external". Received: {self.weights!r}.')
        if self.weights_dtype not in ("f32", "f16"):
            raise TargetError(f'`weights_dtype` must be "f32" or "f16". Received: {self.weights_dtype!r}.')
        if self.optimize not in ("speed", "size"):
            raise TargetError(f'`optimize` must be "speed" or "size". Received: {self.optimize!r}.')
        if self.name and identifier(self.name) != self.name:
            law = "`name` must be a name of C without underscores at its ends"
            raise TargetError(f"{law}. Received: {self.name!r}. {identifier(self.name)!r} is one.")
        if self.max_ram is not None and (not isinstance(self.max_ram, int) or self.max_ram < 0):
            raise TargetError(f"`max_ram` must be a number of bytes. Received: {self.max_ram!r}.")


def library_backend(target: str, machine: Machine, options: Options) -> Backend:
    """The back end for `machine`.

    Raises:
        TargetError: an option is wrong.
    """

    def compile(graph: Graph, signature: Signature, notes: Mapping[str, str]) -> Program:
        check_double(graph, machine)
        return _Compilation(graph, signature, chosen(machine, options), options).program()

    return Backend(target, (".kcb",), compile, lambda graph: prepared(graph, target, options))


def chosen(machine: Machine, options: Options) -> Machine:
    """`machine` with what the user wants of its code."""
    return replace(machine, compact=options.optimize == "size", half_weights=options.weights_dtype == "f16")


def prepared(graph: Graph, target: str, options: Options) -> Graph:
    """`graph` with known extents, and with the weights that the code will hold.

    Raises:
        TargetError: an extent is open, or a weight is too large for its dtype.
    """
    known = fixed(graph, target)
    return rounded(inference(known)) if options.weights_dtype == "f16" else known


def check_double(graph: Graph, machine: Machine) -> None:
    """Make sure that a machine whose CPU computes in float32 at most need not do more.

    Raises:
        TargetError: layers compute in float64; all are named.
    """
    wide = [
        node.source or node.op.op_name for node in graph.nodes if any(v.type.dtype == "float64" for v in node.outputs)
    ]
    if wide and not machine.double:
        named = ", ".join(f"`{layer}`" for layer in dict.fromkeys(wide))
        raise TargetError(f"{machine.name} computes in float32 at most. Received: float64 in {named}.")


def fixed(graph: Graph, target: str) -> Graph:
    """`graph` for one row, where the batch is open.

    Raises:
        TargetError: another extent is open.
    """
    shapes = [type.shape for type in graph.input_types.values()]
    first = {shape[0] for shape in shapes if shape}
    if len(first) == 1 and all(shapes) and isinstance(batch := first.pop(), str) and batch.isidentifier():
        graph = bind_graph(graph, {batch: 1})
    open_inputs = {name: type for name, type in graph.input_types.items() if not type.is_static}
    if open_inputs:
        name, type = next(iter(open_inputs.items()))
        law = f"target {target!r} makes a C library, whose arrays must have known extents"
        stated = ", ".join(f"input `{name}`: {type}" for name, type in open_inputs.items())
        example = ",".join(str(dim) if isinstance(dim, int) else "16" for dim in type.shape)
        raise TargetError(f"{law}. Received: {stated}. Fix them, for example with --shape {name}={example}")
    return graph


class _Compilation:
    """One graph, compiled for one machine."""

    def __init__(self, graph: Graph, signature: Signature, machine: Machine, options: Options) -> None:
        self._graph = inference(graph)
        self._run, self._bands = depth_first(self._graph, machine, options.max_ram)
        self._signature = signature
        self._machine = machine
        self._external = options.weights == "external"
        self._name = options.name or identifier(signature.name)
        self._step = step_of(self._graph)
        self._library = self._compiled(machine)
        check_ram(self._library.workspace, self._library.stages, options.max_ram)
        self._sizes = contents(self._library.code)
        weights = len(self._library.weights)
        step = self._step
        self._face = replace(
            interface(signature, self._name, self._library.workspace, machine.alignment, weights, self._external),
            step=None
            if isinstance(step, str)
            else step_interface(step, self._library.step_workspace, machine.alignment),
        )

    def _compiled(self, machine: Machine) -> Library:
        run, step = functions(self._run, self._step, self._name)
        return compile_library(run, step, machine, self._external)

    def program(self) -> Program:
        """The library and its files, and a session that runs it here."""
        external = {_WEIGHTS: self._library.weights} if self._external else {}
        shared = {f"lib{self._name}.so": self._library.shared} if self._library.shared else {}
        facts, face = self._facts(), self._face
        offered = {"model.o": (self._library.code, [f"{self._name}_run"])}
        if self._library.step:
            offered["step.o"] = (self._library.step, [f"{self._name}_step"])
        members: dict[str, bytes | memoryview] = {f"lib{self._name}.a": archive(offered), **shared, **external}
        texts = {f"{self._name}.h": header(face), "Makefile": project.makefile(face, facts)}
        texts |= {"CMakeLists.txt": project.cmake(face, facts), "README.md": project.readme(face, facts)}
        texts |= {f"{self._name}.hpp": cpp(face), f"{self._name}.rs": rust(face)}
        if shared:
            texts[f"{self._name}.py"] = project.loader(face)
        members |= {name: text.encode() for name, text in texts.items()}
        roles = {"archive": f"lib{self._name}.a", "header": f"{self._name}.h", "function": f"{self._name}_run"}
        roles |= {"library": next(iter(shared))} if shared else {}
        roles |= {"weights": _WEIGHTS} if external else {}
        return Program(
            self._signature,
            {"kind": "library", **roles},
            members,
            describe(self._machine),
            self._memory(),
            tools(),
            self._session,
            {
                "work": work(self._graph),
                "verified_on": self._runs_as().name,
                "layers": list(facts.layers),
                **stepping(self._step, face),
            },
            self._recorded,
        )

    def _recorded(self, report: Report) -> Mapping[str, bytes]:
        """The self-test, once the step has done what a run does."""
        step = self._face.step
        if step:
            native = self._native(f"{self._name}_step", step.workspace)
            verify_steps(step, StepProgram(native, [s.size for s in step.states]), report, self._signature.name)
        return {"main.c": selftest(self._face, report).encode()}

    def _facts(self) -> project.Facts:
        machine = self._machine
        triple = f"{machine.triple}, {machine.cpu}" if machine.cpu else machine.triple
        return project.Facts(
            machine.name,
            triple,
            machine.compiler,
            machine.emulator,
            self._library.shared is not None,
            _code_bytes(self._sizes, self._embedded()),
            self._sizes.needs,
            layers(self._graph),
            self._step if isinstance(self._step, str) else "",
            self._library.stack,
            self._bands,
            vector_bits(machine),
        )

    def _embedded(self) -> int:
        return 0 if self._external else len(self._library.weights)

    def _memory(self) -> dict[str, Any]:
        return {
            "weight_bytes": len(self._library.weights),
            "code_bytes": _code_bytes(self._sizes, self._embedded()),
            "workspace_bytes": self._face.workspace,
            "workspace_alignment": self._face.alignment,
            "stack_bytes": self._library.stack,
            **({"stack_vector_bits": bits} if (bits := vector_bits(self._machine)) else {}),
            "variable_bytes": self._sizes.variables,
            "needs": list(self._sizes.needs),
            **in_bands(self._bands),
            "stages": [stage.to_json() for stage in self._library.stages],
        }

    def _runs_as(self) -> Machine:
        """The machine whose code is run here: the library's own, or this one with the library's vectors and memory."""
        machine = self._machine
        if self._library.shared and not machine_misfit(describe(machine)):
            return machine
        like = host()
        return replace(
            like,
            lanes=machine.lanes,
            registers=machine.registers,
            threaded=False,
            alignment=machine.alignment,
            compact=machine.compact,
            half_weights=machine.half_weights,
        )

    def _session(self, threads: int) -> Session:
        del threads  # a C library has the caller's
        program = self._native(f"{self._name}_run", self._library.workspace)
        return LibrarySession(self._signature, program, self._signature.name)

    @cached_property
    def _here(self) -> Library:
        """The library for this machine."""
        machine = self._runs_as()
        return self._library if machine == self._machine else self._compiled(machine)

    def _native(self, function: str, workspace: int) -> LibraryProgram:
        library = self._here
        assert library.shared is not None
        weights = library.weights if self._external else None
        return LibraryProgram(library.shared, weights, function, workspace)


def functions(graph: Graph, step: Step | str, name: str) -> tuple[Function, Function | None]:
    """A run and, where there is one, the step."""
    inputs, outputs = len(graph.inputs), len(graph.outputs)
    run = Function(fuse(graph), f"{name}_run", inputs, outputs)
    if isinstance(step, str):
        return run, None
    offsets = step_interface(step, 0, 1).offsets
    return run, Function(fuse(step.graph), f"{name}_step", inputs, outputs, offsets)


def stepping(step: Step | str, face: Interface) -> dict[str, Any]:
    """What a manifest says of the step: its parts, or why there is none."""
    if isinstance(step, str):
        return {"no_step": step} if step else {}
    assert face.step
    states = [{"name": s.name, "field": s.field, "type": str(s.type)} for s in face.step.states]
    return {"step": {"states": states, "steps": face.step.length, "workspace_bytes": face.step.workspace}}


def in_bands(bands: Bands | None) -> dict[str, Any]:
    """What a manifest says of layers that run in bands."""
    return {"bands": asdict(bands)} if bands else {}


def tools() -> dict[str, str]:
    """The versions of what makes the code."""
    linker = {"ziglang": version("ziglang")} if find_spec("ziglang") else {}
    return {"apache-tvm": version("apache-tvm"), **linker}


def _code_bytes(sizes: Contents, weights: int) -> int:
    """Bytes of code and of the constants that go with it."""
    return sizes.code + sizes.constants - weights


def check_ram(workspace: int, stages: tuple[Live, ...], limit: int | None) -> None:
    """Make sure that the workspace has at most `limit` bytes.

    Raises:
        TargetError: it has more; the text names the layer that sets the peak.
    """
    if limit is None or workspace <= limit:
        return
    peak = max(stages, key=lambda stage: stage.bytes)
    raise TargetError(
        f"`max_ram` allows the workspace {limit} bytes. Received: a model that needs {workspace}, "
        f"most of them ({peak.bytes}) for layer `{peak.layer}`."
    )


def layers(graph: Graph) -> tuple[dict[str, Any], ...]:
    """Per Keras layer: its ops, the type of its last result, multiply-accumulates, and bytes of weights."""
    rows: dict[str, dict[str, Any]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            continue
        layer = node.source or node.op.op_name
        row = rows.setdefault(layer, {"layer": layer, "op": "", "result": "", "macs": 0})
        row["op"] = ", ".join(dict.fromkeys([*filter(None, row["op"].split(", ")), node.op.op_name]))
        row["result"] = str(node.outputs[0].type)
        macs = node.op.macs(tuple(v.type for v in node.inputs), tuple(v.type for v in node.outputs))
        row["macs"] = dims.add(row["macs"], macs)
    return tuple(rows.values())
