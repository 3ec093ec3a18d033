"""Programs for `kcompile.load`: a shared library for one CPU, and the weights as its kernels read them."""

from importlib.metadata import version

from kcompile.codegen.backends import Program, describe, extra, work
from kcompile.codegen.tvm.targets import Machine
from kcompile.errors import TargetError
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


def native_program(graph: Graph, signature: Signature, machine: Machine, fast_math: bool, several: bool) -> Program:
    """`graph` compiled for `machine`, one of `several` whose files lie in one bundle."""
    from kcompile.codegen.tvm.lower import compile_graph

    compiled = compile_graph(fuse(native_products(inference(graph))), machine, fast_math)
    name = f"model.{machine.name}" if several else "model"
    library, weights = f"{name}.so", f"{name}.weights.bin" if several else "weights.bin"
    program = NativeProgram(compiled.library, compiled.weights, compiled.symbols, work(graph))
    stages = [
        {"function": c.function, "family": c.family, "layer": c.source, "macs": c.macs, "bytes": c.bytes}
        for c in compiled.calls
    ]
    return Program(
        signature,
        {"kind": "native", "library": library, "weights": weights},
        {library: compiled.library, weights: compiled.weights},
        describe(machine),
        {"weight_bytes": len(compiled.weights), "arena_bytes": compiled.arena.text()},
        {"apache-tvm": version("apache-tvm")},
        lambda threads: NativeSession(signature, program, threads, signature.name),
        {"symbols": list(program.symbols), "work": program.work, "stages": stages},
    )
