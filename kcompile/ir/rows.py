"""Which graphs map the rows of a batch one by one, so that they may run on a few rows at a time.

A value is *by rows* if it falls into as many equal blocks, one after another in row-major order, as the batch has rows,
and block i depends on row i of the inputs alone; it is *whole* if it depends on no row. Every op is judged by a rule
of its own, and an op without one mixes rows.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from kcompile.ir import dims, ops
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.op import Elementwise, Op
from kcompile.ir.types import TensorType

# Whether an op with these operands, of which these are by rows, computes each row from the operands' same rows.
Rule: TypeAlias = Callable[[Any, Sequence[TensorType], Sequence[bool], TensorType], bool]


def batch_of(graph: Graph) -> str | None:
    """The symbol of the batch whose rows `graph` maps one by one; None where there is none, or some op mixes rows."""
    leads = {value.type.shape[0] if value.type.rank else 1 for value in graph.inputs}
    batch = next(iter(leads)) if len(leads) == 1 else 1
    if not isinstance(batch, str) or dims.symbols(batch) != {batch}:
        return None
    known = dict.fromkeys(graph.inputs, True)
    return batch if all(map(_leads(batch), graph.inputs)) and _maps(graph, batch, known) else None


def _leads(batch: str) -> Callable[[Value], bool]:
    """Whether a value is nothing but a multiple of `batch` along its first axis, and knows nothing of it in others."""

    def leads(value: Value) -> bool:
        first, *others = value.type.shape or (1,)
        multiple = dims.exact_div(first, batch)
        return multiple is not None and batch not in dims.symbols(multiple, *others)

    return leads


def _maps(graph: Graph, batch: str, by_rows: dict[Value, bool]) -> bool:
    """Whether every node maps rows one by one; notes in `by_rows`, which has the inputs, which values are by rows."""
    leads = _leads(batch)
    for node in graph.nodes:
        read = [by_rows[value] for value in node.inputs]
        if isinstance(node.op, ops.Fused):
            inner = dict(zip(node.op.body.inputs, read, strict=True))
            if not _maps(node.op.body, batch, inner):
                return False
            by_rows.update(zip(node.outputs, (inner[value] for value in node.op.body.outputs), strict=True))
            continue
        made = [leads(value) for value in node.outputs]
        fits = _fits(node, batch, read) if any(made) else not any(read)
        if not fits or any((batch in dims.symbols(*v.type.shape)) != leads(v) for v in node.outputs):
            return False
        by_rows.update(zip(node.outputs, made, strict=True))
    return True


def _fits(node: Node, batch: str, by_rows: Sequence[bool]) -> bool:
    """Whether the op's rule says that it maps rows one by one; none but these take the batch as an attribute."""
    op, types = node.op, [value.type for value in node.inputs]
    rule = next((rule for kinds, rule in _RULES if isinstance(op, kinds)), None)
    if rule is None or (op.bind({batch: 1}) != op and not isinstance(op, _SHAPED)):
        return False
    return all(rule(op, types, by_rows, value.type) for value in node.outputs)


def _aligned(op: Op, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """Operands by rows are not broadcast along axis 0, which is the result's."""
    del op
    rows = [t for t, flag in zip(types, by_rows, strict=True) if flag]
    return all(t.rank == result.rank and t.shape[0] == result.shape[0] for t in rows)


def _first_only(op: Op, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """The first operand has the rows, and what the op computes with lies behind its axis 0."""
    return by_rows[0] and not any(by_rows[1:]) and types[0].rank > 1 and _aligned(op, types[:1], by_rows[:1], result)


def _matrices(op: Op, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """Axis 0 is none of those that are multiplied: neither the sum's, nor the columns of the second operand."""
    return _aligned(op, types, by_rows, result) and (not by_rows[1] or types[1].rank > 2)


def _other_axis(op: Any, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """What happens along an axis happens along another than 0."""
    del by_rows, result
    return op.axis % types[0].rank != 0


def _other_axes(op: Any, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    del by_rows, result
    return all(axis % types[0].rank != 0 for axis in op.axes)


def _normal(op: Any, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    return _first_only(op, types, by_rows, result) and _other_axis(op, types, by_rows, result)


def _in_place(op: Op, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """Elements keep their order, so blocks stay blocks."""
    del op, types, by_rows, result
    return True


def _one_by_one(op: Op, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """Elements of operands of one shape, in their order; tables have no rows."""
    del op, result
    return all(flag == (t.shape == types[0].shape) for t, flag in zip(types, by_rows, strict=True))


def _looked_up(op: Any, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """Either rows look up in one table along its axis 0, or the same places are taken of each row."""
    del result
    first = op.axis % types[0].rank == 0
    return (first and list(by_rows) == [False, True]) or (not first and list(by_rows) == [True, False])


def _transposed(op: ops.Transpose, *_: object) -> bool:
    return op.perm[0] == 0


def _padded(op: ops.Pad, *_: object) -> bool:
    return op.low[0] == op.high[0] == 0


def _tiled(op: ops.Tile, *_: object) -> bool:
    return op.repeats[0] == 1


def _scanned(op: ops.Scan, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """States and sequences have the rows along axis 0, constants have none, and so it is within a step."""
    del result
    expected = [number >= op.constants for number in range(len(types))]
    inner = dict(zip(op.body.inputs, expected, strict=True))
    lead = types[-1].shape[0]
    return list(by_rows) == expected and isinstance(lead, str) and _maps(op.body, lead, inner)


def _recurrent(op: Op, types: Sequence[TensorType], by_rows: Sequence[bool], result: TensorType) -> bool:
    """x, states and masks have the rows along axis 0; the weights have none."""
    lead = result.shape[0]
    return by_rows[0] and all(t.shape[0] == lead for t, flag in zip(types, by_rows, strict=True) if flag)


_SHAPED = ops.Full | ops.Reshape | ops.BroadcastTo | ops.Scan
_TEXT = ops.StandardizeText | ops.SplitText | ops.CountTokens | ops.Lookup | ops.HashText | ops.HashCross
_RULES: Sequence[tuple[type[Op] | Any, Rule]] = (
    (Elementwise | ops.BroadcastTo | ops.Attention, _aligned),
    (_TEXT | ops.FormatInteger, _one_by_one),
    (ops.Full | ops.Reshape, _in_place),
    (ops.Conv | ops.ConvTranspose | ops.ConvNarrow | ops.MaxPool | ops.AvgPool | ops.Resize, _first_only),
    (ops.Dense | ops.DenseNarrow | ops.LayerNorm, _first_only),
    (ops.BatchNorm, _normal),
    (ops.MatMul, _matrices),
    (ops.Softmax | ops.LogSoftmax | ops.ArgReduce | ops.CumSum | ops.Sort, _other_axis),
    (ops.Concat | ops.Slice | ops.ExpectExtent, _other_axis),
    (ops.ReduceSum | ops.ReduceMean | ops.ReduceMax | ops.ReduceMin | ops.ReduceProd | ops.Reverse, _other_axes),
    (ops.Transpose, _transposed),
    (ops.Pad, _padded),
    (ops.Tile, _tiled),
    (ops.Gather, _looked_up),
    (ops.SimpleRnn | ops.Lstm | ops.Gru, _recurrent),
    (ops.Scan, _scanned),
)
