"""Whether the rows of a batch are computed apart, so that a batch may be split and its results joined."""

from collections.abc import Sequence

from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Graph, Node
from kcompile.ir.ops.conv import spatial_of

_SPATIAL = (ops.Conv, ops.ConvTranspose, ops.MaxPool, ops.AvgPool, ops.Resize)
_RECURRENT = (ops.Lstm, ops.Gru, ops.SimpleRnn, ops.Scan)


def rows_meet(graph: Graph) -> bool:
    """Whether an op works along an axis that holds the batch, the symbol that leads every input, or reorders it."""
    leads = {type.shape[:1] for type in graph.input_types.values()}
    batch = next(iter(leads)) if len(leads) == 1 else ()
    return bool(batch) and isinstance(batch[0], str) and any(_mixes(node, batch[0]) for node in graph.nodes)


def _mixes(node: Node, batch: str) -> bool:
    op, shapes = node.op, [value.type.shape for value in node.inputs]
    if isinstance(op, ops.Reshape):
        return _before(shapes[0], batch) != _before(op.shape, batch)
    return any(batch in dims.symbols(dim) for dim in _worked_along(op, shapes))


def _worked_along(op: object, shapes: Sequence[Shape]) -> Sequence[Dim]:
    """The extents of the axes along which elements meet each other or change places."""
    x: Shape = shapes[0] if shapes else ()
    match op:
        case ops.MatMul():
            return [shapes[0][-1], shapes[1][-2]]
        case ops.Tile():
            return [dim for dim, count in zip(x, op.repeats, strict=True) if count != 1]
        case ops.Pad():
            return [dim for dim, *ends in zip(x, op.low, op.high, strict=True) if any(ends)]
        case ops.Attention():
            return x[1:]
        case ops.ExpectExtent():
            return []
        case _ if isinstance(op, _SPATIAL):
            return spatial_of(x, op.data_format)
        case _ if isinstance(op, _RECURRENT):
            return x[1:]
        case _:
            axes = getattr(op, "axes", None) or [getattr(op, "axis", None)]
            return [x[axis] for axis in axes if isinstance(axis, int) and x]


def _before(shape: Shape, batch: str) -> Dim | None:
    """The number of elements that stand before one row's; None where no axis holds the batch."""
    for axis, dim in enumerate(shape):
        if batch in dims.symbols(dim):
            return dims.mul(*shape[:axis])
    return None
