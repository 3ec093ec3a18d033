"""For every op, graphs of it alone: open and known extents, every dtype that it takes, every attribute."""

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np

from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import Op
from kcompile.ir.types import Array, TensorType

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def f32(*shape: Dim) -> TensorType:
    """``float32[shape]``."""
    return TensorType("float32", shape)


def of(dtype: str, *shape: Dim) -> TensorType:
    """``dtype[shape]``."""
    return TensorType(dtype, shape)


def _weight(*shape: int, dtype: str = "float32") -> Array:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.5).astype(dtype)


RELATIONS: tuple[Literal["==", "!=", "<", "<=", ">", ">="], ...] = ("==", "!=", "<", "<=", ">", ">=")

Case = tuple[Op, tuple[TensorType | Array, ...]]


def arithmetic() -> Iterator[Case]:
    """Elementwise arithmetic and comparison of every dtype."""
    for dtype in (*FLOATS, *INTEGERS):
        x, y = of(dtype, "N", 1, 3), of(dtype, 4, 3)
        for op in (ops.Add(), ops.Sub(), ops.Mul(), ops.Div(), ops.FloorDiv(), ops.Mod(), ops.Maximum(), ops.Minimum()):
            yield op, (x, y)
        for op in (ops.Neg(), ops.Abs(), ops.Sign(), ops.Relu(), ops.Clip(1.0, 3.0)):
            yield op, (x,)
        for relation in RELATIONS:
            yield ops.Compare(relation), (x, y)
        yield ops.Where(), (of("bool", 4, 1), x, y)
    for dtype in FLOATS:
        yield ops.Pow(), (of(dtype, "N", 3), np.array([2, -1, 3], dtype))
        for op in (ops.Log(), ops.Sqrt(), ops.Exp(), ops.Floor(), ops.Ceil(), ops.Round(), ops.Sin(), ops.Cos()):
            yield op, (of(dtype, "N", 2, 5),)
        yield ops.Clip(-np.inf, 0.5), (of(dtype, "N", 2),)
        yield ops.Clip(-0.5, np.inf), (of(dtype, "N", 2),)
    for dtype in ("int32", "int64", "uint8"):
        yield ops.Pow(), (of(dtype, "N", 3), np.array([2, 0, 1], dtype))


def casts() -> Iterator[Case]:
    """From every dtype to every other; what a negative number is as an unsigned one is nobody's business."""
    for dtype in (*FLOATS, *INTEGERS, "bool"):
        for other in (*FLOATS, *INTEGERS, "bool"):
            if not (other.startswith("u") and not dtype.startswith(("u", "b"))):
                yield ops.Cast(other), (of(dtype, "N", 3),)


def logic() -> Iterator[Case]:
    """Ops on bool, and on bits."""
    for dtype in ("bool", *INTEGERS):
        for op in (ops.And(), ops.Or()):
            yield op, (of(dtype, "N", 3), of(dtype, 3))
        yield ops.Not(), (of(dtype, "N", 3),)
    for relation in RELATIONS:
        yield ops.Compare(relation), (of("bool", "N", 3), of("bool", 3))
    yield ops.Where(), (of("bool", "N", 3), of("bool", 3), of("bool", "N", 1))


def activations() -> Iterator[Case]:
    """Activations of every float dtype that has kernels."""
    for dtype in FLOATS:
        x = of(dtype, "N", 2, 5)
        for op in (ops.Sigmoid(), ops.Tanh(), ops.Softplus(), ops.Softsign(), ops.Elu(0.8), ops.Selu(), ops.Celu(1.3)):
            yield op, (x,)
        for op in (ops.HardSigmoid(), ops.HardSigmoid(0.2), ops.Silu(), ops.HardSilu(), ops.Mish(), ops.LeakyRelu(0.2)):
            yield op, (x,)
        yield ops.Gelu(approximate=True), (x,)
        yield ops.PRelu(), (x, of(dtype, 2, 1))
        yield ops.PRelu(), (x, of(dtype, 6, 1, 2, 5))
        for axis in (-1, 0, 1):
            yield ops.Softmax(axis), (x,)
            yield ops.LogSoftmax(axis), (x,)
    for dtype in ("float16", "float32"):
        yield ops.Erf(), (of(dtype, "N", 3),)
        yield ops.Gelu(), (of(dtype, "N", 3),)


def moves() -> Iterator[Case]:
    """Ops that move elements."""
    for dtype in ("float32", "float64", "float16", "int8", "int32", "int64", "uint16", "bool"):
        x = of(dtype, "N", 4, 6)
        yield ops.Reshape(("N", 24)), (x,)
        yield ops.Transpose((2, 0, 1)), (x,)
        yield ops.Concat(-1), (x, x)
        yield ops.Slice(1, 1, 4, 2), (x,)
        yield ops.Pad((0, 1, 2), (1, 0, 3)), (x,)
        yield ops.Reverse((0, -1)), (x,)
        yield ops.Tile((2, 1, 3)), (x,)
        yield ops.BroadcastTo((5, "N", 4, 6)), (x,)
        yield ops.Gather(1), (x, of("int32", "M", 2))
    x = f32("N", "T", 6)
    for shape in (("N", "6*T"), ("N*T", 6), ("T", "N", 6), ("N", "T", 2, 3), (2, 3, "N*T"), ("N", 6, "T"), ("6*N*T",)):
        yield ops.Reshape(shape), (x,)
    yield ops.Reshape((2, 0, 3)), (f32(0, 3, 2),)
    yield ops.Reshape(("N", 0, 3)), (f32(0, "N", 2),)
    yield ops.Reshape(()), (f32(1, 1),)
    yield ops.Slice(1, 1, "T"), (x,)
    yield ops.Slice(1, 0, "T-1"), (x,)
    yield ops.Slice(1, "T-2", "T"), (x,)
    yield ops.Slice(0, 0, "N", 2), (x,)
    yield ops.ExpectExtent(1, "T"), (x,)
    yield ops.ExpectExtent(-1, 6), (x,)
    for mode in ("edge", "reflect", "symmetric"):
        yield ops.Pad((0, 1, 2), (0, 2, 3), mode), (x,)
    yield ops.Pad((0, 1, 0), (0, 0, 2), "symmetric"), (x,)
    yield ops.Pad((0, 1, 0), (0, 0, 2), value=-1.5), (x,)
    yield ops.Pad((0, 1, 0), (0, 0, 2), value=7), (of("int16", "N", 3, 2),)
    yield ops.Reverse(()), (x,)
    yield ops.Reverse((1,)), (x,)
    yield ops.BroadcastTo(("2*T", "T", 6)), (f32("T", 1),)
    yield ops.BroadcastTo(("(T+1)//2", "T-1", "T")), (f32("T"),)
    for dtype in ("int8", "int16", "int32", "int64", "uint8", "uint32"):
        yield ops.Gather(0), (_weight(5, 3), of(dtype, "N", "T"))
        yield ops.Gather(-2), (x, of(dtype, 3))
    yield ops.Gather(1), (x, np.array([[0, -3, 2, 9]]))
    yield ops.Gather(2), (x, np.array(3))
    yield ops.Gather(2), (x, np.array([5, -1, 8], np.int32))


def reductions() -> Iterator[Case]:
    """Reductions, and ops along an axis."""
    for dtype in ("float32", "float64", "int32", "int64", "int8"):
        x = of(dtype, "N", "T", 3)
        yield ops.ReduceProd((-1,)), (x,)
        for kind in (ops.ReduceSum, ops.ReduceMean, ops.ReduceMax, ops.ReduceMin):
            for axes, keepdims in (((-1,), False), ((0, 2), True), ((2, 1), False), ((), True)):
                yield kind(axes, keepdims), (x,)
        for axis in (0, 1, -1):
            yield ops.ArgReduce(axis), (x,)
            yield ops.ArgReduce(axis, "min"), (x,)
            yield ops.CumSum(axis), (x,)
            yield ops.Sort(axis), (x,)
            yield ops.Sort(axis, descending=True), (x,)
    yield ops.ReduceMax((1,)), (of("bool", "N", 3),)
    yield ops.ReduceMin((1,)), (of("bool", "N", 3),)


def linear() -> Iterator[Case]:
    """Products and normalizations."""
    for dtype in (*FLOATS, "int32"):
        for lead in (("N",), ("N", "T"), (), (2, "N", 3)):
            yield ops.Dense(), (of(dtype, *lead, 4), _weight(4, 5, dtype=dtype), _weight(5, dtype=dtype))
            yield ops.Dense(), (of(dtype, *lead, 4), of(dtype, 4, 5))
        yield ops.MatMul(), (of(dtype, "N", 1, 3, 4), of(dtype, 2, 4, 5))
        yield ops.MatMul(), (of(dtype, 3, "K"), of(dtype, "K", 5))
    for dtype in ("float32", "float64"):
        positive = np.abs(_weight(3, dtype=dtype)) + np.asarray(0.1, dtype)
        per_channel = (*(_weight(3, dtype=dtype) for _ in range(3)), positive)
        yield ops.BatchNorm(1e-3), (of(dtype, "N", 5, 4, 3), *per_channel)
        yield ops.BatchNorm(1e-3), (of(dtype, "N", 3), *per_channel)
        yield ops.BatchNorm(1e-3, 1), (of(dtype, "N", 3, 4, 5), *per_channel)
        yield ops.BatchNorm(1e-3, 2), (of(dtype, "N", 2, 3, 5), *per_channel)
        yield ops.LayerNorm(1e-3), (of(dtype, "N", "T", 6), _weight(6, dtype=dtype), _weight(6, dtype=dtype))
        yield ops.LayerNorm(1e-5), (of(dtype, "N", 4, 6), _weight(4, 6, dtype=dtype), _weight(4, 6, dtype=dtype))


def attention() -> Iterator[Case]:
    """Attention with and without masks, and with fewer heads of keys than of queries."""
    for dtype, causal in itertools.product(("float32", "float64"), (False, True)):
        query, key, value = of(dtype, "N", "Q", 4, 3), of(dtype, "N", "K", 2, 3), of(dtype, "N", "K", 2, 5)
        op = ops.Attention(0.5, causal)
        yield op, (query, key, value)
        yield op, (query, key, value, of("bool", "N", 1, "Q", "K"))
        yield op, (query, key, value, of("bool", "N", 1, 1, "K"))
        same = of(dtype, "N", "T", 2, 4)
        yield op, (same, same, same)
        yield op, (same, same, same, of("bool", "N", 1, 1, "T"))


def convolutions() -> Iterator[Case]:
    """Convolutions of known and of open extents."""
    for extents, padding in itertools.product(((7, 10), ("H", "W")), ("valid", "same", ((1, 0), (2, 1)))):
        for strides, dilation, groups in (((1, 1), (), 1), ((2, 2), (), 2), ((1, 1), (2, 1), 4)):
            kernel, bias = _weight(3, 2, 4 // groups, 8), _weight(8)
            last = ops.Conv(strides, padding, dilation, groups)
            yield last, (f32("N", *extents, 4), kernel, bias)
            first = ops.Conv(strides, padding, dilation, groups, "channels_first")
            yield first, (f32("N", 4, *extents), kernel)
    for padding in ("valid", "same", ((2, 0),)):
        yield ops.Conv((2,), padding), (f32("N", "T", 4), _weight(3, 4, 5))
        yield ops.Conv((1,), padding, (2,)), (f32("N", 9, 4), f32(3, 4, 5))
    yield ops.Conv((1, 2, 1), "same"), (f32("N", 4, 5, 6, 2), _weight(2, 3, 3, 2, 3))


def transposed_convolutions() -> Iterator[Case]:
    """Convolutions backwards."""
    for strides, padding, extra, dilation, groups in (
        ((2, 2), ((0, 0), (0, 0)), (0, 0), (), 1),
        ((2, 3), ((1, 0), (0, 1)), (0, 1), (), 1),
        ((1, 1), ((1, 1), (2, 2)), (0, 0), (2, 2), 2),
        ((3, 2), ((0, 1), (1, 0)), (2, 1), (), 2),
        ((1, 1), ((0, 2), (1, 3)), (2, 3), (), 1),
    ):
        kernel, bias = _weight(3, 3, 6 // groups, 4), _weight(6)
        op = ops.ConvTranspose(strides, padding, extra, dilation, groups)
        yield op, (f32("N", 4, 5, 4), kernel, bias)
        yield op, (f32("N", "H", "W", 4), kernel)
    yield ops.ConvTranspose((2,), ((0, 1),), (0,)), (f32("N", "T", 4), _weight(3, 5, 4))


def pools() -> Iterator[Case]:
    """Pooling of known and of open extents."""
    for extents, padding in itertools.product(((7, 10), ("H", "W")), ("valid", "same")):
        for size, strides in (((2, 2), (2, 2)), ((3, 2), (1, 2)), ((3, 3), (2, 2))):
            for kind in (ops.MaxPool, ops.AvgPool):
                yield kind(size, strides, padding), (f32("N", *extents, 3),)
                yield kind(size, strides, padding, "channels_first"), (f32("N", 3, *extents),)
    for padding in ("valid", "same", ((2, 0),)):
        yield ops.MaxPool((3,), (2,), padding), (f32("N", "T", 4),)
        yield ops.AvgPool((3,), (2,), padding), (f32("N", 9, 4),)
        yield ops.AvgPool((3,), (2,), padding), (f32("N", "T", 4),)
    yield ops.MaxPool((2, 2, 2), (2, 2, 2)), (f32("N", 4, 5, 6, 2),)
    yield ops.AvgPool((2, 2, 2), (2, 2, 2), "same"), (f32("N", 4, 5, 6, 2),)
    for dtype in ("float64", "int8", "uint8", "int32", "float16"):
        yield ops.MaxPool((2, 2), (2, 2), "same"), (of(dtype, "N", 5, 5, 2),)


def resizes() -> Iterator[Case]:
    """Resampling of known and of open extents."""
    for size, interpolation in itertools.product(((8, 12), (3, 3), (6, 15), (5, 7)), ("nearest", "bilinear")):
        yield ops.Resize(size, interpolation), (f32("N", 4, 6, 2),)
        yield ops.Resize(size, interpolation, "channels_first"), (f32("N", 2, 4, 6),)
        yield ops.Resize(size, interpolation), (f32("N", "H", "W", 2),)
    yield ops.Resize(("2*H", "3*W")), (f32("N", "H", "W", 2),)
    yield ops.Resize(("2*H", "3*W"), "bilinear"), (f32("N", "H", "W", 2),)
    yield ops.Resize(("2*T",)), (f32("N", "T", 2),)
    yield ops.Resize((7,), "bilinear"), (f32("N", 4, 2),)
    yield ops.Resize((4, 6, 4)), (f32("N", 2, 3, 4, 2),)
    for dtype in ("uint8", "int32", "int64", "float16"):
        yield ops.Resize((8, 12)), (of(dtype, "N", 4, 6, 2),)


def constants() -> Iterator[Case]:
    """Values known at compile time."""
    yield ops.Full((2, 3), 1.5), ()
    yield ops.Full((20, 30), -2.0, "float64"), ()
    yield ops.Full((), 7, "int32"), ()


def few_bits() -> Iterator[Case]:
    """Quantisation with one scale, a scale per index of an axis, and scales that are computed."""
    for zero in (np.uint8(128), np.int8(-3), np.uint8(0)):
        yield ops.QuantizeLinear(), (f32("N", 3, 5), np.asarray(0.03, np.float32), np.asarray(zero))
        yield ops.DequantizeLinear(), (of(zero.dtype.name, "N", 3, 5), np.asarray(0.03, np.float32), np.asarray(zero))
    scales = np.linspace(0.01, 0.2, 5, dtype=np.float32)
    yield ops.QuantizeLinear(), (f32("N", 3, 5), scales, np.zeros((), np.int8))
    yield ops.DequantizeLinear(), (of("int32", "N", 5), scales, np.zeros((), np.int32))
    yield ops.DequantizeLinear(), (of("uint8", "N", 3, 5), scales[:3, None], np.arange(3, dtype=np.uint8)[:, None])
    kernel = np.arange(-60, 60, dtype=np.int8).reshape(12, 10)
    yield ops.DenseNarrow(), (of("uint8", "N", 4, 12), kernel)
    yield ops.DenseNarrow(), (of("uint8", "N", 12), kernel, np.arange(10, dtype=np.int32) * 1000)


FAMILIES = (
    *(arithmetic, casts, logic, activations, moves, reductions, linear, attention),
    *(convolutions, transposed_convolutions, pools, resizes, constants, few_bits),
)


def graph_of(case: Case, outputs: int | None = None) -> Graph:
    """The graph of one case, with its first `outputs` results; arrays are constants."""
    op, types = case
    b = Builder("one")
    with b.source("outer/layer"):
        operands = [
            b.input(f"x{i}", t) if isinstance(t, TensorType) else b.constant(t, f"layer/w{i}")
            for i, t in enumerate(types)
        ]
        return b.build(b.multi(op, *operands)[:outputs])
