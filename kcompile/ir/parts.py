"""Large nodes computed in parts of their samples, one part per core.

A sum over samples is the sum of the parts' sums, so its last bits follow the number of cores.
"""

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from threadpoolctl import ThreadpoolController

from kcompile.ir import ops
from kcompile.ir.graph import Node
from kcompile.ir.op import Arrays, Elementwise, Op
from kcompile.ir.types import Array

# An operand is cut along its first axis, or given whole; results are joined along it, or added.
Operand: TypeAlias = Literal["samples", "whole"]
Result: TypeAlias = Literal["samples", "sum"]


@dataclass(frozen=True)
class Parts:
    """What the parts of a node take and give; operands beyond those named are whole."""

    operands: tuple[Operand, ...] = ("samples",)
    results: tuple[Result, ...] = ("samples",)


_BY_SAMPLE = Parts()
_ALL_SAMPLES = Parts(("samples", "samples", "samples"))

PARTS: dict[type[Op], Parts] = {
    ops.AvgPool: _BY_SAMPLE,
    ops.AvgPoolGradient: _BY_SAMPLE,
    ops.Conv: _BY_SAMPLE,
    ops.ConvFilterGradient: Parts(("samples", "samples"), ("sum",)),
    ops.ConvInputGradient: _BY_SAMPLE,
    ops.MaxPool: _BY_SAMPLE,
    ops.MaxPoolGradient: _ALL_SAMPLES,
}

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


def kernel_in_parts(node: Node) -> Callable[[Arrays], Arrays]:
    """The kernel of a node whose op stands in `PARTS`, on all cores."""
    op, parts = node.op, PARTS[type(node.op)]

    def compute(args: Arrays) -> Arrays:
        def part(chosen: slice) -> Arrays:
            cut = [a[chosen] if how == "samples" else a for a, how in zip(args, parts.operands, strict=False)]
            return op.kernel((*cut, *args[len(cut) :]))

        found = in_parallel(part, slices(args[0].shape[0]))
        return tuple(_joined(how, arrays) for how, arrays in zip(parts.results, zip(*found, strict=True), strict=True))

    return compute


def _joined(how: Result, arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays) if how == "samples" else sum(arrays[1:], arrays[0])


def can_write_parts(node: Node) -> bool:
    """Whether the function that writes a node's result can write the rows of it apart."""
    products = isinstance(node.op, ops.Dense | ops.MatMul) and node.inputs[0].type.rank > 1
    return products or isinstance(node.op, Elementwise)


def into_in_parts(into: Callable[..., Any], node: Node) -> Callable[..., Any]:
    """A function that writes to its last argument, for a node that `can_write_parts`, on all cores."""
    shape = node.outputs[0].type.shape
    cut = [value.type.rank == len(shape) and value.type.shape[0] == shape[0] for value in node.inputs]
    if isinstance(node.op, ops.Dense | ops.MatMul) and node.inputs[1].type.rank == 2:
        cut = [True] + [False] * (len(node.inputs) - 1)
    chosen = slices(int(shape[0]))

    def compute(*arrays: Array) -> None:
        def part(rows: slice) -> None:
            into(*(a[rows] if has_rows else a for a, has_rows in zip(arrays, cut, strict=False)), arrays[-1][rows])

        in_parallel(part, chosen)

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
    """Matrix products on the calling thread alone: those of a part have a core each already."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(cores() - 1, 1), thread_name_prefix="kcompile")


if hasattr(os, "register_at_fork"):
    # A fork copies no threads.
    os.register_at_fork(after_in_child=_threads.cache_clear)
