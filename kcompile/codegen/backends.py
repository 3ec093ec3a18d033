"""The back ends under one face: a graph in, a `Program` out, which can be run at once and written to a file."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from kcompile.errors import MissingExtra, TargetError
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Graph
from kcompile.ir.ops import Constant
from kcompile.ir.passes.pipeline import inference
from kcompile.runtime.onnx import SIGNATURE_KEY, OnnxSession
from kcompile.runtime.reference import graph_signature
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Signature

if TYPE_CHECKING:
    from kcompile.codegen.parity import Report
    from kcompile.codegen.tvm.targets import Machine

TARGETS = ("onnx", "tvm", "c", "auto")

_LAW = '`target` must be "onnx", "tvm", "tvm:<machine>", "c" or "auto"'
_NATIVE_OPTIONS = ("fast_math", "batch", "tune")
_LIBRARY_OPTIONS = ("name", "weights", "weights_dtype", "max_ram", "optimize")


@dataclass(frozen=True)
class Program:
    """A compiled graph in memory.

    Attributes:
        signature: what it takes and gives.
        artifact: its ``kind`` and, by role, the names of its members.
        members: its files by name.
        target: the machine that it is for.
        memory: weight bytes, and the bytes of the arena where they are planned.
        versions: of the packages that made it.
        open: makes a session of it with a number of threads.
        description: what a native program must know of itself to be called.
        recorded: further files, by name, which hold what the verification saw.
        better: the same for better CPUs, the best first, whose files are among `members`.
        notes: what the artifact is to say beside the notes that `compile` was given.
    """

    signature: Signature
    artifact: Mapping[str, Any]
    members: Mapping[str, bytes | memoryview]
    target: Mapping[str, Any]
    memory: Mapping[str, Dim]
    versions: Mapping[str, str]
    open: Callable[[int], Session]
    description: Mapping[str, Any] = field(default_factory=dict[str, Any])
    recorded: Callable[["Report"], Mapping[str, bytes]] = lambda report: {}
    better: tuple["Program", ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Backend:
    """One target: its name as the user wrote it, the suffixes of its files, and its compiler."""

    target: str
    suffixes: tuple[str, ...]
    compile: Callable[[Graph, Signature, Mapping[str, str]], Program]
    """From a prepared graph, what the model takes and gives, and notes that the artifact carries."""
    prepare: Callable[[Graph], Graph] = lambda graph: graph
    """Fixes extents that the target cannot leave open."""
    precisions: tuple[str, ...] = ()
    """Those beside float32 that it computes in."""
    draft: Callable[[Graph, Signature, Mapping[str, str]], Program] | None = None
    """The compiler of what is not kept, where that takes less time."""

    def session(self, graph: Graph) -> Session:
        """`graph` compiled in memory, for one thread, to be looked at."""
        return (self.draft or self.compile)(graph, graph_signature(graph), {}).open(1)


def backend(target: str, *, precision: str = "float32", **options: Any) -> Backend:
    """The back end of a target: ``"onnx"``, ``"tvm"`` for this machine, ``"tvm:<machine>"``, ``"c"`` or ``"auto"``.

    Code for this machine uses its instructions for few bits only where `precision` asks for few bits.

    Raises:
        TargetError: the target or an option is unknown.
        MissingExtra: its compiler is not installed.
    """
    if not isinstance(target, str):
        raise TargetError(f"{_LAW}. Received: {target!r}.")
    name, colon, machine = target.partition(":")
    if name == "onnx" and not colon:
        return _onnx_backend(**_known(target, options, "opset"))
    if name == "auto" and not colon:
        _known(target, options)
        return importlib.import_module("kcompile.codegen.auto").auto_backend(precision)
    if name == "c" and not colon:
        module = extra("tvm", "kcompile.codegen.library.c_backend", "apache-tvm")
        return module.c_backend(target, module.Options(**_known(target, options, *_LIBRARY_OPTIONS)))
    if name == "tvm" and (machine or not colon):
        return _tvm_backend(target, machine or "host", precision, options)
    near = get_close_matches(name, TARGETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise TargetError(f"{_LAW}. Received: {target!r}.{hint}")


def describe(machine: "Machine") -> dict[str, Any]:
    """What a bundle says of its machine."""
    from kcompile.codegen.tvm.targets import required_flags

    return {
        "name": machine.name,
        "architecture": machine.architecture,
        "flags": sorted(required_flags(machine)),
        "triple": machine.triple,
        "cpu": machine.cpu,
        "features": list(machine.features),
    }


def weight_bytes(graph: Graph) -> int:
    """Bytes of the constants of `graph`, each counted once."""
    constants = {id(node.op): node.outputs[0].constant for node in graph.nodes if isinstance(node.op, Constant)}
    return sum(array.nbytes for array in constants.values() if array is not None)


def work(graph: Graph) -> Dim:
    """About how many operations `graph` takes: its multiply-accumulates, and one per element of every result."""
    nodes = [node for node in graph.nodes if not isinstance(node.op, Constant)]
    macs = (n.op.macs(tuple(v.type for v in n.inputs), tuple(v.type for v in n.outputs)) for n in nodes)
    return dims.add(*macs, *(value.type.size for node in nodes for value in node.outputs))


def _known(target: str, options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The options that were given, which must be among `names`."""
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(given) - set(names))
    if unknown:
        takes = ", ".join(f"`{name}`" for name in names) or "no options"
        received = ", ".join(f"`{name}`" for name in unknown)
        hint = " Kernels are tuned by measuring them on this machine, for target 'tvm'." if "tune" in unknown else ""
        raise TargetError(f"target {target!r} takes {takes}. Received: {received}.{hint}")
    return given


def extra(target: str, module: str, package: str) -> Any:
    """The back end's module, which needs an optional package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").startswith("kcompile"):
            raise
        text = f'target "{target}" needs {package}. Install it with: pip install "kcompile[{target}]"'
        raise MissingExtra(text) from error


def _onnx_backend(opset: int | None = None) -> Backend:
    engine = extra("onnx", "kcompile.codegen.onnx.engine", "onnx and onnxruntime")
    lower_to_onnx = importlib.import_module("kcompile.codegen.onnx").lower_to_onnx

    def compile(graph: Graph, signature: Signature, notes: Mapping[str, str]) -> Program:
        optimized = inference(graph)
        metadata = {**notes, SIGNATURE_KEY: json.dumps(signature.to_json())}
        content: bytes = lower_to_onnx(optimized, metadata=metadata, opset=opset)
        return Program(
            signature,
            {"kind": "onnx", "model": "model.onnx"},
            {"model.onnx": content},
            {"name": "onnx", "opset": opset or engine.versions()[0]},
            {"weight_bytes": weight_bytes(optimized)},
            {"onnx": version("onnx"), "onnxruntime": version("onnxruntime")},
            lambda threads: OnnxSession(content, threads, signature.name),
        )

    return Backend("onnx", (".onnx", ".kcb"), compile, precisions=("int8",))


def _tvm_backend(target: str, name: str, precision: str, options: Mapping[str, Any]) -> Backend:
    """The back end of programs for `kcompile.load`, or of C libraries, as the machine asks for."""
    from kcompile.codegen.tvm.targets import CPUS, host, host_machines, machine, with_narrow_products

    given = {key: value for key, value in options.items() if value is not None}
    cpu, features = given.pop("cpu", None), given.pop("features", ())
    if name == "host" and cpu in (None, *CPUS) and not features:
        machines = host_machines(cpu or "native")
        if precision != "float32" and machines[0] == host():
            machines = (with_narrow_products(machines[0]), *machines[1:])
        return _native_backend(target, machines, **_known(target, given, *_NATIVE_OPTIONS))
    found = machine(name, cpu, features)
    if found.threaded:
        return _native_backend(target, (found,), **_known(target, given, *_NATIVE_OPTIONS))
    library = extra("tvm", "kcompile.codegen.library.backend", "apache-tvm")
    return library.library_backend(target, found, library.Options(**_known(target, given, *_LIBRARY_OPTIONS)))


def _native_backend(
    target: str,
    machines: Sequence["Machine"],
    fast_math: bool = False,
    batch: int | Sequence[int] | None = None,
    tune: bool | Callable[[str], None] = False,
) -> Backend:
    """The back end of programs for several CPUs of one kind, the best first.

    `tune` may be what is told how the search goes.
    """
    from kcompile.codegen.batches import check_batches, check_rows
    from kcompile.codegen.native import Options, check_runs_here, native_program

    if tune and len(machines) > 1:
        law = "`tune` measures the code for one CPU, which is this machine's"
        raise TargetError(f"{law}. Received: code for {len(machines)} CPUs. Leave `cpu` away.")
    tell = tune if callable(tune) else (lambda text: None) if tune else None
    options = Options(fast_math, check_batches(batch), tell)

    for machine in machines:
        check_runs_here(machine)

    def made(graph: Graph, signature: Signature, options: Options) -> Program:
        names = [f"model.{machine.name}" if len(machines) > 1 else "model" for machine in machines]
        *better, least = (
            native_program(graph, signature, machine, options, name)
            for machine, name in zip(machines, names, strict=True)
        )
        members = {name: content for program in (*better, least) for name, content in program.members.items()}
        return replace(least, members=members, better=tuple(better))

    def compile(graph: Graph, signature: Signature, notes: Mapping[str, str]) -> Program:
        del notes
        return made(graph, signature, options)

    def draft(graph: Graph, signature: Signature, notes: Mapping[str, str]) -> Program:
        del notes
        return made(graph, signature, replace(options, tune=None))

    bfloat16 = all("+avx512bf16" in machine.features for machine in machines)
    precisions = ("int8", *(("bf16",) if bfloat16 else ()))
    prepare = check_rows if options.batches else lambda graph: graph
    return Backend(target, (".kcb",), compile, prepare, precisions, draft)
