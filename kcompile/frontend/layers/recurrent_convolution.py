"""Recurrent layers over images, whose products are convolutions; Shi et al. 2015, arXiv:1506.04214."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from kcompile.frontend import activations
from kcompile.frontend.layer import register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.recurrent import Recurrent
from kcompile.frontend.layers.recurrent_cells import ForgetBias, UnrolledCell
from kcompile.frontend.layers.writing import inverse, reshape, transpose
from kcompile.frontend.tracing import Trace, flatten, map_structure
from kcompile.ir import dims, ops
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value


@dataclass(eq=False)
class ConvLSTMCell(UnrolledCell):
    """``c' = f * c + i * activation(g)`` and ``h' = o * activation(c')``, each gate a sum of two convolutions.

    One convolution reads the step, as the layer's arguments say; the other reads ``h``, with padding "same".
    """

    keras_name = "conv_lstm_cell"

    layer: "_ConvLSTM" = field(repr=False)

    @property
    def state_count(self) -> int:
        return 2

    @property
    def output_size(self) -> int:
        return self.layer.filters

    def build(self, *input_shapes: Any) -> None:
        layer, wide = self.layer, 4 * self.layer.filters
        self.add_weight("kernel", (*layer.kernel_size, input_shapes[0][-1], wide), layer.kernel_initializer)
        recurrent = (*layer.kernel_size, layer.filters, wide)
        self.add_weight("recurrent_kernel", recurrent, layer.recurrent_initializer)
        if layer.use_bias:
            initializer: Any = layer.bias_initializer
            self.add_weight("bias", (wide,), ForgetBias(initializer) if layer.unit_forget_bias else initializer)

    def prepare(self, t: Trace, x: Value) -> Value:
        layer, lead = self.layer, x.type.shape[:2]
        bias = [t.weight("bias")] if layer.use_bias else []
        op = ops.Conv(layer.strides, "same" if layer.padding == "same" else "valid", layer.dilation_rate)
        y = t(op, reshape(t, x, (dims.mul(*lead), *x.type.shape[2:])), t.weight("kernel"), *bias)
        return reshape(t, y, (*lead, *y.type.shape[1:]))

    def state_shapes(self, step: Shape) -> list[Shape]:
        return [(*step[:-1], self.layer.filters)] * 2

    def step(self, t: Trace, x: Value, states: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        h, c = states
        op = ops.Conv((1,) * self.layer.rank, "same")
        total = t(ops.Add(), x, t(op, h, t.weight("recurrent_kernel")))
        filters, axis = self.layer.filters, total.type.rank - 1
        i, f, g, o = (t(ops.Slice(axis, n * filters, (n + 1) * filters), total) for n in range(4))

        def gate(value: Value) -> Value:
            return activations.apply(t, self.layer.recurrent_activation, value)

        def act(value: Value) -> Value:
            return activations.apply(t, self.layer.activation, value)

        c = t(ops.Add(), t(ops.Mul(), gate(f), c), t(ops.Mul(), gate(i), act(g)))
        h = t(ops.Mul(), gate(o), act(c))
        return h, (h, c)


@dataclass(eq=False)
class _ConvLSTM(Recurrent):
    """Base: ``x: T[N, L, *spatial, C] -> T[N, *spatial', filters]``, or with the steps where `return_sequences`."""

    rank: ClassVar[int]

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: str | None = None
    dilation_rate: Any = 1
    activation: Any = "tanh"
    recurrent_activation: Any = "sigmoid"
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    unit_forget_bias: bool = True
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    zero_output_for_mask: bool = False
    masks_with_initial_state: bool = False

    time_major = False

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "filters")
        for argument in ("kernel_size", "strides", "dilation_rate"):
            setattr(self, argument, arguments.integers(self, argument, self.rank))
        self.padding = self.padding.lower()
        arguments.choice(self, "padding", ("valid", "same"))
        self.data_format = arguments.data_format(self)
        for argument in ("activation", "recurrent_activation"):
            found = activations.get(getattr(self, argument), f"`{argument}` of layer `{self.name}`")
            setattr(self, argument, found)
        self.cell = ConvLSTMCell(self, name="conv_lstm_cell", dtype=self.dtype, trainable=self.trainable)

    def _to_last(self, rank: int) -> tuple[int, ...]:
        """The order of axes that brings the channels of a tensor of `rank` axes to the end."""
        channels = rank - self.rank - 1
        return (*(a for a in range(rank) if a != channels), channels)

    def build(self, *input_shapes: Any) -> None:
        shape = input_shapes[0]
        arguments.rank_of(self, shape, self.rank + 3)
        if self.data_format == "channels_first":
            shape = tuple(shape[a] for a in self._to_last(len(shape)))
        super().build(shape)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value | tuple[Any, ...]:
        if t.training:
            self.require(not self.dropout, "dropout", "0 while training")
            self.require(not self.recurrent_dropout, "recurrent_dropout", "0 while training")
        if self.data_format == "channels_last":
            return super().call(t, *args, **kwargs)
        x, *states = [*flatten(args), *(s for s in flatten(kwargs.get("initial_state")) if s is not None)]
        last = [transpose(t, v, self._to_last(v.type.rank)) for v in (x, *states)]
        result = super().call(t, *last)
        return map_structure(lambda v: transpose(t, v, inverse(self._to_last(v.type.rank))), result)


@register_layer("keras>ConvLSTM1D")
@dataclass(eq=False)
class ConvLSTM1D(_ConvLSTM):
    """A convolutional LSTM over sequences of sequences."""

    rank = 1
    input_rank = 4


@register_layer("keras>ConvLSTM2D")
@dataclass(eq=False)
class ConvLSTM2D(_ConvLSTM):
    """A convolutional LSTM over sequences of images."""

    rank = 2
    input_rank = 5


@register_layer("keras>ConvLSTM3D")
@dataclass(eq=False)
class ConvLSTM3D(_ConvLSTM):
    """A convolutional LSTM over sequences of volumes."""

    rank = 3
    input_rank = 6
