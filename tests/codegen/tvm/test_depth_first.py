"""First layers in bands: about half the workspace or what the limit allows, and the very same numbers."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest

from kcompile.codegen.library.backend import fixed
from kcompile.codegen.tvm.depth_first import depth_first
from kcompile.codegen.tvm.library import Function, compile_library
from kcompile.codegen.tvm.lower import lower, workspace
from kcompile.codegen.tvm.targets import MACHINES, Machine, host
from kcompile.ir.graph import Graph
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.pipeline import inference
from kcompile.ir.types import Array
from tests.codegen.tvm.harness import guarded, load_library
from tests.edge.models import build

M7 = MACHINES["cortex-m7"]
# One float at a time, as on a small machine, but on this one.
SCALAR = replace(host(), threaded=False, alignment=8, lanes=1, registers=24)


def graph_of(name: str) -> Graph:
    return inference(fixed(build(name).trace(), "c"))


def run(graph: Graph, machine: Machine, x: Array) -> Array:
    """The result, from memory of just the stated size."""
    made = compile_library(Function(fuse(graph), "m_run", 1, 1), None, machine)
    assert made.shared
    y = np.zeros([int(dim) for dim in graph.outputs[0].type.shape], np.float32)
    arrays, memory = (guarded(x), y), guarded(np.full(made.workspace, 0xFF, np.uint8))
    pointers = [ctypes.pointer(ctypes.c_void_p(array.ctypes.data)) for array in arrays]
    assert load_library(made.shared).m_run(*pointers, ctypes.c_void_p(memory.ctypes.data)) == 0
    return y


@pytest.mark.parametrize("name", ["vgg", "mobilenet"])
def test_bands_halve_the_workspace_and_change_no_bit(name: str):
    graph = graph_of(name)
    banded, bands = depth_first(graph, M7)
    assert bands
    assert bands.workspace_without == workspace(fuse(graph), M7)
    assert workspace(fuse(banded), M7) <= 0.6 * bands.workspace_without
    x = np.random.default_rng(1).standard_normal([int(dim) for dim in graph.inputs[0].type.shape], np.float32)
    np.testing.assert_array_equal(run(banded, SCALAR, x), run(graph, SCALAR, x))


def test_bands_between_the_first_and_the_last_share_their_functions():
    graph = graph_of("vgg")
    banded, bands = depth_first(graph, M7)
    assert bands
    without, with_bands = (lower(fuse(each), M7, "m") for each in (graph, banded))
    assert len(with_bands.functions) <= len(without.functions) + 2 * bands.count
    assert len(with_bands.calls) > len(with_bands.functions)


def test_small_models_stay_as_they_are():
    graph = graph_of("mobilenet_block")
    assert depth_first(graph, M7) == (graph, None)


def test_a_limit_asks_for_bands_where_they_save_less():
    graph = graph_of("mobilenet_block")
    whole = workspace(fuse(graph), M7)
    banded, bands = depth_first(graph, M7, whole * 3 // 4)
    assert bands
    assert workspace(fuse(banded), M7) <= whole * 3 // 4


def test_an_unneeded_limit_changes_nothing():
    graph = graph_of("mobilenet_block")
    assert depth_first(graph, M7, 1 << 20) == (graph, None)


def test_where_no_bands_fit_a_limit_the_smallest_are_made():
    graph = graph_of("vgg")
    sizes = [workspace(fuse(depth_first(graph, M7, limit)[0]), M7) for limit in (None, 8192)]
    assert sizes[1] <= sizes[0]


def test_within_a_limit_the_fewest_rows_are_computed_twice():
    graph = graph_of("vgg")
    wide, narrow = (depth_first(graph, M7, limit)[1] for limit in (40_000, 37_000))
    assert wide
    assert narrow
    assert wide.extra_macs < narrow.extra_macs
