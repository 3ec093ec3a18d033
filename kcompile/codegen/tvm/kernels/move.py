"""Moving elements without computing: strided copies, concatenation, filling.

Elements are moved as integers of their width, so that a kernel serves every dtype of one width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kcompile.codegen.tvm.arrays import Pointer
from kcompile.codegen.tvm.epilogue import strides
from kcompile.codegen.tvm.expr import Expr, Index, constant
from kcompile.codegen.tvm.kernels.copy import Copy
from kcompile.codegen.tvm.kernels.nest import dot, merged, shared_nest, units
from kcompile.codegen.tvm.kernels.reduction import lanes_of
from kcompile.codegen.tvm.kernels.squares import SIDE, shuffled, transposed
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Builder, Node, Value

# Elements that a thread takes at once of one contiguous run.
_BLOCK = 4096
# Elements of a uniform tensor that may be stored with the weights.
_SMALL = 4096


def carrier(itemsize: int) -> str:
    """The integer dtype that carries elements of `itemsize` bytes."""
    return f"int{8 * itemsize}"


@dataclass(frozen=True)
class StridedCopy(Kernel, family="copy_strided"):
    """``y[i, j, …] = x[offset + i * distances[0] + j * distances[1] + …]``; y is dense with `extents`."""

    itemsize: int
    extents: Shape
    distances: Shape
    offset: Dim = 0

    def build(self, f: Function) -> None:
        dtype = carrier(self.itemsize)
        x, y = f.pointer("x", dtype), f.pointer("y", dtype)
        view = _View(f, x, y, self)
        last = view.distances[-1] if view.distances else 1
        if isinstance(last, int) and abs(last) <= 1:
            view.rows(last)
        elif 1 in view.distances:
            view.transposed(view.distances.index(1))
        else:
            view.scattered()


class _View:
    """The copy in as few axes as possible."""

    def __init__(self, f: Function, x: Pointer, y: Pointer, kernel: StridedCopy) -> None:
        extents, self.distances = merged(kernel.extents, kernel.distances)
        self.f = f
        self.x = x
        self.y = y
        self.extents = [f.extent(e) for e in extents]
        self.from_x = [f.extent(d) for d in self.distances]
        self.to_y = [f.extent(d) for d in strides(extents)]
        self.offset = f.extent(kernel.offset)
        self.lanes = lanes_of(f, x.dtype)

    def rows(self, step: int) -> None:
        """The last axis is contiguous in x, reversed (-1), or one element many times (0)."""
        f = self.f
        extent = self.extents[-1] if self.extents else 1
        if len(self.extents) < 2:
            for start, length in f.parallel_tiles(extent, _BLOCK):
                self._row(self.offset + start * step, start, length, step)
            return
        with shared_nest(f, self.extents[:-1], extent) as position:
            source = f.name_index(dot(position, self.from_x[:-1], self.offset))
            self._row(source, f.name_index(dot(position, self.to_y[:-1])), extent, step)

    def _row(self, source: Index, target: Index, extent: Index, step: int) -> None:
        single = self.x.load(source) if step == 0 and extent != 0 else None
        for i, width in self.f.vectors(extent, self.lanes):
            if single:
                self.y.store(target + i, single.broadcast(width))
            elif step == 1:
                self.y.store(target + i, self.x.load(source + i, width))
            else:
                backwards = self.x.load(source - i - (width - 1), width)
                self.y.store(target + i, shuffled([backwards], list(range(width))[::-1]))

    def transposed(self, along: int) -> None:
        """Axis `along` is contiguous in x, the last one in y."""
        f, last = self.f, len(self.extents) - 1
        others = [axis for axis in range(last) if axis != along]
        side = min(SIDE, self.lanes)
        extent = self.extents[along]
        full = f.name_index(extent // side)
        with units(f, [*(self.extents[axis] for axis in others), full]) as (*position, block):
            source, target = self._origin(others, position)
            begin = f.name_index(block * side)
            source, target = f.name_index(source + begin), f.name_index(target + begin * self.to_y[along])
            for i, width in f.tiles(self.extents[last], side):
                column = [self.x.load(source + (i + j) * self.from_x[last], side) for j in range(width)]
                if width == side:
                    for j, row in enumerate(transposed(f, column)):
                        self.y.store(target + j * self.to_y[along] + i, row)
                else:
                    self._store_lanes(column, target + i, self.to_y[along])
        rest = f.name_index(extent - full * side)
        if rest != 0:
            with units(f, [*(self.extents[axis] for axis in others), rest]) as (*position, i):
                source, target = self._origin(others, position)
                i = f.name_index(full * side + i)
                source, target = f.name_index(source + i), f.name_index(target + i * self.to_y[along])
                with f.loop(self.extents[last]) as j:
                    self.y.store(target + j, self.x.load(source + j * self.from_x[last]))

    def _origin(self, axes: Sequence[int], position: Sequence[Index]) -> tuple[Index, Index]:
        source = dot(position, [self.from_x[axis] for axis in axes], self.offset)
        return source, dot(position, [self.to_y[axis] for axis in axes])

    def _store_lanes(self, column: Sequence[Expr], target: Index, distance: Index) -> None:
        for j, vector in enumerate(column):
            for lane in range(vector.lanes):
                self.y.store(target + lane * distance + j, vector.lane(lane))

    def scattered(self) -> None:
        """No axis is contiguous in x."""
        with shared_nest(self.f, self.extents) as position:
            value = self.x.load(self.f.name_index(dot(position, self.from_x, self.offset)))
            self.y.store(dot(position, self.to_y), value)


def whole_rows(plan: Plan, x: Value, axis: int) -> bool:
    """Whether neighbours along `axis` are parts of x that follow each other in memory, at places that are known."""
    known = all(isinstance(extent, int) for extent in x.type.shape)
    return known and set(x.type.shape[:axis]) <= {1} and not plan.machine.threaded and plan.root(x)[0].constant is None


@TVM.register(ops.Transpose)
def transpose(plan: Plan, node: Node) -> None:
    """Extents of 1 and axes that stay together are merged; nothing moves where only those change places."""
    op, x, y = node.op, node.inputs[0], node.outputs[0]
    assert isinstance(op, ops.Transpose)
    distances = strides(x.type.shape)
    moved = [axis for axis in op.perm if x.type.shape[axis] != 1]
    if moved == sorted(moved):
        plan.alias(y, x)
    else:
        plan.emit(StridedCopy(x.type.itemsize, y.type.shape, tuple(distances[axis] for axis in op.perm)), x, y)


@TVM.register(ops.Slice)
def slice_(plan: Plan, node: Node) -> None:
    """A view with an offset and, along the axis, a longer stride; a copy of what stands together may be left out."""
    op, x, y = node.op, node.inputs[0], node.outputs[0]
    assert isinstance(op, ops.Slice)
    distances, axis = strides(x.type.shape), op.axis % x.type.rank
    offset = dims.mul(op.start, distances[axis])
    if op.step == 1 and isinstance(offset, int) and whole_rows(plan, x, axis):
        part = Value(y.type)
        plan.alias(part, x, offset * x.type.itemsize)
        plan.emit(Copy(x.type.dtype, y.type.size), part, y)
        return
    distances[axis] = dims.mul(distances[axis], op.step)
    plan.emit(StridedCopy(x.type.itemsize, y.type.shape, tuple(distances), offset), x, y)


@TVM.register(ops.ExpectExtent)
def expect_extent(plan: Plan, node: Node) -> None:
    """Nothing moves: whether extents are what they must be is asked before a run."""
    plan.alias(node.outputs[0], node.inputs[0])


@TVM.register(ops.Reverse)
def reverse(plan: Plan, node: Node) -> None:
    """A view from the last element backwards."""
    op, x, y = node.op, node.inputs[0], node.outputs[0]
    assert isinstance(op, ops.Reverse)
    distances, offset = strides(x.type.shape), 0
    for axis in {axis % x.type.rank for axis in op.axes}:
        offset = dims.add(offset, dims.mul(dims.sub(x.type.shape[axis], 1), distances[axis]))
        distances[axis] = dims.mul(distances[axis], -1)
    plan.emit(StridedCopy(x.type.itemsize, y.type.shape, tuple(distances), offset), x, y)


@TVM.register(ops.Tile)
def tile(plan: Plan, node: Node) -> None:
    """Each axis is two: the copies, at distance 0, and the axis itself."""
    op, x, y = node.op, node.inputs[0], node.outputs[0]
    assert isinstance(op, ops.Tile)
    distances = strides(x.type.shape)
    extents = tuple(extent for pair in zip(op.repeats, x.type.shape, strict=True) for extent in pair)
    paired = tuple(distance for own in distances for distance in (0, own))
    plan.emit(StridedCopy(x.type.itemsize, extents, paired), x, y)


@TVM.register(ops.BroadcastTo)
def broadcast_to(plan: Plan, node: Node) -> None:
    """Stretched axes have distance 0."""
    op, x, y = node.op, node.inputs[0], node.outputs[0]
    assert isinstance(op, ops.BroadcastTo)
    shape = (1,) * (y.type.rank - x.type.rank) + x.type.shape
    distances = tuple(0 if own == 1 else distance for own, distance in zip(shape, strides(shape), strict=True))
    plan.emit(StridedCopy(x.type.itemsize, y.type.shape, distances), x, y)


@dataclass(frozen=True)
class Concat(Kernel, family="concat"):
    """Rows of the operands one after another: ``x0[outer, inners[0]], x1[outer, inners[1]], … -> y[outer, sum]``."""

    itemsize: int
    outer: Dim
    inners: Shape

    def build(self, f: Function) -> None:
        dtype = carrier(self.itemsize)
        operands = [f.pointer(f"x{i}", dtype) for i in range(len(self.inners))]
        y = f.pointer("y", dtype)
        inners, width = [f.extent(dim) for dim in self.inners], f.extent(dims.add(*self.inners))
        starts = [f.extent(dims.add(*self.inners[:i])) for i in range(len(inners))]
        lanes = lanes_of(f, dtype)
        if self.outer == 1:
            for x, inner, start in zip(operands, inners, starts, strict=True):
                for begin, length in f.parallel_tiles(inner, _BLOCK):
                    for i, part in f.vectors(length, lanes):
                        y.store(start + begin + i, x.load(begin + i, part))
            return
        with f.parallel(f.extent(self.outer)) as row:
            for x, inner, start in zip(operands, inners, starts, strict=True):
                source, target = f.name_index(row * inner), f.name_index(row * width + start)
                for i, part in f.vectors(inner, lanes):
                    y.store(target + i, x.load(source + i, part))


@TVM.register(ops.Concat)
def concat(plan: Plan, node: Node) -> None:
    """The axes before the concatenated one are rows; it and the axes behind it are one row.

    A single row is made of its parts one by one, by copies that may be left out.
    """
    op, y = node.op, node.outputs[0]
    assert isinstance(op, ops.Concat)
    axis = op.axis % y.type.rank
    if whole_rows(plan, y, axis):
        offset = 0
        for x in node.inputs:
            part = Value(x.type)
            plan.alias(part, y, offset)
            plan.emit(Copy(x.type.dtype, x.type.size), x, part)
            offset += int(x.type.size) * x.type.itemsize
        return
    inners = tuple(dims.mul(*x.type.shape[axis:]) for x in node.inputs)
    plan.emit(Concat(y.type.itemsize, dims.mul(*y.type.shape[:axis]), inners), *node.inputs, y)


@dataclass(frozen=True)
class Fill(Kernel, family="fill"):
    """``y = value`` in all `size` elements; `value` holds the element's bits."""

    itemsize: int
    size: Dim
    value: int

    def build(self, f: Function) -> None:
        dtype = carrier(self.itemsize)
        y = f.pointer("y", dtype)
        for start, length in f.parallel_tiles(f.extent(self.size), _BLOCK):
            for i, width in f.vectors(length, lanes_of(f, dtype)):
                y.store(start + i, constant(self.value, dtype, width))


def bits_of(value: float, dtype: str) -> int:
    """The bits of `value` in `dtype`, as a signed integer of its width."""
    element = np.asarray(value, dtype)
    return int(element.view(carrier(element.itemsize)))


@TVM.register(ops.Full)
def full(plan: Plan, node: Node) -> None:
    """A small one of known extents lies among the weights; others are written in every call."""
    op, y = node.op, node.outputs[0]
    assert isinstance(op, ops.Full)
    if isinstance(y.type.size, int) and y.type.size <= _SMALL:
        plan.alias(y, Builder().constant(op.kernel(())[0]))
    else:
        plan.emit(Fill(y.type.itemsize, y.type.size, bits_of(op.value, op.dtype)), y)
