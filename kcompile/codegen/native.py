"""Programs for `kcompile.load`: a shared library for one CPU, and the weights as its kernels read them."""

from collections.abc import Sequence
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
        TargetError: this machine cannot run it.
        MissingExtra: TVM is not installed.
    """
    extra("tvm", "kcompile.codegen.tvm.lower", "apache-tvm")
    misfit = machine_misfit(describe(machine))
    if misfit:
        raise TargetError(f"code for {machine.name} must run here to be verified. Received: {misfit}.")


def native_program(
    graph: Graph, signature: Signature, machine: Machine, fast_math: bool, name: str, batches: Sequence[int]
) -> Program:
    """`graph` compiled for `machine`, with code of their own for the numbers of rows in `batches`.

    Args:
        name: what the names of its files begin with.
    """
    general, native = _compiled(graph, signature, machine, fast_math, name)
    if not batches:
        return general
    special = {
        rows: _compiled(
            bind_graph(graph, {str(signature.batch): rows}), signature, machine, fast_math, f"{name}.batch{rows}"
        )
        for rows in batches
    }
    return with_batches(general, native, signature, special)


def _compiled(
    graph: Graph, signature: Signature, machine: Machine, fast_math: bool, name: str
) -> tuple[Program, NativeProgram]:
    from kcompile.codegen.tvm.lower import compile_graph

    # No name holds the graph, whose weights are let go as soon as they are stored.
    compiled = compile_graph(fuse(native_products(inference(graph))), machine, fast_math)
    library, weights = f"{name}.so", "weights.bin" if name == "model" else f"{name}.weights.bin"
    program = NativeProgram(compiled.library, compiled.weights, compiled.symbols, work(graph))
    stages = [
        {"function": c.function, "family": c.family, "layer": c.source, "macs": c.macs, "bytes": c.bytes}
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
    )
    return whole, program
