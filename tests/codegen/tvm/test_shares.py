"""How threads share units that cost unequally much, and pairs that have a part in common."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcompile.codegen.tvm.arrays import Pointer
from kcompile.codegen.tvm.expr import Index
from kcompile.codegen.tvm.kernels.shares import Costs, parallel, parallel_regions, parallel_runs, vectors_between
from kcompile.codegen.tvm.kernels.tile import Panels, block
from kcompile.codegen.tvm.tir import Function, Kernel
from tests.codegen.tvm.harness import Array, Compiled

CHANNELS, LANES = 23, 8
PANELS = Panels(3, block(16, LANES), block(5, LANES))


def visit(y: Pointer, i: Index, lanes: int = 1) -> None:
    y.store(i, y.load(i, lanes) + 1)


@dataclass(frozen=True)
class Weighed(Kernel, family="weighed"):
    """``y[unit] += 1`` for N periods of units."""

    many: int
    dear: int
    few: int
    cheap: int

    def build(self, f: Function) -> None:
        y = f.pointer("y", "int32")
        with parallel(f, Costs(f.extent("N"), self.many, self.dear, self.few, self.cheap)) as unit:
            visit(y, unit)


@dataclass(frozen=True)
class Runs(Kernel, family="runs"):
    """``y[i, j] += 1`` for N outer ones."""

    inner: int

    def build(self, f: Function) -> None:
        y = f.pointer("y", "int32")
        with parallel_runs(f, f.extent("N"), self.inner) as (i, first, end), f.loop(end - first) as j:
            visit(y, i * self.inner + first + j)


@dataclass(frozen=True)
class Regions(Kernel, family="regions"):
    """``y[i, row, column] += 1`` for N outer ones of T rows."""

    columns: int

    def build(self, f: Function) -> None:
        y, n, rows = f.pointer("y", "int32"), f.extent("N"), f.extent("T")
        with parallel_regions(f, n, rows, self.columns, Costs(n * rows, self.columns, 1, 0, 1)) as (i, region):
            for column in range(self.columns):
                first, end = region(column)
                with f.loop(end - first) as row:
                    visit(y, (i * rows + first + row) * self.columns + column)


@dataclass(frozen=True)
class Pieces(Kernel, family="pieces"):
    """``y[i, c] += 1`` for N outer ones, in vectors of channels; ``z[i, panel] += 1``."""

    def build(self, f: Function) -> None:
        y, z = f.pointer("y"), f.pointer("z", "int32")
        vectors = len(block(CHANNELS, f.machine.lanes).widths)
        with parallel_runs(f, f.extent("N"), vectors) as (i, *share):
            for c, lanes in vectors_between(f, CHANNELS, *share):
                visit(y, i * CHANNELS + c, lanes)
        with parallel_runs(f, f.extent("N"), PANELS.count) as (i, *share):
            for panel, columns in PANELS.between(f, *share):
                z.store(i * PANELS.count + panel, z.load(i * PANELS.count + panel) + columns.columns)


WEIGHED = tuple(Weighed(*sizes) for sizes in [(1, 3, 1, 1), (4, 2, 4, 1), (22, 4, 22, 3), (7, 3, 0, 1), (0, 2, 5, 3)])
RUNS = tuple(map(Runs, (1, 2, 5)))
REGIONS = tuple(map(Regions, (1, 4)))


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return Compiled([*WEIGHED, *RUNS, *REGIONS, Pieces()])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(WEIGHED), st.integers(0, 5), st.integers(1, 7))
def test_threads_that_weigh_their_units_end_within_one_unit_of_each_other(
    compiled: Compiled, kernel: Weighed, n: int, threads: int
):
    cost = np.tile(np.repeat([kernel.dear, kernel.cheap], [kernel.many, kernel.few]), n)
    fresh = [np.zeros(len(cost), np.int32)]
    shares = [compiled(kernel, [], fresh, {"N": n}, threads, only)[0] for only in range(threads)]
    np.testing.assert_array_equal(sum(shares), 1)
    for share in shares:
        assert np.count_nonzero(np.diff(share, prepend=0, append=0)) in (0, 2)  # neighbours
        assert abs(share @ cost - cost.sum() / threads) <= max(kernel.dear, kernel.cheap)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RUNS), st.integers(0, 9), st.integers(1, 7))
def test_every_pair_is_one_threads(compiled: Compiled, kernel: Runs, n: int, threads: int):
    fresh = [np.zeros((n, kernel.inner), np.int32)]
    shares = [compiled(kernel, [], fresh, {"N": n}, threads, only)[0] for only in range(threads)]
    np.testing.assert_array_equal(sum(shares), 1)
    counts = [int(share.sum()) for share in shares]
    assert max(counts) - min(counts) <= 1


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(REGIONS), st.integers(0, 4), st.integers(0, 5), st.integers(1, 7))
def test_a_region_is_neighbouring_rows_and_parts_of_two_others(
    compiled: Compiled, kernel: Regions, n: int, rows: int, threads: int
):
    fresh = [np.zeros((n, rows, kernel.columns), np.int32)]
    shares = [compiled(kernel, [], fresh, {"N": n, "T": rows}, threads, only)[0] for only in range(threads)]
    np.testing.assert_array_equal(sum(shares), 1)
    for share in shares:
        assert np.count_nonzero(np.diff(share.ravel(), prepend=0, append=0)) in (0, 2)
        assert abs(share.sum() - n * rows * kernel.columns / threads) < 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(1, 7))
def test_channels_and_panels_are_cut_between_vectors_and_panels(compiled: Compiled, n: int, threads: int):
    fresh: list[Array] = [np.zeros((n, CHANNELS), np.float32), np.zeros((n, PANELS.count), np.int32)]
    channels, panels = compiled(Pieces(), [], fresh, {"N": n}, threads)
    np.testing.assert_array_equal(channels, 1)
    np.testing.assert_array_equal(panels, np.tile([16, 16, 16, 5], (n, 1)))
