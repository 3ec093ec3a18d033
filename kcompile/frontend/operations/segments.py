"""Reductions of ``keras.ops`` over the rows that a list of numbers puts into one segment."""

from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.operations.operation import as_value, operation
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.dims import mul
from kcompile.ir.expression import lift
from kcompile.ir.graph import Value
from kcompile.ir.op import Op


def _members(t: Trace, segment_ids: Any, num_segments: int | None) -> Value:
    """Which row belongs to which segment: ``bool[num_segments, rows]``; a number out of range belongs to none."""
    if num_segments is None:
        raise ModelError("segments need `num_segments`: without it, the shape of the result depends on the data.")
    numbers = as_value(t, segment_ids, "int32")
    if numbers.type.rank != 1:
        raise ModelError(f"`segment_ids` must have one axis. Received: {numbers.type}.")
    wanted = t.constant(np.arange(num_segments, dtype=np.int32).reshape(-1, 1))
    return t(ops.Compare("=="), wanted, numbers)


def _reduced(t: Trace, data: Value, members: Value, reduce: Op, neutral: Any) -> Value:
    """``reduce`` over the rows of each segment, the others being `neutral`; all rows are looked at for each."""
    rank = data.type.rank
    mask = lift(t.b, members)[0].reshape((*members.type.shape, *(1,) * (rank - 1)))
    (rows,) = lift(t.b, data)
    return t(reduce, rows.where(mask, neutral).value)


@operation("math", "SegmentSum")
def segment_sum(
    t: Trace, data: Value, segment_ids: Any, *, num_segments: int | None = None, sorted: bool = False
) -> Value:
    """The sum of the rows of each segment, 0 where it has none."""
    members = _members(t, segment_ids, num_segments)
    if not data.type.is_float:
        return _reduced(t, data, members, ops.ReduceSum((1,)), 0)
    shape = data.type.shape
    rows = t(ops.Reshape((shape[0], mul(*shape[1:]))), data)
    total = t(ops.MatMul(), as_value(t, members, data.type.dtype), rows)
    return t(ops.Reshape((members.type.shape[0], *shape[1:])), total)


def _extremum(reduce: Op, lowest: bool) -> Any:
    def rule(
        t: Trace, data: Value, segment_ids: Any, *, num_segments: int | None = None, sorted: bool = False
    ) -> Value:
        dtype = np.dtype(data.type.dtype)
        least, most = (-np.inf, np.inf) if data.type.is_float else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        return _reduced(t, data, _members(t, segment_ids, num_segments), reduce, least if lowest else most)

    return rule


operation("math", "SegmentMax")(_extremum(ops.ReduceMax((1,)), True))
operation("math", "SegmentMin")(_extremum(ops.ReduceMin((1,)), False))


@operation("math", "SegmentProd")
def segment_prod(
    t: Trace, data: Value, segment_ids: Any, *, num_segments: int | None = None, sorted: bool = False
) -> Value:
    """The product of the rows of each segment, 1 where it has none."""
    return _reduced(t, data, _members(t, segment_ids, num_segments), ops.ReduceProd((1,)), 1)
