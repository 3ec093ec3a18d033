"""Programs for `kcompile.load`: a shared library for one CPU, and the weights as its kernels read them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from kcompile.codegen.backends import Program, describe, extra, work
from kcompile.codegen.batches import with_batches
from kcompile.codegen.tvm.targets import Machine
from kcompile.errors import TargetError
from kcompile.ir.evaluate import bind_graph
from kcompile.ir.graph import Graph
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.narrow import native_products
from kcompile.ir.passes.pipeline import inference
from kcompile.runtime.bundle import machine_misfit
from kcompile.runtime.native import NativeProgram, NativeSession
from kcompile.runtime.signature import Signature


def check_runs_here(machine: Machine) -> None:
    """Make sure that code for `machine` can be verified.

    Raises:
        TargetError: this machine cannot run it, or LLVM does not know its CPU or a feature.
        MissingExtra: TVM is not installed.
    """
    extra("tvm", "kcompile.codegen.tvm.lower", "apache-tvm")
    extra("tvm", "kcompile.codegen.tvm.build", "apache-tvm").check_cpu(machine)
    misfit = machine_misfit(describe(machine))
    if misfit:
        raise TargetError(f"code for {machine.name} must run here to be verified. Received: {misfit}.")


@dataclass(frozen=True)
class Options:
    """How programs are made.

    Attributes:
        fast_math: whether a digit may be lost for speed.
        batches: numbers of rows to make code of their own for.
        tune: who is told how the search goes, if measurements are to choose among what kernels may do; or None.
    """

    fast_math: bool = False
    batches: tuple[int, ...] = ()
    tune: Callable[[str], None] | None = None


def native_program(graph: Graph, signature: Signature, machine: Machine, options: Options, name: str) -> Program:
    """`graph` compiled for `machine`; the names of its files begin with `name`."""
    general, native = _compiled(graph, signature, machine, options, name)
    # Parts of a model, which are compiled to find a fault, may have no rows.
    if not options.batches or signature.batch is None:
        return general
    special: dict[int, tuple[Program, NativeProgram]] = {}
    for rows in options.batches:
        fixed = bind_graph(graph, {signature.batch: rows})
        special[rows] = _compiled(fixed, signature, machine, options, f"{name}.batch{rows}", rows)
    return with_batches(general, native, signature, special)


def _compiled(
    graph: Graph, signature: Signature, machine: Machine, options: Options, name: str, rows: int = 1
) -> tuple[Program, NativeProgram]:
    """A program for calls with `rows` rows or, with an open batch, with any number."""
    from kcompile.codegen.tuning import NOTE, SECONDS, Subject, tuned
    from kcompile.codegen.tvm.lower import compile_graph
    from kcompile.codegen.tvm.variants import MODELLED

    variants, why = MODELLED, ""
    if options.tune:
        subject = Subject(fuse(native_products(inference(graph))), machine, options.fast_math, rows)
        found = tuned(subject, options.tune, SECONDS / (1 + len(options.batches)))
        compiled, variants, why = found.compiled, found.variants, found.why
    else:  # no name holds the graph, whose weights are let go as soon as they are stored
        compiled = compile_graph(fuse(native_products(inference(graph))), machine, options.fast_math)
    library, weights = f"{name}.so", "weights.bin" if name == "model" else f"{name}.weights.bin"
    program = NativeProgram(compiled.library, compiled.weights, compiled.symbols, work(graph))
    stages = [
        {"function": c.function, "family": c.family, "layer": c.source, "macs": c.macs, "bytes": c.bytes}
        | ({"choice": str(variants[c.number])} if c.number in variants else {})
        for c in compiled.calls
    ]
    whole = Program(
        signature,
        {"kind": "native", "library": library, "weights": weights},
        {library: compiled.library, weights: compiled.weights},
        describe(machine),
        {"weight_bytes": len(compiled.weights), "arena_bytes": compiled.arena.text()},
        {"apache-tvm": version("apache-tvm")},
        lambda threads: NativeSession(signature, program, threads, signature.name),
        {"symbols": list(program.symbols), "work": program.work, "stages": stages},
        notes={NOTE: why} if why else {},
    )
    return whole, program
