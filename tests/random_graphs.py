"""Graphs made at random, as models are made: images through convolutions, pools, sums, concatenations and heads."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kcompile.errors import TypeRuleError
from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.op import Op
from kcompile.ir.types import TensorType

Draw = Callable[[st.SearchStrategy[Any]], Any]

_BATCH = 2
_MOST_ELEMENTS = 2000


class RandomGraph:
    """A builder that adds one random node at a time to values that it has made before."""

    def __init__(self, draw: Draw, dtype: str) -> None:
        self.draw, self.dtype = draw, dtype
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.b = Builder("random")
        shapes = [(4, 4, 3), (6, 4, 1), (1, 1, 4), (8, 2), (5,)]
        chosen = draw(st.lists(st.sampled_from(shapes), min_size=1, max_size=2))
        self.values = [self.b.input(f"x{i}", TensorType(dtype, ("N", *shape))) for i, shape in enumerate(chosen)]
        self.inputs = list(self.values)

    def finish(self) -> tuple[Graph, dict[str, NDArray]]:
        """The graph with the last value and some others as outputs, and arrays for its inputs."""
        others = self.draw(st.lists(st.sampled_from(self.values), max_size=2))
        graph = self.b.build([self.values[-1], *others])
        shapes = {value.name: value.type.bind({"N": _BATCH}).static_shape() for value in self.inputs}
        return graph, {name: self.rng.standard_normal(shape).astype(self.dtype) for name, shape in shapes.items()}

    def grow(self) -> None:
        """Add one node, or a few that belong together; none where the choice does not fit."""
        # Mostly the newest value goes on, as in a chain of layers.
        x = self.values[-1] if self.draw(st.integers(0, 2)) else self.draw(st.sampled_from(self.values))
        step = self.draw(st.sampled_from(_IMAGE_STEPS * (x.type.rank > 2) + _ANY_STEPS))
        with self.b.source(f"layer_{len(self.values)}"):
            try:
                y = step(self, x)
            except TypeRuleError:
                return
        extents = [dim for dim in y.type.shape if isinstance(dim, int)]
        if (
            y.type.rank > 1
            and y.type.shape[0] == "N"
            and 0 < math.prod(extents) <= _MOST_ELEMENTS
            and y.type.dtype == self.dtype
        ):
            self.values.append(y)

    def constant(self, *shape: int, low: float = -math.inf) -> Value:
        """Weights of a size that keeps results near 1."""
        numbers = np.asarray(self.rng.standard_normal(shape)) / math.sqrt(max(math.prod(shape[:-1]), 1))
        positive = numbers if low == -math.inf else low + np.abs(numbers)
        return self.b.constant(positive.astype(self.dtype), f"w{self.rng.integers(10**6)}")

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))


def _channels(x: Value, axis: int = -1) -> int:
    return int(x.type.shape[axis])


def _conv(g: RandomGraph, x: Value) -> Value:
    rank, first = x.type.rank - 2, g.number(0, 4) == 0
    channels = _channels(x, 1 if first else -1)
    groups = g.one_of(1, 1, channels)
    filters = groups * g.number(1, 2) if groups > 1 else g.number(1, 4)
    window = tuple(g.number(1, 3) for _ in range(rank))
    padding = g.one_of("same", "valid", tuple((g.number(0, 1), 1) for _ in range(rank)))
    strides = tuple(g.number(1, 2) for _ in range(rank))
    op = ops.Conv(strides, padding, (), groups, "channels_first" if first else "channels_last")
    bias = [g.constant(filters)] if g.flag() else []
    return g.b(op, x, g.constant(*window, channels // groups, filters), *bias)


def _conv_transpose(g: RandomGraph, x: Value) -> Value:
    rank, filters = x.type.rank - 2, g.number(1, 3)
    op = ops.ConvTranspose((2,) * rank, ((0, g.number(0, 1)),) * rank, (0,) * rank)
    return g.b(op, x, g.constant(*(g.number(1, 3),) * rank, filters, _channels(x)))


def _pool(g: RandomGraph, x: Value) -> Value:
    rank = x.type.rank - 2
    size = tuple(g.number(1, 3) for _ in range(rank))
    strides = g.one_of(size, (1,) * rank, (2,) * rank)
    return g.b(g.one_of(ops.MaxPool, ops.AvgPool)(size, strides, g.one_of("valid", "same")), x)


def _resize(g: RandomGraph, x: Value) -> Value:
    size = tuple(int(dim) * g.number(1, 2) for dim in x.type.shape[1:-1])
    return g.b(ops.Resize(size, g.one_of("nearest", "bilinear")), x)


def _squeeze_excite(g: RandomGraph, x: Value) -> Value:
    rank, channels = x.type.rank, _channels(x)
    pooled = g.b(ops.ReduceMean(tuple(range(1, rank - 1)), g.flag()), x)
    pooled = g.b(ops.Reshape(("N", *(1,) * (rank - 2), channels)), pooled)
    hidden = g.b(ops.Conv((1,) * (rank - 2)), pooled, g.constant(*(1,) * (rank - 2), channels, channels))
    return g.b(ops.Mul(), x, g.b(ops.Sigmoid(), hidden))


def _residual(g: RandomGraph, x: Value) -> Value:
    rank, channels = x.type.rank - 2, _channels(x)
    inner = g.b(ops.Conv((1,) * rank, "same"), x, g.constant(*(3,) * rank, channels, channels))
    return g.b(ops.Add(), *(inner, x) if g.flag() else (x, inner))


def _pad(g: RandomGraph, x: Value) -> Value:
    low, high = ((0, *(g.number(0, 1) for _ in x.type.shape[1:-1]), 0) for _ in range(2))
    mode = g.one_of("constant", "constant", "edge")
    return g.b(ops.Pad(low, high, mode, g.one_of(0.0, 0.0, -1.0) if mode == "constant" else 0.0), x)


def _flatten(g: RandomGraph, x: Value) -> Value:
    shape = x.type.shape
    keep = g.number(1, x.type.rank - 2) if g.flag() else 1
    return g.b(ops.Reshape((*shape[:keep], math.prod(map(int, shape[keep:])))), x)


def _merge_space(g: RandomGraph, x: Value) -> Value:
    inside = map(int, x.type.shape[1:-1])
    return g.b(ops.Reshape(("N", math.prod(inside), _channels(x))), x)


def _batch_norm(g: RandomGraph, x: Value) -> Value:
    axis = g.one_of(-1, -1, 1)
    size = _channels(x, axis)
    gamma, beta, mean = (g.constant(size) for _ in range(3))
    return g.b(ops.BatchNorm(1e-3, axis), x, gamma, beta, mean, g.constant(size, low=0.5))


def _unary(g: RandomGraph, x: Value) -> Value:
    slope = g.one_of(0.0, 0.2)
    activations: tuple[Op, ...] = (
        ops.Relu(),
        ops.Relu(),
        ops.Sigmoid(),
        ops.Tanh(),
        ops.Silu(),
        ops.Gelu(),
        ops.LeakyRelu(slope),
        ops.Clip(-0.5, 0.5),
        ops.Clip(0.0, math.inf),
        ops.Abs(),
        ops.Neg(),
        ops.Cast(g.dtype),
    )
    return g.b(g.one_of(*activations), x)


def _constant_operand(g: RandomGraph, x: Value) -> Value:
    op = g.one_of(ops.Add(), ops.Mul(), ops.Sub(), ops.Maximum(), ops.Minimum(), ops.PRelu(), ops.Div())
    shape = g.one_of((), (_channels(x),), tuple(map(int, x.type.shape[1:])))
    if isinstance(op, ops.Div):
        return g.b(op, x, g.constant(*shape, low=0.5))
    uniform = g.one_of(None, None, 0.0, 1.0)
    number = None if uniform is None else g.b.constant(np.full(shape, uniform, g.dtype))
    y = g.constant(*shape) if number is None else number
    return g.b(op, *((x, y) if g.flag() or isinstance(op, ops.PRelu) else (y, x)))


def _two(g: RandomGraph, x: Value) -> Value:
    alike = [value for value in g.values if value.type == x.type]
    return g.b(g.one_of(ops.Add(), ops.Mul(), ops.Sub(), ops.Maximum()), x, g.one_of(*alike))


def _concat(g: RandomGraph, x: Value) -> Value:
    alike = [value for value in g.values if value.type.shape[:-1] == x.type.shape[:-1]]
    return g.b(ops.Concat(g.one_of(-1, x.type.rank - 1)), *(g.one_of(*alike) for _ in range(g.number(1, 2))), x)


def _transpose(g: RandomGraph, x: Value) -> Value:
    return g.b(ops.Transpose((0, *g.draw(st.permutations(range(1, x.type.rank))))), x)


def _slice(g: RandomGraph, x: Value) -> Value:
    axis = g.number(1, x.type.rank - 1)
    start = g.number(0, _channels(x, axis) - 1)
    return g.b(ops.Slice(axis, start, g.number(start + 1, _channels(x, axis)), g.one_of(1, 1, 2)), x)


def _along(g: RandomGraph, x: Value) -> Value:
    axis = g.one_of(*range(1, x.type.rank), -1)
    return g.b(g.one_of(ops.Softmax(axis), ops.CumSum(axis), ops.Reverse((axis,)), ops.Sort(axis)), x)


def _reduce(g: RandomGraph, x: Value) -> Value:
    axes = tuple(axis for axis in range(1, x.type.rank) if g.flag())
    return g.b(g.one_of(ops.ReduceMean, ops.ReduceMax, ops.ReduceSum)(axes, g.flag()), x)


def _tile(g: RandomGraph, x: Value) -> Value:
    return g.b(ops.Tile((1, *(g.number(1, 2) for _ in x.type.shape[1:]))), x)


def _broadcast(g: RandomGraph, x: Value) -> Value:
    shape = tuple(2 if dim == 1 else dim for dim in x.type.shape)
    return g.b(ops.Add(), g.b(ops.BroadcastTo(shape), x), g.b(ops.Full(shape, 0.5, g.dtype)))


def _dense(g: RandomGraph, x: Value) -> Value:
    units = g.number(1, 4)
    kernel = g.constant(_channels(x), units)
    if g.flag():
        return g.b(ops.MatMul() if x.type.rank > 1 else ops.Dense(), x, kernel)
    return g.b(ops.Dense(), x, kernel, g.constant(units))


def _layer_norm(g: RandomGraph, x: Value) -> Value:
    return g.b(ops.LayerNorm(1e-3), x, g.constant(_channels(x)), g.constant(_channels(x)))


def _lstm(g: RandomGraph, x: Value) -> Value:
    length = math.prod(map(int, x.type.shape[1:-1]))
    sequence = g.b(ops.Reshape(("N", length, _channels(x))), x)
    weights = (g.constant(_channels(x), 8), g.constant(2, 8), g.constant(8))
    return g.b.multi(ops.Lstm(reverse=g.flag()), sequence, *weights)[g.number(0, 2)]


def _constant_branch(g: RandomGraph, x: Value) -> Value:
    table = g.b(ops.Tanh(), g.b(ops.Transpose((1, 0)), g.constant(_channels(x), 3)))
    return g.b(ops.Add(), x, g.b(ops.ReduceSum((0,)), table))


_IMAGE_STEPS = [
    _conv,
    _conv,
    _conv,
    _conv_transpose,
    _pool,
    _pool,
    _resize,
    _squeeze_excite,
    _residual,
    _pad,
    _flatten,
    _merge_space,
]
_ANY_STEPS = [
    _batch_norm,
    _batch_norm,
    _unary,
    _unary,
    _constant_operand,
    _two,
    _concat,
    _transpose,
    _slice,
    _along,
    _reduce,
    _tile,
    _broadcast,
    _dense,
    _layer_norm,
    _lstm,
    _constant_branch,
]
