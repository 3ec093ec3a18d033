"""What a permutation of axes does to ops: the arithmetic of the layout pass.

A value ``v`` "in the form" `perm` is ``transpose(v, perm)``: axis ``i`` of the form is axis ``perm[i]`` of ``v``.
"""

import math
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Node
from kcompile.ir.op import Elementwise, Op
from kcompile.ir.ops import (
    ArgReduce,
    AvgPool,
    BatchNorm,
    BroadcastTo,
    Concat,
    Conv,
    ConvTranspose,
    CumSum,
    Dense,
    ExpectExtent,
    LogSoftmax,
    MaxPool,
    Pad,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    Resize,
    Reverse,
    Slice,
    Softmax,
    Sort,
    Tile,
)
from kcompile.ir.ops.windows import DataFormat
from kcompile.ir.types import Array, TensorType

Perm: TypeAlias = tuple[int, ...]
Spatial = Conv | ConvTranspose | MaxPool | AvgPool | Resize
Reduce = ReduceMax | ReduceMean | ReduceMin | ReduceProd | ReduceSum
_WithAxis = BatchNorm | Softmax | LogSoftmax | CumSum | Sort | Concat | ExpectExtent | Slice | ArgReduce


def identity(rank: int) -> Perm:
    """The permutation that moves nothing."""
    return tuple(range(rank))


def channels_first(rank: int) -> Perm:
    """The form ``[N, C, *spatial]`` of ``[N, *spatial, C]``."""
    return (0, rank - 1, *range(1, rank - 1))


def channels_last(rank: int) -> Perm:
    """The form ``[N, *spatial, C]`` of ``[N, C, *spatial]``."""
    return (0, *range(2, rank), 1)


def swapped(rank: int, target: DataFormat) -> Perm:
    """The form in which a tensor of the other format has the format `target`."""
    return channels_first(rank) if target == "channels_first" else channels_last(rank)


def between(old: Perm, new: Perm) -> Perm:
    """The permutation that makes the form `new` of the form `old`."""
    return tuple(old.index(axis) for axis in new)


def composed(outer: Perm, inner: Perm) -> Perm:
    """The form that a value takes whose transpose by `inner` is in the form `outer`."""
    return tuple(inner[axis] for axis in outer)


def is_free(type: TensorType, old: Perm, new: Perm) -> bool:
    """Whether the two forms have their elements in one order: axes of extent 1 may go anywhere."""
    first, second = ([axis for axis in perm if type.shape[axis] != 1] for perm in (old, new))
    return first == second


def elements(type: TensorType) -> int:
    """The number of elements, where every symbolic factor counts once."""
    return math.prod(dim for dim in type.shape if isinstance(dim, int))


def is_foreign(op: Op | None, target: DataFormat) -> bool:
    """Whether `op` has spatial axes in another format than `target`."""
    return isinstance(op, Spatial) and op.data_format != target


def data_operands(node: Node) -> range:
    """The positions of the operands that take the node's layout; the others are weights."""
    return range(len(node.inputs) if isinstance(node.op, Elementwise | Concat) else 1)


def permuted(node: Node, perm: Perm, target: DataFormat) -> Op | None:
    """The op that gives the result of `node` in a form, for operands in the form `perm`; None where there is none.

    Ops with spatial axes have the format `target`, and no other.
    """
    op, rank = node.op, len(perm)
    if isinstance(op, Spatial):
        fits = perm == (swapped(rank, target) if is_foreign(op, target) else identity(rank))
        return replace(op, data_format=target) if fits else None
    if perm == identity(rank):
        return op
    if isinstance(op, Elementwise):
        return op
    if isinstance(op, _WithAxis):
        return replace(op, axis=perm.index(op.axis % rank))
    if isinstance(op, Reduce | Reverse):
        return replace(op, axes=tuple(sorted(perm.index(axis % rank) for axis in op.axes)))
    if isinstance(op, Pad):
        return replace(op, low=_reordered(op.low, perm), high=_reordered(op.high, perm))
    if isinstance(op, Tile):
        return replace(op, repeats=_reordered(op.repeats, perm))
    if isinstance(op, BroadcastTo) and len(op.shape) == rank:
        return replace(op, shape=tuple(op.shape[axis] for axis in perm))
    is_image = target == "channels_first" and perm == channels_first(rank) and rank > 2
    if is_image and isinstance(op, Dense) and node.inputs[1].constant is not None:
        # A dense layer on a feature map is a convolution with a window of one element.
        return Conv((1,) * (rank - 2), data_format="channels_first")
    return None


def result_form(node: Node, perm: Perm) -> Perm:
    """The form of the result for operands in the form `perm`."""
    op = node.op
    if perm == identity(len(perm)):
        return identity(node.outputs[0].type.rank)
    if isinstance(op, ArgReduce) or (isinstance(op, Reduce) and not op.keepdims):
        axes = op.axes if isinstance(op, Reduce) else (op.axis,)
        gone = {axis % len(perm) for axis in axes}
        kept = [axis for axis in perm if axis not in gone]
        return tuple(sorted(kept).index(axis) for axis in kept)
    return perm


def _reordered(items: tuple[int, ...], perm: Perm) -> tuple[int, ...]:
    return tuple(items[axis] for axis in perm)


def reshaped(source: Shape, target: Shape, perm: Perm) -> Perm | None:
    """The form of a reshape's result whose elements stand as in the form `perm` of its operand; None if there is none.

    The extents of both shapes are matched in groups of equal product; each group of the operand's axes must stay
    together and in order.
    """
    groups = axis_groups(source, target)
    if groups is None:
        return None
    order: list[int] = []
    position = 0
    nontrivial = [axis for axis in perm if source[axis] != 1]
    by_first = {olds[0]: (olds, news) for olds, news in groups if olds}
    while position < len(nontrivial):
        olds, news = by_first.get(nontrivial[position], ((), ()))
        if not olds or tuple(nontrivial[position : position + len(olds)]) != olds:
            return None
        order += news
        position += len(olds)
    ones = [axis for axis in range(len(target)) if target[axis] == 1]
    return _with_ones(order, ones)


def _with_ones(order: list[int], ones: list[int]) -> Perm:
    """`order` with the axes of extent 1 put in: at their own places where the rest is in order, else first."""
    if order == sorted(order):
        return tuple(sorted(order + ones))
    return (*order[:1], *ones, *order[1:])


def axis_groups(source: Shape, target: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Axes of `source` and of `target`, those of extent 1 aside, in the smallest groups of equal products."""
    olds = [axis for axis, dim in enumerate(source) if dim != 1]
    news = [axis for axis, dim in enumerate(target) if dim != 1]
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    while olds and news:
        found = _first_group(source, target, olds, news)
        if found is None:
            return None
        groups.append((tuple(olds[: found[0]]), tuple(news[: found[1]])))
        olds, news = olds[found[0] :], news[found[1] :]
    return None if olds or news else groups


def _first_group(source: Shape, target: Shape, olds: list[int], news: list[int]) -> tuple[int, int] | None:
    products: dict[Dim, int] = {}
    for count in range(1, len(olds) + 1):
        products.setdefault(dims.mul(*(source[axis] for axis in olds[:count])), count)
    for count in range(1, len(news) + 1):
        product = dims.mul(*(target[axis] for axis in news[:count]))
        if product in products:
            return products[product], count
    return None


def flat_order(source: Shape, target: Shape, perm: Perm) -> Array | None:
    """Where a reshape flattens axes into its last: the order in which the elements of the form `perm` stand there.

    The result's element ``order[i]`` along the last axis is element ``i`` of the flattened form. None where the reshape
    is no such flattening, or the form moves other axes too.
    """
    groups = axis_groups(source, target)
    if not groups or groups[-1][1] != (len(target) - 1,):
        return None
    inner = groups[-1][0]
    extents = [source[axis] for axis in inner]
    nontrivial = [axis for axis in perm if source[axis] != 1]
    outside = nontrivial[: len(nontrivial) - len(inner)]
    if outside != sorted(outside) or set(nontrivial[len(outside) :]) != set(inner):
        return None
    sizes = [extent for extent in extents if isinstance(extent, int)]
    if len(sizes) < len(extents):
        return None
    moved = [inner.index(axis) for axis in nontrivial[len(outside) :]]
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(moved).reshape(-1)
