"""Kernels of layers against loops over single numbers."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from numpy.typing import NDArray

from kcompile.ir import ops
from kcompile.ir.op import Op
from tests.ir import oracles
from tests.strategies import OpCase, op_cases
from tests.tolerances import EXACT, KERNEL, assert_close


def optional(arrays: tuple[NDArray, ...], position: int) -> NDArray | None:
    return arrays[position] if len(arrays) > position else None


def conv(op: ops.Conv, x: NDArray, kernel: NDArray, *bias: NDArray) -> NDArray:
    return oracles.conv(x, kernel, optional(bias, 0), op.strides, op.padding, op.rates, op.groups, op.data_format)


def conv_transpose(op: ops.ConvTranspose, x: NDArray, kernel: NDArray, *bias: NDArray) -> NDArray:
    return oracles.conv_transpose(
        x, kernel, optional(bias, 0), op.strides, op.padding, op.output_padding, op.rates, op.groups, op.data_format
    )


def pool(op: ops.MaxPool | ops.AvgPool, x: NDArray) -> NDArray:
    kind = "max" if isinstance(op, ops.MaxPool) else "mean"
    return oracles.pool(x, op.pool_size, op.strides, op.padding, op.data_format, kind)


def number(activation: Op | None) -> oracles.Number:
    known: dict[Any, oracles.Number] = {
        None: lambda x: x,
        ops.Tanh(): math.tanh,
        ops.Relu(): lambda x: max(x, 0.0),
        ops.Sigmoid(): oracles.sigmoid,
        ops.HardSigmoid(alpha=0.2): oracles.hard_sigmoid,
    }
    return known[activation]


def recurrent(op: Any, x: NDArray, kernel: NDArray, *rest: NDArray) -> tuple[NDArray, ...]:
    units, left = rest[0].shape[0], list(rest[1 + op.biases :])
    # How many of these there are depends on the op.
    weights: list[Any] = [*rest[: 1 + op.biases], number(op.activation), number(op.recurrent_activation)]
    mask = left.pop() if op.has_mask else None
    states = left or [kernel[:1, :units] * 0.0 + 0.0 * x[:, 0, :1] for _ in range(op.states)]
    if isinstance(op, ops.Gru):
        make, weights = oracles.gru_step, [*weights, op.reset_after]
    else:
        make = oracles.lstm_step if isinstance(op, ops.Lstm) else oracles.simple_rnn_step
    return oracles.recurrent(x, make(kernel, *weights), states, units, op.reverse, mask, op.zero_masked_output)


def attention(op: ops.Attention, query: NDArray, key: NDArray, value: NDArray, *mask: NDArray) -> tuple[NDArray, ...]:
    return oracles.attention(query, key, value, optional(mask, 0), op.scale, op.causal)


ORACLES: dict[type[Op], Callable[..., Any]] = {
    ops.Conv: conv,
    ops.ConvTranspose: conv_transpose,
    ops.MaxPool: pool,
    ops.AvgPool: pool,
    ops.Resize: lambda op, x: oracles.resize(x, op.size, op.interpolation, op.data_format),
    ops.Lstm: recurrent,
    ops.Gru: recurrent,
    ops.SimpleRnn: recurrent,
    ops.Attention: attention,
    ops.LayerNorm: lambda op, x, gamma, beta: oracles.layer_norm(x, gamma, beta, op.epsilon),
    ops.BatchNorm: lambda op, x, *parameters: oracles.batch_norm(x, parameters, op.epsilon, op.axis),
    ops.Softmax: lambda op, x: oracles.softmax(x, op.axis),
    ops.Gather: lambda op, x, indices: oracles.gather(x, indices, op.axis),
    ops.Slice: lambda op, x: oracles.slice_of(x, op.axis, op.start, op.stop, op.step),
}
MOVES = (ops.Gather, ops.Slice, ops.MaxPool)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cls", ORACLES, ids=lambda cls: cls.op_name)
def test_kernel_matches_loops_over_single_numbers(cls: type[Op], dtype: str) -> None:
    @given(op_cases(cls, dtype))
    def check(case: OpCase) -> None:
        found = case.op.kernel(case.arrays)
        expected = ORACLES[cls](case.op, *case.arrays)
        tolerance = EXACT if cls in MOVES else KERNEL[dtype]
        for actual, right in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
            assert_close(actual, right, tolerance, terms=max(a.size for a in case.arrays))

    check()
