"""LocallyConnected1D and 2D of Keras 1 and 2: convolutions with other weights at each place.

Three layouts of the weights, as the argument `implementation` says: the windows of each place; a matrix from all inputs
to all outputs, of which only what is connected counts; and the numbers of that matrix that count, in its order. Source:
keras/layers/local.py of Keras 2.2.4 and keras/layers/locally_connected of 2.10.
"""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import activations
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value
from kcompile.ir.types import Array


@dataclass(frozen=True)
class _Places:
    """Which inputs each output of a layer reads, in known extents."""

    spatial: tuple[int, ...]
    channels: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str

    @property
    def outputs(self) -> tuple[int, ...]:
        """The extents of the result."""
        lost = [0 if self.padding == "same" else w - 1 for w in self.window]
        axes = zip(self.spatial, lost, self.strides, strict=True)
        return tuple(-(-(extent - less) // stride) for extent, less, stride in axes)

    def windows(self) -> Array:
        """The places that each output reads, numbered over all: ``i32[outputs, window]``; for padding "valid"."""
        grids = [
            np.arange(count)[:, None] * stride + np.arange(w)
            for count, stride, w in zip(self.outputs, self.strides, self.window, strict=True)
        ]
        numbers = np.zeros((1, 1), np.int64)
        for grid, extent in zip(grids, self.spatial, strict=True):
            apart = numbers[:, None, :, None] * extent + grid[None, :, None, :]
            numbers = apart.reshape(numbers.shape[0] * grid.shape[0], -1)
        return numbers.astype(np.int32)

    def connected(self) -> Array:
        """Whether an output reads a place: ``bool[*spatial, *outputs]``."""
        made = np.zeros((*self.spatial, *self.outputs), bool)
        for place in itertools.product(*map(range, self.outputs)):
            ranges = []
            for d, (at, w, extent) in enumerate(zip(place, self.window, self.spatial, strict=True)):
                first = at * self.strides[d] - (w // 2 if self.padding == "same" else 0)
                ranges.append(slice(max(0, first), min(extent, first + w)))
            made[(*ranges, *place)] = True
        return made


@dataclass(eq=False)
class _LocallyConnected(Layer):
    """``x: T[N, *spatial, C] -> T[N, *spatial', filters]``, or channels first; extents must be known."""

    rank: ClassVar[int]

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: str | None = None
    activation: Any = None
    use_bias: bool = True
    implementation: int = 1
    activity_regularizer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("kernel_size", "strides"):
            setattr(self, argument, arguments.integers(self, argument, self.rank))
        arguments.positive(self, "filters")
        arguments.choice(self, "implementation", (1, 2, 3))
        arguments.choice(self, "padding", ("valid",) if self.implementation == 1 else ("valid", "same"))
        self.data_format = arguments.data_format(self)
        self.activation = activations.get(self.activation, f"`activation` of layer `{self.name}`")

    @property
    def _first(self) -> bool:
        return self.data_format == "channels_first"

    def _places(self, shape: Any) -> _Places:
        arguments.rank_of(self, shape, self.rank + 2)
        if not all(isinstance(extent, int) for extent in shape[1:]):
            raise ModelError(f"layer `{self.name}` needs known extents. Received: shape {tuple(shape)}.")
        spatial, channels = (shape[2:], shape[1]) if self._first else (shape[1:-1], shape[-1])
        return _Places(tuple(spatial), int(channels), self.kernel_size, self.strides, self.padding)

    def _matrix_shape(self, places: _Places) -> tuple[int, ...]:
        if self._first:
            return (places.channels, *places.spatial, self.filters, *places.outputs)
        return (*places.spatial, places.channels, *places.outputs, self.filters)

    def _counting(self, places: _Places) -> Array:
        """Which elements of the matrix count, in its shape."""
        connected, rank = places.connected(), self.rank
        axes = (0, rank + 1) if self._first else (rank, 2 * rank + 1)
        return np.broadcast_to(np.expand_dims(connected, axes), self._matrix_shape(places))

    def build(self, *input_shapes: Any) -> None:
        places = self._places(input_shapes[0])
        count = int(np.prod(places.outputs))
        shape: tuple[int, ...] = (count, int(np.prod(self.kernel_size)) * places.channels, self.filters)
        if self.implementation == 2:
            shape = self._matrix_shape(places)
        elif self.implementation == 3:
            shape = (int(self._counting(places).sum()),)
        self.add_weight("kernel", shape)
        if self.use_bias:
            self.add_weight("bias", (*places.outputs, self.filters), "zeros")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, kernel = lift(t.b, args[0], t.weight("kernel"))
        places = self._places(x.shape)
        y = self._by_windows(x, kernel, places) if self.implementation == 1 else self._by_matrix(x, kernel, places)
        if self.use_bias:
            (bias,) = lift(t.b, t.weight("bias"))
            # As in Keras, the numbers of a bias stand in the same order in either data format.
            y = y + bias.reshape((1, *y.shape[1:]))
        return activations.apply(t, self.activation, y.value)

    def _by_windows(self, x: Expression, kernel: Expression, places: _Places) -> Expression:
        batch, size = x.shape[0], int(np.prod(places.spatial))
        count, features = kernel.shape[:2]
        numbers = x.b.constant(places.windows())
        if self._first:
            rows = x.reshape((batch, places.channels, size))
            windows = Expression(x.b, x.b(ops.Gather(2), rows.value, numbers)).transpose((2, 0, 1, 3))
        else:
            rows = x.reshape((batch, size, places.channels))
            windows = Expression(x.b, x.b(ops.Gather(1), rows.value, numbers)).transpose((1, 0, 2, 3))
        y = windows.reshape((count, batch, features)).apply(ops.MatMul(), kernel)
        order = (1, 2, 0) if self._first else (1, 0, 2)
        lead = (self.filters, *places.outputs) if self._first else (*places.outputs, self.filters)
        return y.transpose(order).reshape((batch, *lead))

    def _by_matrix(self, x: Expression, kernel: Expression, places: _Places) -> Expression:
        counting = self._counting(places)
        shape = self._matrix_shape(places)
        inputs, outputs = (int(np.prod(part)) for part in (shape[: self.rank + 1], shape[self.rank + 1 :]))
        flat = counting.reshape(inputs, outputs)
        if self.implementation == 2:
            mask = Expression(x.b, x.b.constant(flat))
            matrix = kernel.reshape((inputs, outputs)).where(mask, 0.0)
        else:
            # The numbers are in the order of a matrix from outputs to inputs; behind them stands a 0 for all others.
            numbers = np.full((outputs, inputs), int(flat.sum()), np.int32)
            numbers[flat.T] = np.arange(flat.sum(), dtype=np.int32)
            longer = kernel.apply(ops.Pad((0,), (1,)))
            matrix = Expression(x.b, x.b(ops.Gather(), longer.value, x.b.constant(numbers.T.copy())))
        y = x.reshape((x.shape[0], inputs)).apply(ops.Dense(), matrix)
        return y.reshape((x.shape[0], *shape[self.rank + 1 :]))


@register_layer("keras>LocallyConnected1D")
@dataclass(eq=False)
class LocallyConnected1D(_LocallyConnected):
    """Along one axis."""

    rank = 1


@register_layer("keras>LocallyConnected2D")
@dataclass(eq=False)
class LocallyConnected2D(_LocallyConnected):
    """Over images."""

    rank = 2
