"""Which kernel a convolution becomes, and with which tiles."""

from dataclasses import replace

import numpy as np

from kcompile.codegen.tvm.kernels.conv import Conv, Placement
from kcompile.codegen.tvm.kernels.conv_pool import ConvPool, Pooling
from kcompile.codegen.tvm.kernels.dense import constant_of, emit_matrix
from kcompile.codegen.tvm.kernels.depthwise import emit_depthwise
from kcompile.codegen.tvm.kernels.pooling import kind_of
from kcompile.codegen.tvm.kernels.scaled import FEW_PIXELS
from kcompile.codegen.tvm.kernels.tile import choose, pack
from kcompile.codegen.tvm.kernels.winograd import Winograd
from kcompile.codegen.tvm.kernels.winograd_form import rows_of, step_for, transformed
from kcompile.codegen.tvm.plan import TVM, Packed, Plan, Tail, Temporary, Upcoming
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir import ops
from kcompile.ir.graph import Node, Value
from kcompile.ir.types import Array, TensorType, dtype_of

# Weights of at most this many bytes stay in the second-level cache, so that each row may run through all of them.
_SMALL_WEIGHTS = 64_000
# Vectors of constants that the transforms of F(4 x 4, 3 x 3) need.
_FACTORS = 4


@TVM.register(ops.Conv)
def conv(plan: Plan, node: Node) -> None:
    """A matrix product where every pixel stands alone, the depthwise kernel where every channel does."""
    op, (x, kernel, *rest) = node.op, node.inputs
    assert isinstance(op, ops.Conv)
    weights, bias = constant_of(kernel, node), rest[0] if rest else None
    filters = weights.shape[-1]
    windows = Windows.of(x.type, node.outputs[0].type, weights.shape[:-2], op.strides, op.rates, op.padding)
    if windows.pointwise and op.groups == 1:
        pixels = node.outputs[0].type.with_shape(windows.out).size
        outer = 1 if isinstance(pixels, int) and pixels >= FEW_PIXELS else 0
        emit_matrix(plan, node, outer, weights.reshape(-1, filters), bias)
        return
    if op.groups == windows.channels == filters:
        emit_depthwise(plan, node, windows, weights, bias)
        return
    pool = plan.pool(node) if len(windows.size) > 1 and not plan.variant.apart else None
    largest = 4 if plan.fast_math else 2
    step = step_for(plan.machine, windows, op.groups, filters, x.type.dtype, largest)
    if plan.variant.sums:
        step = None if step else step_for(plan.machine, windows, op.groups, filters, x.type.dtype, at_any_cost=True)
    if step and (pool is None or _halves(pool)) and np.isfinite(weights).all():
        _emit_winograd(plan, x, windows, step, weights, bias, plan.tail(node), pool)
        return
    emit_conv(plan, x, windows, op.groups, weights, bias, plan.tail(node), pool=pool)


def emit_conv(
    plan: Plan,
    x: Value,
    windows: Windows,
    groups: int,
    weights: Array,
    bias: Value | None,
    tail: Tail,
    places: tuple[Placement, ...] = (),
    pool: Node | None = None,
) -> None:
    """The convolution of x with `weights`, ``[*window, C / groups, F]``, and `pool` of the tail's result."""
    out, filters = windows.out[-1], weights.shape[-1]
    per_group = filters // groups
    row_bytes = windows.strides[-1] * windows.channels * x.type.itemsize
    rows, variant = out if isinstance(out, int) else None, plan.variant
    tile = choose(plan.machine, rows, per_group, row_bytes, weights.size // filters, rank=variant.tile)
    grid = (weights.nbytes > _SMALL_WEIGHTS) != variant.turned
    fields = (x.type.dtype, windows, groups, filters, tile, grid, bias is not None, tail.chain, places)
    packed = Packed(TensorType(dtype_of(weights), (weights.size,)), lambda: _packed(weights, groups, tile[1]))
    operands = [x, packed, *([bias] if bias else []), *tail.operands]
    if not pool:
        plan.emit(Conv(*fields), *operands, tail.result)
        return
    op, result = pool.op, pool.outputs[0]
    assert isinstance(op, ops.MaxPool | ops.AvgPool)
    spec = ConvPool(*fields, Pooling(kind_of(op), op.pool_size, op.strides, result.type.shape[1:-1]))
    plan.emit(spec, *operands, Temporary(spec.scratch, per_thread=True), result)


def _halves(pool: Node) -> bool:
    """Whether the windows of a pooling are 2 x 2, side by side."""
    op = pool.op
    return isinstance(op, ops.MaxPool | ops.AvgPool) and op.pool_size == op.strides == (2, 2)


def _emit_winograd(
    plan: Plan, x: Value, windows: Windows, step: int, weights: Array, bias: Value | None, tail: Tail, pool: Node | None
) -> None:
    kind = kind_of(pool.op) if pool and isinstance(pool.op, ops.MaxPool | ops.AvgPool) else None
    filters = weights.shape[-1]
    draft = Winograd(windows, filters, step, (1, 1), 1, bias is not None, tail.chain, kind)
    rows, variant = rows_of(draft.tiles, windows.channels * filters, step), plan.variant
    rows = -(-rows // 2) if variant.halved else rows
    # The factors of larger tiles' transforms stay in registers throughout.
    free = plan.machine.registers - (_FACTORS if step > 2 else 0)
    tile = choose(replace(plan.machine, registers=free), rows * draft.tiles[1], filters, rank=variant.tile)
    spec = replace(draft, tile=tile, rows=rows, fetches=plan.fetches)
    type = TensorType("float32", (spec.form.places * windows.channels * filters,))
    operands = [x, Packed(type, lambda: transformed(weights, step, tile[1])), *([bias] if bias else []), *tail.operands]
    scratch = Temporary(spec.scratch, per_thread=True)
    upcoming = [Upcoming(spec.blocks * spec.products * windows.channels)] if plan.fetches else []
    plan.emit(spec, *operands, scratch, pool.outputs[0] if pool else tail.result, *upcoming)


def _packed(weights: Array, groups: int, columns: int) -> Array:
    """Each group's ``[taps * channels, filters]`` in panels."""
    matrix = weights.reshape(-1, weights.shape[-1])
    return np.concatenate([pack(part, columns) for part in np.split(matrix, groups, axis=1)])
