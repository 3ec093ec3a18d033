"""What hypothesis draws: instances of every op with operands that fit, and whole graphs.

    @given(op_cases())
    def test_every_kernel_returns_what_it_infers(case: OpCase) -> None: ...

An op that has no entry in `CASES` fails the test that every op has one.
"""

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import OPS, Binary, Op, Tensor, Unary
from kcompile.ir.types import type_of
from tests.random_graphs import RandomGraph

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class OpCase:
    """An op and arrays that it accepts."""

    op: Op
    arrays: tuple[NDArray, ...]

    def __repr__(self) -> str:
        return f"{self.op!r} of ({', '.join(str(type_of(array)) for array in self.arrays)})"


# How operands of an op of a class are drawn, for a float dtype.
Case = Callable[[Draw, str], OpCase]
CASES: dict[type[Op], Case] = {}


def case_of(*classes: type[Op]) -> Callable[[Callable[..., OpCase]], Callable[..., OpCase]]:
    """Enter the decorated function, ``(draw, cls, dtype) -> OpCase``, for `classes`."""

    def enter(function: Callable[..., OpCase]) -> Callable[..., OpCase]:
        for cls in classes:
            CASES[cls] = lambda draw, dtype, cls=cls: function(draw, cls, dtype)
        return function

    return enter


@st.composite
def op_cases(draw: Draw, cls: type[Op] | None = None, dtype: str = "float64") -> OpCase:
    """An op of class `cls`, or of any, with operands; floats among them have `dtype`."""
    chosen = cls or draw(st.sampled_from(sorted(CASES, key=lambda c: c.op_name)))
    return CASES[chosen](draw, dtype)


# ---- operands


def floats(draw: Draw, shape: tuple[int, ...], dtype: str, low: float = -math.inf) -> NDArray:
    """Normal numbers above `low`; drawn by a seed, so that a failure shrinks in shape, not element by element."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    numbers = np.asarray(rng.standard_normal(shape))
    if draw(st.booleans()):  # ties, zeros and halves
        numbers = np.round(numbers * 2) / 2
    return np.asarray(numbers if low == -math.inf else low + np.abs(numbers), dtype)


def integers(draw: Draw, shape: tuple[int, ...], low: int, high: int, dtype: str = "int32") -> NDArray:
    """Integers from `low` to `high`."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return np.asarray(rng.integers(low, high + 1, shape), dtype)


def booleans(draw: Draw, shape: tuple[int, ...]) -> NDArray:
    """True and False."""
    return integers(draw, shape, 0, 1, "bool")


def shapes(min_rank: int = 0, max_rank: int = 4, low: int = 1, high: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of small extents."""
    return st.lists(st.integers(low, high), min_size=min_rank, max_size=max_rank).map(tuple)


def broadcasting(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to `shape`: leading axes left out, extents set to 1."""
    kept = shape[draw(st.integers(0, len(shape))) :]
    return tuple(draw(st.sampled_from([1, extent])) for extent in kept)


def partners(draw: Draw, count: int) -> list[tuple[int, ...]]:
    """Shapes that broadcast to one another."""
    shape = draw(shapes(low=0))
    return [shape, *(broadcasting(draw, shape) for _ in range(count - 1))]


def axis_of(draw: Draw, rank: int) -> int:
    """An axis, counted from the front or from the back."""
    return draw(st.integers(-rank, rank - 1))


# ---- elementwise

_POSITIVE = (ops.Log, ops.Sqrt)
_LOGICAL = (ops.And, ops.Or, ops.Not)
_ATTRIBUTES: dict[type[Op], Callable[[Draw], dict[str, object]]] = {
    ops.LeakyRelu: lambda draw: {"negative_slope": draw(st.sampled_from([0.0, 0.2, 1.0]))},
    ops.Elu: lambda draw: {"alpha": draw(st.sampled_from([1.0, 0.3]))},
    ops.Celu: lambda draw: {"alpha": draw(st.sampled_from([1.0, 0.3]))},
    ops.HardSigmoid: lambda draw: dict(draw(st.sampled_from([{}, {"alpha": 0.2}, {"alpha": 0.2, "beta": 0.4}]))),
    ops.Gelu: lambda draw: {"approximate": draw(st.booleans())},
    ops.Clip: lambda draw: dict(zip(("min", "max"), draw(st.sampled_from(_CLIPS)), strict=True)),
}
_CLIPS = [(-1.0, 1.0), (0.0, 6.0), (-math.inf, 0.5), (0.0, math.inf), (-math.inf, math.inf)]


def _attributes(draw: Draw, cls: type[Op]) -> dict[str, Any]:
    return dict(_ATTRIBUTES[cls](draw)) if cls in _ATTRIBUTES else {}


def _bits(draw: Draw, *shapes: tuple[int, ...]) -> tuple[NDArray, ...]:
    """Bools, or integers of one dtype."""
    dtype = draw(st.sampled_from(["bool", "int32", "uint8"]))
    low, high = {"bool": (0, 1), "int32": (-300, 300), "uint8": (0, 255)}[dtype]
    return tuple(integers(draw, shape, low, high, dtype) for shape in shapes)


def _unary(draw: Draw, cls: type[Op], dtype: str) -> OpCase:
    shape = draw(shapes(low=0))
    if cls in _LOGICAL:
        return OpCase(cls(), _bits(draw, shape))
    x = floats(draw, shape, dtype, low=0.1 if cls in _POSITIVE else -math.inf)
    return OpCase(cls(**_attributes(draw, cls)), (x,))


def _binary(draw: Draw, cls: type[Op], dtype: str) -> OpCase:
    first, second = draw(st.permutations(partners(draw, 2)))
    if cls in _LOGICAL:
        return OpCase(cls(), _bits(draw, first, second))
    x = floats(draw, first, dtype, low=0.1 if cls is ops.Pow else -math.inf)
    y = floats(draw, second, dtype)
    if cls in (ops.Div, ops.FloorDiv, ops.Mod):
        y = np.where(np.abs(y) < 0.1, np.asarray(0.7, dtype), y)
    return OpCase(cls(), (x, y))


def _generic(cls: type[Op]) -> bool:
    required = [f for f in fields(cls) if f.default is MISSING]
    return not required or cls in _ATTRIBUTES


for _cls in list(OPS.values()):
    if issubclass(_cls, Unary | Binary) and _generic(_cls):
        case_of(_cls)(_unary if issubclass(_cls, Unary) else _binary)


@case_of(ops.Cast)
def _cast(draw: Draw, cls: type[ops.Cast], dtype: str) -> OpCase:
    target = draw(st.sampled_from(["float32", "float64", "int32", "uint8", "bool"]))
    shape = draw(shapes(low=0))
    x = draw(
        st.sampled_from([floats(draw, shape, dtype, low=0.0), integers(draw, shape, 0, 200), booleans(draw, shape)])
    )
    return OpCase(cls(target), (x,))


@case_of(ops.Compare)
def _compare(draw: Draw, cls: type[ops.Compare], dtype: str) -> OpCase:
    relation = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    first, second = draw(st.permutations(partners(draw, 2)))
    return OpCase(cls(relation), (floats(draw, first, dtype), floats(draw, second, dtype)))


@case_of(ops.Where)
def _where(draw: Draw, cls: type[ops.Where], dtype: str) -> OpCase:
    condition, x, y = draw(st.permutations(partners(draw, 3)))
    return OpCase(cls(), (booleans(draw, condition), floats(draw, x, dtype), floats(draw, y, dtype)))


# ---- along axes


@case_of(ops.Softmax, ops.LogSoftmax, ops.CumSum)
def _along(draw: Draw, cls: Any, dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    return OpCase(cls(axis=axis_of(draw, x.ndim)), (x,))


@case_of(ops.Sort)
def _sort(draw: Draw, cls: type[ops.Sort], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    return OpCase(cls(axis_of(draw, x.ndim), draw(st.booleans())), (x,))


@case_of(ops.ArgReduce)
def _arg_reduce(draw: Draw, cls: type[ops.ArgReduce], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    return OpCase(cls(axis_of(draw, x.ndim), draw(st.sampled_from(["max", "min"]))), (x,))


@case_of(ops.ReduceSum, ops.ReduceMean, ops.ReduceMax, ops.ReduceMin, ops.ReduceProd)
def _reduce(draw: Draw, cls: Any, dtype: str) -> OpCase:
    x = floats(draw, draw(shapes()), dtype)
    axes = [axis for axis in range(x.ndim) if draw(st.booleans())]
    signed = tuple(draw(st.sampled_from([axis, axis - x.ndim])) for axis in axes)
    return OpCase(cls(signed, draw(st.booleans())), (x,))


@case_of(ops.BatchNorm)
def _batch_norm(draw: Draw, cls: type[ops.BatchNorm], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    axis = axis_of(draw, x.ndim)
    size = (x.shape[axis],)
    gamma, beta, mean = (floats(draw, size, dtype) for _ in range(3))
    return OpCase(
        cls(draw(st.sampled_from([1e-3, 1e-5])), axis), (x, gamma, beta, mean, floats(draw, size, dtype, 0.1))
    )


@case_of(ops.LayerNorm)
def _layer_norm(draw: Draw, cls: type[ops.LayerNorm], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    normalized = x.shape[-draw(st.integers(1, x.ndim)) :]
    return OpCase(cls(draw(st.sampled_from([1e-3, 1e-6]))), (x, *(floats(draw, normalized, dtype) for _ in range(2))))


# ---- moves


@case_of(ops.Reshape)
def _reshape(draw: Draw, cls: type[ops.Reshape], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(high=6)), dtype)
    factors = [factor for extent in x.shape for factor in ((2, extent // 2) if extent % 2 == 0 else (extent, 1))]
    order = draw(st.permutations(factors))
    cut = sorted(draw(st.lists(st.integers(0, len(order)), max_size=3)))
    bounds = zip([0, *cut], [*cut, len(order)], strict=True)
    return OpCase(cls(tuple(math.prod(order[start:stop]) for start, stop in bounds)), (x,))


@case_of(ops.Transpose)
def _transpose(draw: Draw, cls: type[ops.Transpose], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(low=0)), dtype)
    return OpCase(cls(tuple(draw(st.permutations(range(x.ndim))))), (x,))


@case_of(ops.Concat)
def _concat(draw: Draw, cls: type[ops.Concat], dtype: str) -> OpCase:
    shape = draw(shapes(1))
    axis = axis_of(draw, len(shape))
    extents = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    parts = [[*shape] for _ in extents]
    for part, extent in zip(parts, extents, strict=True):
        part[axis] = extent
    return OpCase(cls(axis), tuple(floats(draw, tuple(part), dtype) for part in parts))


@case_of(ops.Slice)
def _slice(draw: Draw, cls: type[ops.Slice], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1, high=6)), dtype)
    axis = axis_of(draw, x.ndim)
    start = draw(st.integers(0, x.shape[axis]))
    stop = draw(st.integers(start, x.shape[axis]))
    return OpCase(cls(axis, start, stop, draw(st.integers(1, 3))), (x,))


@case_of(ops.ExpectExtent)
def _expect_extent(draw: Draw, cls: type[ops.ExpectExtent], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    axis = axis_of(draw, x.ndim)
    return OpCase(cls(axis, x.shape[axis]), (x,))


@case_of(ops.Pad)
def _pad(draw: Draw, cls: type[ops.Pad], dtype: str) -> OpCase:
    mode = draw(st.sampled_from(["constant", "edge", "reflect", "symmetric"]))
    x = floats(draw, draw(shapes(low=2)), dtype)
    most = 3 if mode == "constant" else 1
    low, high = (tuple(draw(st.integers(0, most)) for _ in x.shape) for _ in range(2))
    value = draw(st.sampled_from([0.0, -1.5])) if mode == "constant" else 0.0
    return OpCase(cls(low, high, mode, value), (x,))


@case_of(ops.Reverse)
def _reverse(draw: Draw, cls: type[ops.Reverse], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(low=0)), dtype)
    return OpCase(cls(tuple(axis for axis in range(x.ndim) if draw(st.booleans()))), (x,))


@case_of(ops.Tile)
def _tile(draw: Draw, cls: type[ops.Tile], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(high=3)), dtype)
    return OpCase(cls(tuple(draw(st.integers(0, 3)) for _ in x.shape)), (x,))


@case_of(ops.BroadcastTo)
def _broadcast_to(draw: Draw, cls: type[ops.BroadcastTo], dtype: str) -> OpCase:
    shape, small = partners(draw, 2)
    return OpCase(cls(shape), (floats(draw, small, dtype),))


@case_of(ops.Gather)
def _gather(draw: Draw, cls: type[ops.Gather], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    indices = integers(draw, draw(shapes(max_rank=2, low=0)), -2, 6, draw(st.sampled_from(["int32", "int64"])))
    return OpCase(cls(axis_of(draw, x.ndim)), (x, indices))


@case_of(ops.Constant)
def _constant(draw: Draw, cls: type[ops.Constant], dtype: str) -> OpCase:
    return OpCase(cls(Tensor(floats(draw, draw(shapes(low=0)), dtype)), draw(st.sampled_from(["", "conv/kernel"]))), ())


@case_of(ops.Full)
def _full(draw: Draw, cls: type[ops.Full], dtype: str) -> OpCase:
    return OpCase(cls(draw(shapes(low=0)), draw(st.sampled_from([0.0, 1.5])), dtype), ())


# ---- products, convolutions, pools


@case_of(ops.Dense)
def _dense(draw: Draw, cls: type[ops.Dense], dtype: str) -> OpCase:
    x = floats(draw, draw(shapes(1)), dtype)
    units = draw(st.integers(1, 4))
    bias = (floats(draw, (units,), dtype),) if draw(st.booleans()) else ()
    return OpCase(cls(), (x, floats(draw, (x.shape[-1], units), dtype), *bias))


@case_of(ops.MatMul)
def _matmul(draw: Draw, cls: type[ops.MatMul], dtype: str) -> OpCase:
    rows, inner, columns = (draw(st.integers(1, 4)) for _ in range(3))
    lead = draw(shapes(max_rank=2))
    first, second = draw(st.permutations([lead, broadcasting(draw, lead)]))
    return OpCase(cls(), (floats(draw, (*first, rows, inner), dtype), floats(draw, (*second, inner, columns), dtype)))


def _image(draw: Draw, spatial: list[int], channels: int, data_format: str, dtype: str) -> NDArray:
    batch = draw(st.integers(0, 2))
    shape = (batch, *spatial, channels) if data_format == "channels_last" else (batch, channels, *spatial)
    return floats(draw, shape, dtype)


def _formats() -> st.SearchStrategy[str]:
    return st.sampled_from(["channels_last", "channels_first"])


def _each(draw: Draw, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(low, high)) for _ in range(rank))


def _pairs(draw: Draw, rank: int, high: int) -> tuple[tuple[int, int], ...]:
    return tuple((draw(st.integers(0, high)), draw(st.integers(0, high))) for _ in range(rank))


@case_of(ops.Conv)
def _conv(draw: Draw, cls: type[ops.Conv], dtype: str) -> OpCase:
    rank, groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    filters = groups * draw(st.integers(1, 3))
    window, dilation = _each(draw, rank, 1, 3), draw(st.sampled_from([(), _each(draw, rank, 1, 2)]))
    padding = draw(st.sampled_from(["valid", "same", _pairs(draw, rank, 2)]))
    reach = [(size - 1) * rate + 1 for size, rate in zip(window, dilation or (1,) * rank, strict=True)]
    spatial = [draw(st.integers(size, 7)) for size in reach]
    op = cls(_each(draw, rank, 1, 3), padding, dilation, groups, draw(_formats()))
    x = _image(draw, spatial, groups * per_group, op.data_format, dtype)
    bias = (floats(draw, (filters,), dtype),) if draw(st.booleans()) else ()
    return OpCase(op, (x, floats(draw, (*window, per_group, filters), dtype), *bias))


# ---- few bits


@case_of(ops.QuantizeLinear)
def _quantize_linear(draw: Draw, cls: type[ops.QuantizeLinear], dtype: str) -> OpCase:
    x, scale, zero = partners(draw, 3)
    target = draw(st.sampled_from(["int8", "uint8"]))
    zeros = integers(draw, zero, 0, 100, target)
    return OpCase(cls(), (floats(draw, x, dtype), floats(draw, scale, dtype, low=0.01), zeros))


@case_of(ops.DequantizeLinear)
def _dequantize_linear(draw: Draw, cls: type[ops.DequantizeLinear], dtype: str) -> OpCase:
    x, scale, zero = partners(draw, 3)
    source = draw(st.sampled_from(["int8", "uint8", "int32"]))
    arrays = (integers(draw, x, 0, 127, source), floats(draw, scale, dtype, low=0.01))
    return OpCase(cls(), (*arrays, integers(draw, zero, 0, 100, source)))


@case_of(ops.ToBfloat16)
def _to_bfloat16(draw: Draw, cls: type[ops.ToBfloat16], dtype: str) -> OpCase:
    return OpCase(cls(), (floats(draw, draw(shapes(low=0)), "float32"),))


@case_of(ops.FromBfloat16)
def _from_bfloat16(draw: Draw, cls: type[ops.FromBfloat16], dtype: str) -> OpCase:
    return OpCase(cls(), (narrowed(floats(draw, draw(shapes(low=0)), "float32")),))


def narrowed(x: NDArray) -> NDArray:
    """The upper halves of float32 numbers, cut off."""
    return (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16).reshape(x.shape)


def _factors(draw: Draw, case: OpCase) -> tuple[NDArray, ...]:
    """The operands of a product in few bits: integers, or bfloat16 with a bias of float32."""
    x, kernel, *bias = case.arrays
    if draw(st.booleans()):
        return (narrowed(x), narrowed(kernel), *bias)
    numbers = integers(draw, x.shape, 0, 255, "uint8"), integers(draw, kernel.shape, -127, 127, "int8")
    return (*numbers, *(integers(draw, b.shape, -(2**20), 2**20) for b in bias))


@case_of(ops.DenseNarrow)
def _dense_narrow(draw: Draw, cls: type[ops.DenseNarrow], dtype: str) -> OpCase:
    return OpCase(cls(), _factors(draw, _dense(draw, ops.Dense, "float32")))


@case_of(ops.ConvNarrow)
def _conv_narrow(draw: Draw, cls: type[ops.ConvNarrow], dtype: str) -> OpCase:
    case = _conv(draw, ops.Conv, "float32")
    op = case.op
    assert isinstance(op, ops.Conv)
    if op.data_format == "channels_first":
        case = OpCase(op, (np.moveaxis(case.arrays[0], 1, -1), *case.arrays[1:]))
    return OpCase(cls(op.strides, op.padding, op.dilation, op.groups), _factors(draw, case))


# ---- transposed convolutions, pools and others


@case_of(ops.ConvTranspose)
def _conv_transpose(draw: Draw, cls: type[ops.ConvTranspose], dtype: str) -> OpCase:
    rank, groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, 3))
    window, strides = _each(draw, rank, 1, 3), _each(draw, rank, 1, 3)
    dilation = draw(st.sampled_from([(), _each(draw, rank, 1, 2)]))
    crop = tuple((draw(st.integers(0, size - 1)), 0) for size in window)
    op = cls(strides, crop, tuple(draw(st.integers(0, s - 1)) for s in strides), dilation, groups, draw(_formats()))
    x = _image(draw, [draw(st.integers(1, 4)) for _ in window], channels, op.data_format, dtype)
    bias = (floats(draw, (groups * per_group,), dtype),) if draw(st.booleans()) else ()
    return OpCase(op, (x, floats(draw, (*window, per_group, channels), dtype), *bias))


@case_of(ops.MaxPool, ops.AvgPool)
def _pool(draw: Draw, cls: Any, dtype: str) -> OpCase:
    rank = draw(st.integers(1, 3))
    size = _each(draw, rank, 1, 3)
    pairs = tuple((draw(st.integers(0, s - 1)), draw(st.integers(0, s - 1))) for s in size)
    op = cls(size, _each(draw, rank, 1, 3), draw(st.sampled_from(["valid", "same", pairs])), draw(_formats()))
    spatial = [draw(st.integers(s, 7)) for s in size]
    return OpCase(op, (_image(draw, spatial, draw(st.integers(1, 3)), op.data_format, dtype),))


@case_of(ops.Resize)
def _resize(draw: Draw, cls: type[ops.Resize], dtype: str) -> OpCase:
    rank = draw(st.integers(1, 3))
    op = cls(_each(draw, rank, 1, 7), draw(st.sampled_from(["nearest", "bilinear"])), draw(_formats()))
    return OpCase(op, (_image(draw, [*_each(draw, rank, 1, 4)], 2, op.data_format, dtype),))


# ---- sequences


@case_of(ops.Lstm, ops.Gru, ops.SimpleRnn)
def _recurrent(draw: Draw, cls: Any, dtype: str) -> OpCase:
    batch, length, features, units = (draw(st.integers(1, 3)) for _ in range(4))
    has_state, has_mask = draw(st.booleans()), draw(st.booleans())
    attributes: dict[str, Any] = {
        "activation": draw(st.sampled_from([ops.Tanh(), ops.Relu(), None])),
        "recurrent_activation": draw(st.sampled_from([ops.Sigmoid(), ops.HardSigmoid(alpha=0.2)])),
        "reverse": draw(st.booleans()),
        "has_initial_state": has_state,
        "has_mask": has_mask,
        "zero_masked_output": has_mask and draw(st.booleans()),
    }
    if cls is ops.Gru:
        attributes["reset_after"] = draw(st.booleans())
    wide = cls.gates * units
    weights = [(features, wide), (units, wide), *[(wide,)] * cls.biases, *[(batch, units)] * (cls.states * has_state)]
    arrays = [floats(draw, shape, dtype) for shape in weights]
    if cls is ops.Gru and not attributes["reset_after"]:
        arrays[3][:] = 0.0
    mask = (booleans(draw, (batch, length)),) if has_mask else ()
    return OpCase(cls(**attributes), (floats(draw, (batch, length, features), dtype), *arrays, *mask))


@case_of(ops.Attention)
def _attention(draw: Draw, cls: type[ops.Attention], dtype: str) -> OpCase:
    batch, queries, keys, groups, depth, width = (draw(st.integers(1, 3)) for _ in range(6))
    heads = groups * draw(st.integers(1, 2))
    shape = (batch, heads, queries, keys)
    mask = (booleans(draw, broadcasting(draw, shape)),) if draw(st.booleans()) else ()
    operands = [(batch, queries, heads, depth), (batch, keys, groups, depth), (batch, keys, groups, width)]
    op = cls(draw(st.sampled_from([1.0, 0.5])), draw(st.booleans()))
    return OpCase(op, (*(floats(draw, s, dtype) for s in operands), *mask))


@case_of(ops.Fused)
def _fused(draw: Draw, cls: type[ops.Fused], dtype: str) -> OpCase:
    first = _binary(draw, ops.Sub, dtype)
    b = Builder("body")
    x, y = (b.input(name, type_of(array)) for name, array in zip("xy", first.arrays, strict=True))
    half = b.constant(np.asarray(0.5, dtype))
    difference = b(ops.Sub(), x, y)
    body = b.build([b(ops.Mul(), b(ops.Tanh(), difference), half), difference][: draw(st.integers(1, 2))])
    return OpCase(cls("elementwise", body), first.arrays)


@case_of(ops.Scan)
def _scan(draw: Draw, cls: type[ops.Scan], dtype: str) -> OpCase:
    """``h' = tanh(w * h + x)``, where the output is ``h' - x`` too."""
    rows, length, size = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    b = Builder("body")
    w = b.input("w", type_of(np.zeros(size, dtype)))
    h, x = (b.input(name, type_of(np.zeros((rows, size), dtype))) for name in ("h", "x"))
    new = b(ops.Tanh(), b(ops.Add(), b(ops.Mul(), w, h), x))
    body = b.build([new, new, b(ops.Sub(), new, x)][: draw(st.integers(2, 3))])
    arrays = (floats(draw, shape, dtype) for shape in ((size,), (rows, size), (rows, length, size)))
    return OpCase(cls(body, 1, 1, draw(st.booleans())), tuple(arrays))


# ---- graphs


class GraphCase:
    """A graph and arrays for its inputs; no dataclass, because hypothesis would print all fields of one."""

    def __init__(self, graph: Graph, inputs: dict[str, NDArray]) -> None:
        self.graph, self.inputs = graph, inputs

    def __repr__(self) -> str:
        return str(self.graph)


@st.composite
def graphs(draw: Draw, dtype: str = "float64", steps: int = 10) -> GraphCase:
    """A graph over images of a symbolic batch ``N``, with inputs for it; every result is smooth or piecewise linear."""
    made = RandomGraph(draw, dtype)
    for _ in range(draw(st.integers(1, steps))):
        made.grow()
    return GraphCase(*made.finish())


from tests import gradient_cases as gradient_cases  # noqa: E402 - enters its cases with what stands above
from tests import text_cases as text_cases  # noqa: E402 - the same
