"""The first layers of an image or a sequence band by band, so that no intermediate result is whole at any time.

Rows are the extents along axis 1, of a batch of one. Every row of a convolution or a pooling depends on a few rows of
what it reads, so a band of the last result depends on a band of each one before it, which is a little higher: rows at
the borders are computed for both neighbours. This is patch-based inference (Lin et al., MCUNetV2: Memory-efficient
Patch-based Inference for Tiny Deep Learning, 2021, https://arxiv.org/abs/2110.15352) along one axis, where all parts
are contiguous in memory.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from kcompile.ir.graph import Builder, Graph, Node, Value, substitute
from kcompile.ir.op import Elementwise, Op
from kcompile.ir.ops import (
    AvgPool,
    Concat,
    Constant,
    Conv,
    Dense,
    LayerNorm,
    MaxPool,
    Pad,
    Slice,
    Softmax,
)
from kcompile.ir.ops.conv import explicit_padding

NOTE = "in_bands"

# From one row to before another.
Rows: TypeAlias = tuple[int, int]
# An op that computes some rows of its result, and which rows of each operand it then reads; None is all of it.
Banded: TypeAlias = tuple[Op, list[Rows | None]]


@dataclass(frozen=True)
class Region:
    """Nodes between the graph's inputs and `result`, which alone of their results is read by others."""

    result: Value
    nodes: tuple[Node, ...]

    @property
    def height(self) -> int:
        """The rows of the result."""
        return rows_of(self.result)


@dataclass(frozen=True)
class Band:
    """Some rows of a region's result: the rows of every value that they need, and each node's op for them."""

    rows: Mapping[Value, Rows]
    ops: Mapping[Node, Banded]


def rows_of(value: Value) -> int:
    """The extent along axis 1, which is known."""
    extent = value.type.shape[1]
    assert isinstance(extent, int)
    return extent


def regions(graph: Graph) -> list[Region]:
    """The regions of `graph` that can be computed in bands, the shortest first."""
    nodes = [node for node in graph.nodes if not isinstance(node.op, Constant)]
    readers: dict[Value, int] = {}
    for i, node in enumerate(nodes):
        for value in node.inputs:
            readers[value] = readers.get(value, 0) | 1 << i
    for value in graph.outputs:
        readers[value] = readers.get(value, 0) | 1 << len(nodes)
    above: dict[Value, int] = dict.fromkeys(graph.inputs, 0)
    found: list[Region] = []
    for i, node in enumerate(nodes):
        known = [above.get(value) for value in node.inputs if value.constant is None]
        if not known or any(mask is None for mask in known) or not _bandable(node):
            continue
        mask = 1 << i
        for each in known:
            mask |= each or 0
        above[node.outputs[0]] = mask
        inner = [other for j, other in enumerate(nodes[:i]) if mask >> j & 1]
        if all(readers[other.outputs[0]] & ~mask == 0 for other in inner):
            found.append(Region(node.outputs[0], (*inner, node)))
    return found


def bands(region: Region, height: int) -> list[Band] | None:
    """The bands of `height` rows of the region's result, the last one of what is left; None if some cannot be."""
    starts = range(0, region.height, height)
    found = [band(region, (start, min(start + height, region.height))) for start in starts]
    known = [each for each in found if each]
    return known if len(known) == len(found) else None


def band(region: Region, rows: Rows) -> Band | None:
    """What `rows` of the region's result need; None if a window of theirs lies in padding alone."""
    wanted: dict[Value, Rows] = {region.result: rows}
    made: dict[Node, Banded] = {}
    for node in reversed(region.nodes):
        found = _banded(node, wanted[node.outputs[0]])
        if found is None:
            return None
        made[node] = found
        for value, need in zip(node.inputs, found[1], strict=True):
            if need and value.constant is None:
                known = wanted.get(value, need)
                wanted[value] = (min(known[0], need[0]), max(known[1], need[1]))
    return Band(wanted, made)


def in_bands(graph: Graph, region: Region, parts: Sequence[Band]) -> Graph:
    """`graph` with the region's result joined from its bands, which are computed one after another."""
    b = Builder(graph.name)
    cut = _Cuts(b)
    joined = [_emit(b, region, part, cut) for part in parts]
    producer = region.nodes[-1]
    with b.at(producer.source):
        whole = b(Concat(1), *joined) if len(joined) > 1 else joined[0]
    return substitute(graph, {region.result: whole}).with_note(NOTE)


def _emit(b: Builder, region: Region, part: Band, cut: "_Cuts") -> Value:
    values: dict[Value, Value] = {}
    for node in region.nodes:
        op, needs = part.ops[node]
        operands: list[Value] = []
        for value, need in zip(node.inputs, needs, strict=True):
            here = values.get(value, value)
            first = part.rows[value][0] if value in values else 0
            axis = 1 - (node.outputs[0].type.rank - value.type.rank)
            operands.append(cut(here, axis, (need[0] - first, need[1] - first)) if need else here)
        with b.at(node.source):
            values[node.outputs[0]] = b(op, *operands)
    return values[region.result]


class _Cuts:
    """Rows of values; of constants, each once."""

    def __init__(self, b: Builder) -> None:
        self._b = b
        self._constants: dict[tuple[Value, Rows], Value] = {}

    def __call__(self, value: Value, axis: int, rows: Rows) -> Value:
        if rows == (0, value.type.shape[axis]):
            return value
        array = value.constant
        if array is None:
            return self._b(Slice(axis, *rows), value)
        if (value, rows) not in self._constants:
            index = (*[slice(None)] * axis, slice(*rows))
            self._constants[value, rows] = self._b.constant(array[index])
        return self._constants[value, rows]


# ---- what each op needs


def _bandable(node: Node) -> bool:
    """Whether the rows of a node's result can be computed by themselves."""
    shape = node.outputs[0].type.shape
    known = all(value.type.is_static for value in (*node.inputs, *node.outputs))
    if not known or len(node.outputs) != 1 or len(shape) < 3 or shape[0] != 1:
        return False
    return _banded(node, (0, rows_of(node.outputs[0]))) is not None


def _banded(node: Node, rows: Rows) -> Banded | None:
    """The op for `rows` of the result of `node`; None if it has no such op."""
    rule = next((rule for kinds, rule in _RULES if isinstance(node.op, kinds)), None)
    return rule(node, rows) if rule else None


def _elementwise(node: Node, rows: Rows) -> Banded | None:
    result = node.outputs[0].type
    needs: list[Rows | None] = []
    for value in node.inputs:
        axis = 1 - (result.rank - value.type.rank)
        stretched = axis < 0 or value.type.shape[axis] == 1
        if stretched and value.constant is None and rows_of(node.outputs[0]) != 1:
            return None
        needs.append(None if stretched else rows)
    return node.op, needs


def _windows(size: int, step: int, rate: int, pads: Rows, extent: int, rows: Rows) -> tuple[Rows, Rows] | None:
    """The rows under the windows of `rows`, and the padding before and after them that these windows see."""
    start = rows[0] * step - pads[0]
    stop = (rows[1] - 1) * step - pads[0] + (size - 1) * rate + 1
    inside = max(start, 0), min(stop, extent)
    return (inside, (inside[0] - start, stop - inside[1])) if inside[0] < inside[1] else None


def _conv(node: Node, rows: Rows) -> Banded | None:
    op, x, kernel = node.op, node.inputs[0], node.inputs[1]
    assert isinstance(op, Conv)
    if op.data_format != "channels_last" or any(value.constant is None for value in node.inputs[1:]):
        return None
    window = kernel.type.static_shape()[:-2]
    spatial = x.type.static_shape()[1:-1]
    first, *others = explicit_padding(op.padding, spatial, window, op.strides, op.rates)
    found = _windows(window[0], op.strides[0], op.rates[0], first, spatial[0], rows)
    if found is None:
        return None
    return replace(op, padding=_padding((found[1], *others))), [found[0], *[None] * (len(node.inputs) - 1)]


def _pool(node: Node, rows: Rows) -> Banded | None:
    op, x = node.op, node.inputs[0]
    assert isinstance(op, MaxPool | AvgPool)
    if op.data_format != "channels_last":
        return None
    spatial = x.type.static_shape()[1:-1]
    first, *others = explicit_padding(op.padding, spatial, op.pool_size, op.strides, (1,) * len(spatial))
    found = _windows(op.pool_size[0], op.strides[0], 1, first, spatial[0], rows)
    return found and (replace(op, padding=_padding((found[1], *others))), [found[0]])


def _padding(pairs: tuple[Rows, ...]) -> Any:
    return pairs if any(map(any, pairs)) else "valid"


def _first_only(node: Node, rows: Rows) -> Banded | None:
    """What is computed with lies behind axis 1."""
    known = all(value.constant is not None for value in node.inputs[1:])
    return (node.op, [rows, *[None] * (len(node.inputs) - 1)]) if known else None


def _normalized(node: Node, rows: Rows) -> Banded | None:
    op, x = node.op, node.inputs[0]
    assert isinstance(op, LayerNorm)
    return _first_only(node, rows) if node.inputs[1].type.rank < x.type.rank - 1 else None


def _other_axis(node: Node, rows: Rows) -> Banded | None:
    op: Any = node.op
    return (op, [rows] * len(node.inputs)) if op.axis % node.outputs[0].type.rank > 1 else None


def _pad(node: Node, rows: Rows) -> Banded | None:
    op = node.op
    assert isinstance(op, Pad)
    if op.mode != "constant" or op.low[0] or op.high[0]:
        return None
    found = _windows(1, 1, 1, (op.low[1], op.high[1]), rows_of(node.inputs[0]), rows)
    if found is None:
        return None
    low, high = ((op.low[0], found[1][0], *op.low[2:]), (op.high[0], found[1][1], *op.high[2:]))
    return replace(op, low=low, high=high), [found[0]]


_RULES: Iterable[tuple[Any, Callable[[Node, Rows], Banded | None]]] = (
    (Elementwise, _elementwise),
    (Conv, _conv),
    (MaxPool | AvgPool, _pool),
    (Dense, _first_only),
    (LayerNorm, _normalized),
    (Softmax | Concat | Slice, _other_axis),
    (Pad, _pad),
)
