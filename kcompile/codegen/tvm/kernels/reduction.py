"""Reducing terms, which a kernel computes from an offset, over nested axes: into lanes or across them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np

from kcompile.codegen.tvm.arrays import Accumulators
from kcompile.codegen.tvm.expr import Expr, Index, constant, index_min, maximum, minimum
from kcompile.codegen.tvm.kernels.nest import dot, product, units, whole_or_rest
from kcompile.codegen.tvm.tir import Function, split
from kcompile.errors import UnsupportedOp
from kcompile.ir.graph import Node

Reducer: TypeAlias = Literal["sum", "max", "min", "prod"]
Axes: TypeAlias = Sequence[tuple[Index, Index]]
_Leaf: TypeAlias = Callable[[Index, Sequence[Accumulators]], None]

# Vectors that one reduction holds in registers, so that additions need not wait for each other.
VECTORS = 4
# Terms that are added to one accumulator before it is added to the total: rounding errors grow with the number of
# chunks plus this, not with the number of terms.
_CHUNK = 256

_COMBINE: dict[Reducer, Callable[[Expr, Expr], Expr]] = {
    "sum": lambda x, y: x + y,
    "prod": lambda x, y: x * y,
    "max": maximum,
    "min": minimum,
}


def lanes_of(f: Function, dtype: str) -> int:
    """Elements of `dtype` in a vector register; of float16, as many as of float32."""
    size = 4 if dtype == "float16" else np.dtype(dtype).itemsize
    return max(1, f.machine.lanes * 4 // size)


def neutral(kind: Reducer, dtype: str) -> float:
    """What a reduction of nothing gives."""
    if kind in ("sum", "prod"):
        return 0 if kind == "sum" else 1
    if dtype.startswith("float"):
        return -np.inf if kind == "max" else np.inf
    bounds = np.iinfo(dtype)
    return int(bounds.min if kind == "max" else bounds.max)


class WidePointer:
    """The next pointer parameter, whose float16 elements are computed with as float32 (the dtype `wide`)."""

    def __init__(self, f: Function, name: str, dtype: str) -> None:
        self._f = f
        self._pointer = f.pointer(name, dtype)
        self.dtype = dtype
        self.wide = "float32" if dtype == "float16" else dtype

    def load(self, offset: Index, lanes: int = 1) -> Expr:
        """`lanes` neighbouring elements from `offset` on."""
        return self._f.let(self._pointer.load(offset, lanes).cast(self.wide))

    def store(self, offset: Index, value: Expr) -> None:
        """Write `value` from `offset` on."""
        self._pointer.store(offset, value.cast(self.dtype))


class Reduction:
    """``kind of term(offset)`` over all places of `axes`, which are ``(extent, stride)``, outer ones first.

    `term` takes an offset and a number of lanes, and gives a vector of `dtype`; it runs once per element.
    """

    def __init__(self, f: Function, kind: Reducer, dtype: str, axes: Axes, term: Callable[[Index, int], Expr]) -> None:
        self._f = f
        self._kind: Reducer = kind
        self._dtype = dtype
        self._axes = axes
        self._term = term
        self._widths: list[int] = []

    def across(self, offset: Index, widths: Sequence[int]) -> list[Expr]:
        """The results for neighbouring elements from `offset` on, as vectors of `widths`."""
        self._widths = list(widths)
        starts = [sum(widths[:i]) for i in range(len(widths))]

        def add(place: Index, registers: Sequence[Accumulators]) -> None:
            for register, start, width in zip(registers, starts, widths, strict=True):
                self._add(register, place + start, width)

        totals = self._registers()
        self._run(self._axes, offset, totals, add)
        return [total[0] for total in totals]

    def along(self, offset: Index) -> Expr:
        """The result, a number, where the last axis is contiguous."""
        outer, (extent, _) = self._axes[:-1], self._axes[-1] if self._axes else (1, 1)
        lanes = lanes_of(self._f, self._dtype)
        most = 1 if self._f.machine.compact else VECTORS
        parts = min(most, extent // lanes) if isinstance(extent, int) else most
        step = parts * lanes
        rest = split(extent % step if step else extent, lanes) if isinstance(extent, int) else [1]
        self._widths = [lanes] * parts + sorted({w for w in rest if w < lanes}, reverse=True)

        def add(place: Index, registers: Sequence[Accumulators]) -> None:
            for i in range(parts):
                self._add(registers[i], place + i * lanes, lanes)

        def row(place: Index, registers: Sequence[Accumulators]) -> None:
            count = self._f.name_index(extent // step) if step else 0
            if count != 0:
                self._run([(count, step)], place, registers, add)
            if isinstance(extent, int):
                self._rest(place + (extent - sum(rest)), rest, registers)
            else:
                self._open_rest(place + count * step, extent % step, registers)

        totals = self._registers()
        self._run(outer, offset, totals, row, extent // step if step else 1)
        return fold(self._f, self._kind, [total[0] for total in totals])

    def _rest(self, place: Index, rest: Sequence[int], registers: Sequence[Accumulators]) -> None:
        for i, width in enumerate(rest):
            self._add(registers[self._widths.index(width)], place + sum(rest[:i]), width)

    def _open_rest(self, place: Index, count: Expr, registers: Sequence[Accumulators]) -> None:
        count, lanes = self._f.let(count), self._widths[0]
        vectors = self._f.let(count // lanes)
        with self._f.loop(vectors) as i:
            self._add(registers[0], place + i * lanes, lanes)
        done = self._f.let(vectors * lanes)
        with self._f.loop(count - done) as i:
            self._add(registers[-1], place + done + i, 1)

    def _run(self, axes: Axes, offset: Index, totals: Sequence[Accumulators], leaf: _Leaf, terms: Index = 1) -> None:
        """`leaf` at every place of `axes`; each does `terms` additions to an accumulator."""
        if not axes:
            leaf(offset, totals)
            return
        (extent, stride), rest = axes[0], axes[1:]

        def step(i: Index, registers: Sequence[Accumulators]) -> None:
            self._run(rest, self._f.name_index(dot([i], [stride], offset)), registers, leaf, terms)

        inner = product([terms, *(e for e, _ in rest)])
        chunk = _CHUNK // max(inner, 1) if isinstance(inner, int) else 0
        rounds = self._kind == "sum" and self._dtype.startswith("float")
        if not rounds or chunk == 0 or (isinstance(extent, int) and extent <= chunk):
            with self._f.loop(extent) as i:
                step(i, totals)
        else:
            self._run_in_chunks(extent, chunk, totals, step)

    def _run_in_chunks(self, extent: Index, chunk: int, totals: Sequence[Accumulators], step: _Leaf) -> None:
        with self._f.loop((extent + (chunk - 1)) // chunk) as c:
            partial = self._registers()
            begin = self._f.name_index(c * chunk)
            with self._f.loop(self._f.name_index(index_min(extent - begin, chunk))) as i:
                step(begin + i, partial)
            for total, part in zip(totals, partial, strict=True):
                self._combine(total, part[0])

    def _registers(self) -> list[Accumulators]:
        registers = [self._f.accumulators(1, width, self._dtype) for width in self._widths]
        for register in registers:
            register[0] = constant(neutral(self._kind, self._dtype), self._dtype)
        return registers

    def _add(self, register: Accumulators, offset: Index, width: int) -> None:
        self._combine(register, self._term(offset, width))

    def _combine(self, register: Accumulators, value: Expr) -> None:
        if self._kind == "sum":
            register.add(0, value)
        else:
            register[0] = _COMBINE[self._kind](register[0], self._f.let(value))


def fold(f: Function, kind: Reducer, vectors: Sequence[Expr]) -> Expr:
    """All lanes of `vectors`, whose widths are falling powers of two, combined to one number."""
    value, rest = vectors[0], list(vectors[1:])
    while True:
        while rest and rest[0].lanes == value.lanes:
            value = f.let(_COMBINE[kind](value, rest.pop(0)))
        if value.lanes == 1:
            return value
        half = value.lanes // 2
        value = f.let(_COMBINE[kind](value.slice(0, half), value.slice(half, half)))


def shared_blocks(
    f: Function, outer: Sequence[Index], columns: Index, lanes: int
) -> Iterator[tuple[list[Index], Index, int]]:
    """``(position, start, width)`` of blocks of neighbouring columns at each position of `outer`, for threads to share.

    The body is written once for full blocks and once for those of the rest.
    """
    if not isinstance(columns, int):
        count = f.name_index(columns // lanes)
        for start, blocks, width in ((0, count, lanes), (count * lanes, columns - count * lanes, 1)):
            with units(f, [*outer, blocks]) as (*position, block):
                yield position, f.name_index(start + block * width), width
        return
    size = lanes * _vectors(-(-columns // lanes), f)
    with units(f, [*outer, -(-columns // size)]) as (*position, block):
        for width in whole_or_rest(f, block, columns, size):
            yield position, block * size, width


def _vectors(count: int, f: Function) -> int:
    """Vectors per block where there are `count`: of enough to be fast, those that two threads share best."""
    if not f.shared:
        return 1 if f.machine.compact else VECTORS
    choices = range(VECTORS, 1, -1) if count > 2 else [1]
    return min(choices, key=lambda size: -(-count // size // 2) * size)


def require_float(node: Node) -> None:
    """Refuse a node whose polynomials are for float32 (and float16, which is computed as such).

    Raises:
        UnsupportedOp: the first operand has another dtype.
    """
    if node.inputs[0].type.dtype not in ("float32", "float16"):
        raise UnsupportedOp(
            f"target 'tvm' computes `{node.op.op_name}` in float32. "
            f"Received: {node.inputs[0].type} at {node.source or 'the graph itself'}."
        )
