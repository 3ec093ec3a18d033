"""Run a compiled graph through its C interface, every buffer between inaccessible pages."""

import ctypes
from collections.abc import Mapping

import numpy as np

from kcompile.codegen.tvm.lower import Compiled, compile_graph
from kcompile.codegen.tvm.targets import Machine, host
from kcompile.codegen.tvm.variants import MODELLED, Variants
from kcompile.ir.graph import Graph
from kcompile.ir.types import bind_shapes
from tests.codegen.tvm.harness import Array, guarded, load_library


def aligned(size: int) -> Array:
    """Bytes of an address that is a multiple of 64, whose end touches an inaccessible page."""
    return guarded(np.full(-(-size // 64) * 64, 0xFF, np.uint8))


class Model:
    """A compiled graph; `run` checks that neither inputs nor weights are written."""

    def __init__(
        self, graph: Graph, machine: Machine | None = None, fast_math: bool = False, variants: Variants = MODELLED
    ) -> None:
        self.graph = graph
        self.compiled: Compiled = compile_graph(graph, machine or host(), fast_math, variants)
        library = load_library(self.compiled.library)
        library.kc_arena_bytes.restype = ctypes.c_int64
        library.kc_pool_bytes.restype = ctypes.c_size_t
        library.kc_pool_create.restype = ctypes.c_void_p
        self.library = library
        self.weights = aligned(len(self.compiled.weights))
        self.weights[: len(self.compiled.weights)] = np.frombuffer(self.compiled.weights, np.uint8)

    def run(self, inputs: Mapping[str, Array], threads: int = 1) -> dict[str, Array]:
        """The outputs by name; the arena starts as NaN."""
        bindings = bind_shapes(self.graph.input_types, {name: x.shape for name, x in inputs.items()})
        symbols = np.array([bindings[name] for name in self.compiled.symbols] + [0], np.int64)
        size = self.library.kc_arena_bytes(address(symbols), threads)
        assert size == self.compiled.arena.bytes({**bindings, "threads": threads})
        arrays = [guarded(inputs[name]) for name in self.graph.input_types]
        types = [t.bind(bindings) for t in self.graph.output_types.values()]
        results = [guarded(np.zeros(t.static_shape(), t.dtype)) for t in types]
        arena, memory = aligned(size), aligned(self.library.kc_pool_bytes(threads))
        pool = self.library.kc_pool_create(address(memory), threads)
        done = self.library.kc_run(
            pointers(arrays),
            pointers(results),
            address(self.weights),
            address(arena),
            address(symbols),
            ctypes.c_void_p(pool),
        )
        self.library.kc_pool_destroy(ctypes.c_void_p(pool))
        assert done == 0
        for name, array in zip(self.graph.input_types, arrays, strict=True):
            np.testing.assert_array_equal(array, inputs[name])
        assert self.weights[: len(self.compiled.weights)].tobytes() == self.compiled.weights
        return {name: result.copy() for name, result in zip(self.graph.output_names, results, strict=True)}


def address(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def pointers(arrays: list[Array]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * (len(arrays) + 1))(*[array.ctypes.data for array in arrays])
