"""Ops that run along one axis: the place of an extreme, running sums, sorting.

``x: T[outer, extent, inner]``: where inner is more than 1, neighbours beside the axis are the lanes of a vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kcompile.codegen.tvm.expr import Expr, Index, constant, index, is_nan, select
from kcompile.codegen.tvm.kernels.reduction import WidePointer, lanes_of, neutral, shared_blocks
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel, split
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node, Value

# Bits of an extent.
_BITS = 31


@dataclass(frozen=True)
class Lines:
    """An array cut along one axis."""

    dtype: str
    outer: Dim
    extent: Dim
    inner: Dim

    @classmethod
    def of(cls, x: Value, axis: int) -> "Lines":
        """The lines of `x` along `axis`; truth values are bytes."""
        shape, axis = x.type.shape, axis % x.type.rank
        dtype = "uint8" if x.type.dtype == "bool" else x.type.dtype
        return cls(dtype, dims.mul(*shape[:axis]), shape[axis], dims.mul(*shape[axis + 1 :]))

    def bundles(self, f: Function) -> Iterator[tuple[Index, Index, int]]:
        """``(outer number, inner number, lanes)`` of lines that are handled together, shared by the threads."""
        outer, inner = f.extent(self.outer), f.extent(self.inner)
        lanes = lanes_of(f, self.dtype)
        for (row,), column, width in shared_blocks(f, [outer], inner, lanes):
            for part in split(width, lanes):
                yield row, f.name_index(column), part
                column = column + part


@dataclass(frozen=True)
class ArgReduce(Kernel, family="arg_reduce"):
    """The first place of the largest or smallest element; not-a-number counts as both. ``y: i32[outer, inner]``."""

    lines: Lines
    which: Literal["max", "min"]

    def build(self, f: Function) -> None:
        x, y = WidePointer(f, "x", self.lines.dtype), f.pointer("y", "int32")
        extent, inner = f.extent(self.lines.extent), f.extent(self.lines.inner)
        for row, column, lanes in self.lines.bundles(f):
            best, place = f.accumulators(1, lanes, x.wide), f.accumulators(1, lanes, "int32")
            best[0] = constant(neutral(self.which, x.wide), x.wide)
            place[0] = constant(0, "int32")
            with f.loop(extent) as i:
                value, known = x.load((row * extent + i) * inner + column, lanes), best[0]
                better = self._better(value, known)
                place[0] = select(better, index(i).broadcast(lanes), place[0])
                best[0] = select(better, value, known)
            y.store(row * inner + column, place[0])

    def _better(self, value: Expr, known: Expr) -> Expr:
        better = value > known if self.which == "max" else value < known
        return better | (is_nan(value) & ~is_nan(known)) if value.is_float else better


@TVM.register(ops.ArgReduce)
def arg_reduce(plan: Plan, node: Node) -> None:
    """One scan."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, ops.ArgReduce)
    plan.emit(ArgReduce(Lines.of(x, op.axis), op.which), x, node.outputs[0])


@dataclass(frozen=True)
class CumSum(Kernel, family="cumsum"):
    """Running sums; of truth values, whether there was a true one (`either`)."""

    lines: Lines
    either: bool

    def build(self, f: Function) -> None:
        x, y = WidePointer(f, "x", self.lines.dtype), WidePointer(f, "y", self.lines.dtype)
        extent, inner = f.extent(self.lines.extent), f.extent(self.lines.inner)
        for row, column, lanes in self.lines.bundles(f):
            total = f.accumulators(1, lanes, x.wide)
            total[0] = constant(0, x.wide)
            with f.loop(extent) as i:
                place = f.name_index((row * extent + i) * inner + column)
                value = x.load(place, lanes)
                total[0] = total[0] | value if self.either else total[0] + value
                y.store(place, total[0])


@TVM.register(ops.CumSum)
def cumsum(plan: Plan, node: Node) -> None:
    """One scan."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, ops.CumSum)
    plan.emit(CumSum(Lines.of(x, op.axis), x.type.dtype == "bool"), x, node.outputs[0])


@dataclass(frozen=True)
class Sort(Kernel, family="sort"):
    """Batcher's merge exchange (Knuth, The Art of Computer Programming 3, algorithm 5.2.2M): no branch on the data.

    Not-a-number counts as larger than everything.
    """

    lines: Lines
    descending: bool

    def build(self, f: Function) -> None:
        x, y = WidePointer(f, "x", self.lines.dtype), WidePointer(f, "y", self.lines.dtype)
        extent, inner = f.extent(self.lines.extent), f.extent(self.lines.inner)
        for row, column, lanes in self.lines.bundles(f):
            origin = f.name_index(row * f.name_index(extent * inner) + column)
            with f.loop(extent) as i:
                place = f.name_index(origin + i * inner)
                y.store(place, x.load(place, lanes))
            for low, high in self._pairs(f, extent):
                self._exchange(f, y, f.name_index(origin + low * inner), f.name_index(origin + high * inner), lanes)

    def _pairs(self, f: Function, extent: Index) -> Iterator[tuple[Index, Index]]:
        """Which elements are compared; with p halving, each p is followed by distances ``2**k - p`` from large to p."""
        levels = self._levels(f, extent)
        with f.loop(levels) as level:
            p = f.let(constant(1, "int32") << index(levels - 1 - level))
            with f.loop(level + 1) as turn:
                first = index(turn).equals(0)
                distance = f.let(select(first, p, (constant(1, "int32") << index(levels - turn)) - p))
                phase = f.let(select(first, 0, p))
                with f.loop(f.name_index(extent - distance)) as i, f.when((index(i) & p).equals(phase)):
                    yield i, f.name_index(i + distance)

    def _levels(self, f: Function, extent: Index) -> Index:
        """The logarithm of the extent, rounded up."""
        if isinstance(extent, int):
            return max(extent - 1, 0).bit_length()
        total: Index = 0
        for bit in range(_BITS):
            total = f.name_index((extent > 1 << bit).cast("int32") + total)
        return total

    def _exchange(self, f: Function, y: WidePointer, low: Index, high: Index, lanes: int) -> None:
        x0, x1 = y.load(low, lanes), y.load(high, lanes)
        first, second = (x1, x0) if self.descending else (x0, x1)
        swap = first > second
        if first.is_float:
            swap = swap | (is_nan(first) & ~is_nan(second))
        y.store(low, f.let(select(swap, x1, x0)))
        y.store(high, f.let(select(swap, x0, x1)))


@TVM.register(ops.Sort)
def sort(plan: Plan, node: Node) -> None:
    """A network of exchanges for each line."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, ops.Sort)
    plan.emit(Sort(Lines.of(x, op.axis), op.descending), x, node.outputs[0])
