"""Whether the first layers should run band by band, and how high the bands should be.

Regions and heights are compared by an estimate of the memory in use; the best few are planned in full, and what counts
is what they take. Bands cost instructions, since rows at borders are computed twice, and code, since the first and the
last band have other padding than those between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kcompile.codegen.tvm.lower import workspace
from kcompile.codegen.tvm.targets import Machine
from kcompile.ir import ops
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.op import Elementwise
from kcompile.ir.passes.bands import Band, Region, band, bands, in_bands, regions, rows_of
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.layout import to_channels_last

# Bands are made where the workspace falls to this share, and by enough bytes to be worth their code.
_SHARE = 0.6
_WORTH = 16 << 10
# The most multiply-accumulates beyond those of the model, as a share of them: in general, and to stay within a limit;
# and how they count against bytes.
_EXTRA = 0.5
_EXTRA_TO_FIT = 3.0
_PRICE = 2.0
# Numbers of bands that are tried, and how many of the estimates are planned in full.
_COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_PLANNED = 6


@dataclass(frozen=True)
class Bands:
    """What was done: the layer up to which there are bands, and what they save and cost."""

    layer: str
    count: int
    rows: int
    workspace_without: int
    extra_macs: int


@dataclass(frozen=True)
class _Candidate:
    region: Region
    height: int
    bytes: int
    extra: float

    @property
    def count(self) -> int:
        return -(-self.region.height // self.height)


def depth_first(graph: Graph, machine: Machine, limit: int | None = None) -> tuple[Graph, Bands | None]:
    """`graph` with its first layers in bands, where that about halves the workspace or brings it below `limit`."""
    graph = to_channels_last(graph)
    plain = replace(machine, half_weights=False)
    whole = workspace(fuse(graph), plain)
    short = limit is not None and whole > limit
    if whole < 2 * _WORTH and not short:
        return graph, None
    total = max(_macs(graph.nodes), 1)
    made: list[tuple[int, int, _Candidate, Graph]] = []
    for candidate in _candidates(graph, whole, total, limit if short else None):
        found = bands(candidate.region, candidate.height)
        if found:
            banded = in_bands(graph, candidate.region, found)
            made.append((workspace(fuse(banded), plain), _macs(banded.nodes) - total, candidate, banded))
    best = _chosen([(size, extra) for size, extra, _, _ in made], whole, total, limit if short else None)
    if best is None:
        return graph, None
    _, extra, candidate, banded = made[best]
    layer = candidate.region.nodes[-1].source
    return banded, Bands(layer, candidate.count, candidate.height, whole, extra)


def _chosen(made: Sequence[tuple[int, int]], whole: int, total: int, limit: int | None) -> int | None:
    """The number of the best of (bytes, further multiply-accumulates); None where none is worth it."""
    if limit is not None:
        return min(range(len(made)), key=lambda i: (max(made[i][0] - limit, 0), made[i][1]), default=None)
    enough = [i for i, (size, _) in enumerate(made) if size <= _SHARE * whole and whole - size >= _WORTH]
    return min(enough, key=lambda i: made[i][0] * (1 + _PRICE * made[i][1] / total), default=None)


def _candidates(graph: Graph, whole: int, total: int, limit: int | None) -> list[_Candidate]:
    """The most promising ones, by estimate: the cheapest within the limit, or the smallest."""
    most = _EXTRA if limit is None else _EXTRA_TO_FIT
    found: list[_Candidate] = []
    for region in regions(graph):
        if _continued(graph, region.result):
            continue
        rest = _rest(graph, region)
        for height in sorted({-(-region.height // count) for count in _COUNTS if count <= region.height}):
            middle = _middle(region, height)
            if middle is None:
                continue
            size = max(rest, _bytes(region.result) + _inside(region, middle))
            count = -(-region.height // height)
            extra = (_band_macs(middle) * count - _macs(region.nodes)) / total
            if size < whole and extra <= most:
                found.append(_Candidate(region, height, size, max(extra, 0.0)))

    def badness(c: _Candidate) -> tuple[float, float, int]:
        if limit is None:
            return c.bytes * (1 + _PRICE * c.extra), 0, c.height
        return max(c.bytes - limit, 0), c.extra, c.height

    return sorted(found, key=badness)[:_PLANNED]


def _middle(region: Region, height: int) -> Band | None:
    """A band with neighbours on both sides, if there is one."""
    start = region.height // height // 2 * height
    start = start if start < region.height else 0
    return band(region, (start, min(start + height, region.height)))


def _continued(graph: Graph, value: Value) -> bool:
    """Whether the one reader is an elementwise op, which the same kernel computes."""
    readers = [node for node in graph.nodes if value in node.inputs]
    alone = len(readers) == 1 and isinstance(readers[0].op, Elementwise)
    return alone and readers[0].outputs[0].type.shape == value.type.shape


def _macs(nodes: Sequence[Node]) -> int:
    return sum(
        int(node.op.macs(tuple(v.type for v in node.inputs), tuple(v.type for v in node.outputs))) for node in nodes
    )


def _band_macs(part: Band) -> int:
    """Of one band, by its share of each node's rows."""
    total = 0.0
    for node in part.ops:
        first, last = part.rows[node.outputs[0]]
        total += _macs([node]) * (last - first) / rows_of(node.outputs[0])
    return int(total)


# ---- estimates of memory


def _bytes(value: Value) -> int:
    return int(value.type.size) * value.type.itemsize


def _inside(region: Region, part: Band) -> int:
    """The most bytes in use at once while a band is computed, without the region's result."""

    def size(value: Value) -> int:
        first, last = part.rows[value]
        return _bytes(value) * (last - first) // rows_of(value)

    return _most(region.nodes, lambda value: 0 if value is region.result else size(value), frozenset(), ())


def _rest(graph: Graph, region: Region) -> int:
    """The most bytes in use at once after the region."""
    inside = set(region.nodes)
    nodes = [node for node in graph.nodes if node not in inside and not isinstance(node.op, ops.Constant)]
    return _most(nodes, _bytes, frozenset(graph.outputs), (region.result,))


def _most(nodes: Sequence[Node], size: Callable[[Value], int], kept: frozenset[Value], given: Sequence[Value]) -> int:
    """The most bytes of what is `given` and of the results of `nodes`, but for those that are `kept` elsewhere.

    Elementwise ops work in place.
    """
    root: dict[Value, Value] = {}
    last: dict[Value, int] = {}
    for i, node in enumerate(nodes):
        for value in node.inputs:
            last[root.get(value, value)] = i
        if isinstance(node.op, Elementwise | ops.Reshape):
            same = (v for v in node.inputs if v.constant is None and v.type.size == node.outputs[0].type.size)
            like = next(same, None)
            if like is not None:
                root[node.outputs[0]] = root.get(like, like)
    sizes = {value: size(value) for value in given if value not in kept}
    most, live = 0, sum(sizes.values())
    for i, node in enumerate(nodes):
        for value in node.outputs:
            if value not in root and value not in kept:
                sizes[value] = size(value)
                live += sizes[value]
        most = max(most, live)
        for value in {root.get(v, v) for v in node.inputs}:
            if last.get(value) == i:
                live -= sizes.pop(value, 0)
    return most
