"""How `kcompile.ir.plan` computes nodes: into an array that is there already, or on numpy scalars.

A node whose op stands in neither table is computed by its kernel, which allocates its results.
"""

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from kcompile.ir import ops
from kcompile.ir.blas import bound_scaled_sum, scaled_sum
from kcompile.ir.graph import Node
from kcompile.ir.op import Elementwise, Op
from kcompile.ir.ops.windows import PART_BYTES
from kcompile.ir.parts import BY_SAMPLE
from kcompile.ir.types import Array

# Computes from operands; one of `INTO` writes to the array that it is given last.
Function: TypeAlias = Callable[..., Any]
Make: TypeAlias = Callable[[Node], Function]

_UFUNCS: dict[type[Op], np.ufunc] = {
    ops.Abs: np.absolute,
    ops.Add: np.add,
    ops.And: np.bitwise_and,
    ops.Ceil: np.ceil,
    ops.Cos: np.cos,
    ops.Exp: np.exp,
    ops.Floor: np.floor,
    ops.FloorDiv: np.floor_divide,
    ops.Log: np.log,
    ops.Mod: np.remainder,
    ops.Mul: np.multiply,
    ops.Neg: np.negative,
    ops.Not: np.bitwise_not,
    ops.Or: np.bitwise_or,
    ops.Pow: np.power,
    ops.Sign: np.sign,
    ops.Sin: np.sin,
    ops.Sqrt: np.sqrt,
    ops.Sub: np.subtract,
    ops.Tanh: np.tanh,
}
_COMPARISONS: dict[str, tuple[np.ufunc, Function]] = {
    "==": (np.equal, operator.eq),
    "!=": (np.not_equal, operator.ne),
    "<": (np.less, operator.lt),
    "<=": (np.less_equal, operator.le),
    ">": (np.greater, operator.gt),
    ">=": (np.greater_equal, operator.ge),
}
_REDUCTIONS: dict[type[Op], np.ufunc] = {
    ops.ReduceMax: np.maximum,
    ops.ReduceMin: np.minimum,
    ops.ReduceProd: np.multiply,
    ops.ReduceSum: np.add,
}


# Elements from which on a choice by bits is faster than one by branches.
_MANY = 256


def _op(node: Node) -> Any:
    return node.op


def _divide(node: Node) -> Function:
    return np.divide if node.outputs[0].type.is_float else np.floor_divide


def _relu(node: Node) -> Function:
    zero = np.zeros((), node.outputs[0].type.dtype)

    def into(x: Array, out: Array) -> None:
        np.maximum(x, zero, out=out)

    return into


def _clip(node: Node) -> Function:
    low, high = (np.asarray(bound, node.outputs[0].type.dtype) for bound in (_op(node).min, _op(node).max))

    def into(x: Array, out: Array) -> None:
        np.minimum(np.maximum(x, low, out=out), high, out=out)

    return into


def _cast(node: Node) -> Function:
    def into(x: Array, out: Array) -> None:
        np.copyto(out, x, casting="unsafe")

    return into


def _where(node: Node) -> Function:
    """A choice by bits where that pays: it takes no branches, which random conditions make slow."""
    type, other = node.outputs[0].type, node.inputs[2].constant
    few = type.is_static and int(type.size) < _MANY
    if few or type.itemsize not in (4, 8):

        def copied(condition: Array, x: Array, y: Array, out: Array) -> None:
            np.copyto(out, y)
            np.copyto(out, x, where=condition)

        return copied
    bits = np.dtype(f"int{8 * type.itemsize}")
    blank = other is not None and not other.any() and not np.signbit(other).any()

    def chosen(condition: Array, x: Array, y: Array, out: Array) -> None:
        mask = np.negative(condition.astype(bits))
        first, second, result = x.view(bits), y.view(bits), out.view(bits)
        if blank:
            np.bitwise_and(first, mask, out=result)
            return
        np.bitwise_xor(first, second, out=result)
        np.bitwise_and(result, mask, out=result)
        np.bitwise_xor(result, second, out=result)

    return chosen


def _reduce(node: Node) -> Function:
    op = _op(node)
    ufunc = _REDUCTIONS[type(op)]

    def into(x: Array, out: Array) -> None:
        ufunc.reduce(x, axis=op.axes, keepdims=op.keepdims, out=out)

    return into


def _mean(node: Node) -> Function:
    op = _op(node)

    def into(x: Array, out: Array) -> None:
        np.add.reduce(x, axis=op.axes, keepdims=op.keepdims, out=out)
        np.divide(out, out.dtype.type(x.size / max(out.size, 1)), out=out)

    return into


def _dense(node: Node) -> Function:
    if node.inputs[0].type.rank == 2:
        return np.matmul if len(node.inputs) == 2 else _dense_of_rows

    def into(x: Array, kernel: Array, *rest: Array) -> None:
        rows, out = x.reshape(-1, kernel.shape[0]), rest[-1].reshape(-1, kernel.shape[1])
        np.matmul(rows, kernel, out=out)
        if len(rest) > 1:
            np.add(out, rest[0], out=out)

    return into


def _dense_of_rows(x: Array, kernel: Array, bias: Array, out: Array) -> None:
    np.matmul(x, kernel, out=out)
    np.add(out, bias, out=out)


def _concat(node: Node) -> Function:
    axis = _op(node).axis

    def into(*arrays: Array) -> None:
        np.concatenate(arrays[:-1], axis=axis, out=arrays[-1])

    return into


def _softmax(node: Node) -> Function:
    axis = _op(node).axis

    def into(x: Array, out: Array) -> None:
        if not out.size:
            return
        np.subtract(x, np.maximum.reduce(x, axis=axis, keepdims=True), out=out)
        np.exp(out, out=out)
        np.divide(out, np.add.reduce(out, axis=axis, keepdims=True), out=out)

    return into


def _blockwise(node: Node) -> Function:
    write = _op(node).write
    return lambda *arrays: write(arrays[:-1], arrays[-1], PART_BYTES)


def _arg_reduce(node: Node) -> Function:
    op = _op(node)

    def into(x: Array, out: Array) -> None:
        np.copyto(out, x.argmax(op.axis) if op.which == "max" else x.argmin(op.axis), casting="unsafe")

    return into


def _whole(node: Node) -> Function:
    write = _op(node).write
    return lambda *arrays: write(arrays[:-1], arrays[-1])


# By op class: what writes a node's only result to an array.
INTO: dict[type[Op], Make] = {
    **dict.fromkeys(BY_SAMPLE, _blockwise),
    **{cls: (lambda node, ufunc=ufunc: ufunc) for cls, ufunc in _UFUNCS.items()},
    ops.ArgReduce: _arg_reduce,
    ops.Cast: _cast,
    ops.Clip: _clip,
    ops.Compare: lambda node: _COMPARISONS[_op(node).relation][0],
    ops.Concat: _concat,
    ops.CrossEntropy: _whole,
    ops.CrossEntropyGradient: _whole,
    ops.Dense: _dense,
    ops.Div: _divide,
    ops.MatMul: lambda node: np.matmul,
    ops.Maximum: lambda node: lambda x, y, out: np.maximum(x, y, out=out),
    ops.Minimum: lambda node: lambda x, y, out: np.minimum(x, y, out=out),
    ops.ReduceMax: _reduce,
    ops.ReduceMean: _mean,
    ops.ReduceMin: _reduce,
    ops.ReduceProd: _reduce,
    ops.ReduceSum: _reduce,
    ops.Relu: _relu,
    ops.ScaledSum: lambda node: scaled_sum,
    ops.Softmax: _softmax,
    ops.Where: _where,
}

# By op class: for arrays that stay where they are, a function of the operands that are numbers.
BOUND: dict[type[Op], Function] = {ops.ScaledSum: bound_scaled_sum}

# Ops whose result may take the place of an operand of the same type.
IN_PLACE = frozenset({*_UFUNCS, ops.Clip, ops.Div, ops.Maximum, ops.Minimum, ops.Relu, ops.ScaledSum})

# Ops whose results are views of their operand, where its layout allows it.
VIEWS = frozenset({ops.BroadcastTo, ops.Reshape, ops.Reverse, ops.Slice, ops.Transpose})

# Ops whose kernels never return an operand or a part of one, beside those of `INTO`.
_FRESH = frozenset[type[Op]](
    {
        ops.Attention,
        ops.BatchNorm,
        ops.BatchNormTraining,
        ops.BatchNormTrainingGradient,
        ops.ConvTranspose,
        ops.CrossEntropy,
        ops.Gather,
        ops.Gru,
        ops.LayerNorm,
        ops.LayerNormGradient,
        ops.Lstm,
        ops.RandomNormal,
        ops.RandomUniform,
        ops.RecurrentGradient,
        ops.ScatterAdd,
        ops.SimpleRnn,
        ops.SliceGradient,
    }
)


def may_alias(op: Op) -> bool:
    """Whether the kernel of an op may return an operand or a part of one."""
    if isinstance(op, ops.StopGradient):  # the one elementwise op that gives its operand itself
        return True
    return type(op) not in INTO and type(op) not in _FRESH and not isinstance(op, Elementwise)


def _total(node: Node) -> Function:
    reduce, axes = _REDUCTIONS[type(node.op)].reduce, _op(node).axes
    return lambda x: reduce(x, axis=axes)


def _average(node: Node) -> Function:
    axes = _op(node).axes
    return lambda x: np.add.reduce(x, axis=axes) / x.dtype.type(x.size)


def _quotient(node: Node) -> Function:
    return operator.truediv if node.outputs[0].type.is_float else operator.floordiv


def _chosen(condition: Any, x: Any, y: Any) -> Any:
    return x if condition else y


def _converted(node: Node) -> Function:
    dtype = np.dtype(_op(node).dtype)
    exact = dtype.kind == "f" and not node.inputs[0].type.is_float
    return dtype.type if exact else lambda x: x.astype(dtype)


# By op class: what computes a numpy scalar, for which Python's operators are faster than numpy's functions.
SCALAR: dict[type[Op], Make] = {
    **dict.fromkeys(_REDUCTIONS, _total),
    ops.Add: lambda node: operator.add,
    ops.Cast: _converted,
    ops.Compare: lambda node: _COMPARISONS[_op(node).relation][1],
    ops.Div: _quotient,
    ops.FloorDiv: lambda node: operator.floordiv,
    ops.Mul: lambda node: operator.mul,
    ops.Neg: lambda node: operator.neg,
    ops.Not: lambda node: np.bitwise_not,
    ops.Pow: lambda node: operator.pow,
    ops.ReduceMean: _average,
    ops.Sqrt: lambda node: np.sqrt,
    ops.Sub: lambda node: operator.sub,
    ops.Where: lambda node: _chosen,
}
