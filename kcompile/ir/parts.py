"""Large nodes computed in parts of their samples, one part per core.

A sum over samples is the sum of the parts' sums, so its last bits follow the number of cores.
"""

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from kcompile.ir import ops
from kcompile.ir.blas import libraries
from kcompile.ir.graph import Node
from kcompile.ir.op import Arrays, Elementwise, Op
from kcompile.ir.types import Array, TensorType

# Ops whose `write` takes and gives samples along the first axis; operands beyond these many are whole.
BY_SAMPLE: dict[type[Op], int] = {
    ops.AvgPool: 1,
    ops.AvgPoolGradient: 1,
    ops.Conv: 1,
    ops.ConvFilterGradient: 2,
    ops.ConvInputGradient: 1,
    ops.MaxPool: 1,
    ops.MaxPoolGradient: 3,
    ops.WindowedConv: 1,
}

REDUCTIONS = (ops.ReduceMax, ops.ReduceMean, ops.ReduceMin, ops.ReduceProd, ops.ReduceSum)

# Those of `BY_SAMPLE` whose result is the sum over samples.
_SUMS = frozenset[type[Op]]({ops.ConvFilterGradient})

# Handing a part to another thread takes about 30 µs; work below these bounds takes about 200.
_LEAST_ELEMENTS = 1 << 18
_LEAST_MACS = 1 << 22


def cores() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_large(node: Node) -> bool:
    """Whether a node of known extents is worth several threads."""
    elements = max(int(value.type.size) for value in (*node.inputs, *node.outputs))
    macs = node.op.macs(tuple(v.type for v in node.inputs), tuple(v.type for v in node.outputs))
    return cores() > 1 and (elements >= _LEAST_ELEMENTS or int(macs) >= _LEAST_MACS)


def slices(samples: int) -> list[slice]:
    """A share of the samples for each core."""
    count = max(min(cores(), samples), 1)
    bounds = [samples * i // count for i in range(count + 1)]
    return [slice(low, high) for low, high in pairwise(bounds)]


def can_write_parts(node: Node) -> bool:
    """Whether the function that writes a node's result can write the rows of it apart."""
    products = isinstance(node.op, ops.Dense | ops.MatMul) and node.inputs[0].type.rank > 1
    return products or isinstance(node.op, Elementwise) or type(node.op) in BY_SAMPLE or _reduces_rows(node)


def _reduces_rows(node: Node) -> bool:
    rank = node.inputs[0].type.rank if node.inputs else 0
    return isinstance(node.op, REDUCTIONS) and rank > 1 and 0 not in {axis % rank for axis in node.op.axes}


def _cut(node: Node) -> list[bool]:
    """Which operands are cut along their first axis."""
    if isinstance(node.op, REDUCTIONS):
        return [True]
    if type(node.op) in BY_SAMPLE:
        return [number < BY_SAMPLE[type(node.op)] for number in range(len(node.inputs))]
    if isinstance(node.op, ops.Dense | ops.MatMul) and node.inputs[1].type.rank == 2:
        return [True] + [False] * (len(node.inputs) - 1)
    shape = node.outputs[0].type.shape
    return [value.type.rank == len(shape) and value.type.shape[0] == shape[0] for value in node.inputs]


def into_in_parts(into: Callable[..., Any], node: Node) -> Callable[..., Any]:
    """A function that writes to its last argument, for a node that `can_write_parts`, on all cores."""
    cut, type = _cut(node), node.outputs[0].type
    if node.op.__class__ in _SUMS:
        return _summed(into, cut, slices(int(node.inputs[0].type.shape[0])), type)
    chosen = slices(int(type.shape[0]))

    def compute(*arrays: Array) -> None:
        def part(rows: slice) -> None:
            into(*(a[rows] if has_rows else a for a, has_rows in zip(arrays, cut, strict=False)), arrays[-1][rows])

        in_parallel(part, chosen)

    return compute


def recurrent_gradient_in_parts(op: ops.RecurrentGradient) -> Callable[[Arrays], Arrays]:
    """The op's kernel on all cores; of its results those by the weights, numbered as these, are sums over samples."""
    weights = range(1, 3 + op.of.biases)

    def compute(args: Arrays) -> Arrays:
        def part(rows: slice) -> Arrays:
            return op.kernel(tuple(a if number in weights else a[rows] for number, a in enumerate(args)))

        found = zip(*in_parallel(part, slices(len(args[0]))), strict=True)
        return tuple(np.sum(a, axis=0) if number in weights else np.concatenate(a) for number, a in enumerate(found))

    return compute


def _summed(
    into: Callable[..., Any], cut: Sequence[bool], chosen: Sequence[slice], type: TensorType
) -> Callable[..., Any]:
    rest = {rows.start: np.empty(type.static_shape(), type.dtype) for rows in chosen[1:]}

    def compute(*arrays: Array) -> None:
        def part(rows: slice) -> None:
            given = (a[rows] if has_rows else a for a, has_rows in zip(arrays, cut, strict=False))
            into(*given, rest.get(rows.start, arrays[-1]))

        in_parallel(part, chosen)
        for total in rest.values():
            arrays[-1][...] += total

    return compute


def in_parallel(part: Callable[[slice], Any], chosen: Sequence[slice]) -> list[Any]:
    """The results of all parts; the caller's thread computes the first."""
    waiting = [_threads().submit(_quietly, part, rows) for rows in chosen[1:]]
    try:
        first = part(chosen[0])
    finally:
        rest = [future.result() for future in waiting]
    return [first, *rest]


def _quietly(part: Callable[[slice], Any], rows: slice) -> Any:
    with np.errstate(all="ignore"):
        return part(rows)


@contextmanager
def one_thread_products() -> Generator[None]:
    """Matrix products on the calling thread alone: those of a part have a core each already.

    Saying so takes the libraries 10 µs; one that stands inside another is free.
    """
    if _limited.get():
        yield
        return
    token = _limited.set(True)
    try:
        with libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        _limited.reset(token)


_limited = ContextVar("_limited", default=False)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(cores() - 1, 1), thread_name_prefix="kcompile")


if hasattr(os, "register_at_fork"):
    # A fork copies no threads.
    os.register_at_fork(after_in_child=_threads.cache_clear)
