"""Convolutions over one, two and three axes, plain, depthwise, separable and transposed."""

from dataclasses import dataclass
from typing import Any, ClassVar

from kcompile.errors import ModelError
from kcompile.frontend import activations
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.writing import cast, in_channels_last
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Value
from kcompile.ir.ops.conv import Padding
from kcompile.ir.ops.windows import Pairs


class _Convolution(Layer):
    """Base of all convolutions; no dataclass, so that each layer states its arguments in Keras's order."""

    rank: ClassVar[int]
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")
    strides_with_dilation: ClassVar[bool] = False

    kernel_size: Any
    strides: Any
    padding: str
    data_format: str | None
    dilation_rate: Any
    activation: Any
    use_bias: bool
    bias_initializer: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("kernel_size", "strides", "dilation_rate"):
            setattr(self, argument, arguments.integers(self, argument, self.rank))
        self.padding = self.padding.lower()
        arguments.choice(self, "padding", self.paddings)
        self.data_format = arguments.data_format(self)
        self.activation = activations.get(self.activation, f"`activation` of layer `{self.name}`")
        if not self.strides_with_dilation and max(self.strides) > 1 and max(self.dilation_rate) > 1:
            received = f"strides={self.strides}, dilation_rate={self.dilation_rate}"
            raise ModelError(f"layer `{self.name}` takes strides or a dilation rate above 1, not both. {received}.")

    def channels(self, shape: Shape) -> int:
        """The number of channels of an input shape."""
        arguments.rank_of(self, shape, self.rank + 2)
        extent: Dim = shape[-1] if self.data_format == "channels_last" else shape[1]
        if not isinstance(extent, int):
            law = f"layer `{self.name}` needs a known number of channels"
            raise ModelError(f"{law}. Received: shape ({', '.join(map(str, shape))}).")
        return extent

    def add_bias(self, filters: int) -> None:
        """Create the bias, where the layer has one."""
        if self.use_bias:
            self.add_weight("bias", (filters,), self.bias_initializer)

    def bias(self, t: Trace) -> list[Value]:
        """The bias as an optional operand."""
        return [t.weight("bias")] if self.use_bias else []

    def ir_padding(self) -> Padding:
        """The argument `padding` as the op takes it; "causal" is all before."""
        if self.padding == "causal":
            return (((self.kernel_size[0] - 1) * self.dilation_rate[0], 0),)
        return "same" if self.padding == "same" else "valid"

    def floating(self, t: Trace, x: Value) -> Value:
        """The input as floats: integers are promoted to the dtype of the kernel."""
        return x if x.type.is_float else cast(t, x, self.compute_dtype)

    def finish(self, t: Trace, y: Value) -> Value:
        """The activation."""
        return activations.apply(t, self.activation, y)


@dataclass(eq=False)
class _Conv(_Convolution):
    """``y[o, f] = sum over window w, channel c of x[o * stride + w * dilation, c] * kernel[w, c, f] + bias[f]``.

    ``x: T[N, *spatial, C], kernel: T[*window, C / groups, filters] -> T[N, *spatial', filters]``, or channels first.
    """

    optional_fields = frozenset({"lora_rank", "lora_alpha"})

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: str | None = None
    dilation_rate: Any = 1
    groups: int = 1
    activation: Any = None
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    lora_rank: int | None = None
    lora_alpha: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "filters", "groups")
        self.require(self.filters % self.groups == 0, "filters", f"a multiple of groups={self.groups}")

    def build(self, *input_shapes: Any) -> None:
        channels = self.channels(input_shapes[0])
        if channels % self.groups:
            law = f"`groups` of layer `{self.name}` must divide the {channels} channels of its input"
            raise ModelError(f"{law}. Received: groups={self.groups}.")
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.add_weight("kernel", shape, self.kernel_initializer)
        self.add_bias(self.filters)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        op = ops.Conv(self.strides, self.ir_padding(), self.dilation_rate, self.groups)
        y = in_channels_last(
            t, self.floating(t, args[0]), str(self.data_format), lambda x: t(op, x, t.weight("kernel"), *self.bias(t))
        )
        return self.finish(t, y)


@register_layer("keras>Conv1D")
@dataclass(eq=False)
class Conv1D(_Conv):
    """Convolution along one axis; padding "causal" looks back only."""

    rank = 1
    paddings = ("valid", "same", "causal")


@register_layer("keras>Conv2D")
@dataclass(eq=False)
class Conv2D(_Conv):
    """Convolution over images."""

    rank = 2


@register_layer("keras>Conv3D")
@dataclass(eq=False)
class Conv3D(_Conv):
    """Convolution over volumes."""

    rank = 3


def depthwise(t: Trace, layer: _Convolution, x: Value, kernel: Value, bias: list[Value]) -> Value:
    """Each channel by itself: ``x: T[N, *spatial, C], kernel: T[*window, C, M] -> T[N, *spatial', C * M]``."""
    *window, channels, multiplier = kernel.type.static_shape()
    flat = t(ops.Reshape((*window, 1, channels * multiplier)), kernel)
    op = ops.Conv(layer.strides, layer.ir_padding(), layer.dilation_rate, channels)
    return t(op, x, flat, *bias)


@dataclass(eq=False)
class _DepthwiseConv(_Convolution):
    """Each channel convolved with `depth_multiplier` filters of its own."""

    strides_with_dilation = True

    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    depth_multiplier: int = 1
    data_format: str | None = None
    dilation_rate: Any = 1
    activation: Any = None
    use_bias: bool = True
    depthwise_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    depthwise_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    depthwise_constraint: Any = None
    bias_constraint: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "depth_multiplier")

    def build(self, *input_shapes: Any) -> None:
        channels = self.channels(input_shapes[0])
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.add_weight("kernel", shape, self.depthwise_initializer)
        self.add_bias(channels * self.depth_multiplier)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        y = in_channels_last(
            t,
            self.floating(t, args[0]),
            str(self.data_format),
            lambda x: depthwise(t, self, x, t.weight("kernel"), self.bias(t)),
        )
        return self.finish(t, y)


@register_layer("keras>DepthwiseConv1D")
@dataclass(eq=False)
class DepthwiseConv1D(_DepthwiseConv):
    """Depthwise convolution along one axis."""

    rank = 1


@register_layer("keras>DepthwiseConv2D")
@dataclass(eq=False)
class DepthwiseConv2D(_DepthwiseConv):
    """Depthwise convolution over images."""

    rank = 2


@dataclass(eq=False)
class _SeparableConv(_Convolution):
    """A depthwise convolution, then one with windows of 1 that mixes the channels."""

    strides_with_dilation = True

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: str | None = None
    dilation_rate: Any = 1
    depth_multiplier: int = 1
    activation: Any = None
    use_bias: bool = True
    depthwise_initializer: Any = "glorot_uniform"
    pointwise_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    depthwise_regularizer: Any = None
    pointwise_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    depthwise_constraint: Any = None
    pointwise_constraint: Any = None
    bias_constraint: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "filters", "depth_multiplier")

    def build(self, *input_shapes: Any) -> None:
        channels = self.channels(input_shapes[0])
        depth = (*self.kernel_size, channels, self.depth_multiplier)
        self.add_weight("depthwise_kernel", depth, self.depthwise_initializer)
        point = (*(1,) * self.rank, channels * self.depth_multiplier, self.filters)
        self.add_weight("pointwise_kernel", point, self.pointwise_initializer)
        self.add_bias(self.filters)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        def write(x: Value) -> Value:
            y = depthwise(t, self, x, t.weight("depthwise_kernel"), [])
            return t(ops.Conv((1,) * self.rank), y, t.weight("pointwise_kernel"), *self.bias(t))

        return self.finish(t, in_channels_last(t, self.floating(t, args[0]), str(self.data_format), write))


@register_layer("keras>SeparableConv1D")
@dataclass(eq=False)
class SeparableConv1D(_SeparableConv):
    """Separable convolution along one axis; padding "causal" looks back only."""

    rank = 1
    paddings = ("valid", "same", "causal")


@register_layer("keras>SeparableConv2D")
@dataclass(eq=False)
class SeparableConv2D(_SeparableConv):
    """Separable convolution over images."""

    rank = 2


def transposed_padding(
    padding: str, window: int, stride: int, dilation: int, output_padding: int | None
) -> tuple[tuple[int, int], int]:
    """The cut at both ends of a transposed convolution, and what is added at its end.

    Without `output_padding` the result is ``d * stride`` long for "same" and ``(d - 1) * stride + max(w, stride)`` for
    "valid", with ``w = (window - 1) * dilation + 1``; with it, ``(d - 1) * stride + w % 2 + output_padding`` or ``+ w``
    in place of ``w % 2`` (https://keras.io/api/layers/convolution_layers/convolution2d_transpose/).
    """
    reach = (window - 1) * dilation + 1
    if padding == "valid":
        return (0, 0), max(stride - reach, 0) if output_padding is None else output_padding
    total = stride + reach - 2 if output_padding is None else reach + reach % 2 - 2 + output_padding
    before = min(total - total // 2, reach - 1)
    after = total - before
    return (reach - 1 - before, max(reach - 1 - after, 0)), max(after - (reach - 1), 0)


class _ConvTranspose(_Convolution):
    """Base of the transposed convolutions, whose kernels are ``[*window, filters, C]``."""

    filters: int
    output_padding: Any
    kernel_initializer: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "filters")
        if self.output_padding is not None:
            self.output_padding = arguments.integers(self, "output_padding", self.rank, least=0)

    def build(self, *input_shapes: Any) -> None:
        channels = self.channels(input_shapes[0])
        self.add_weight("kernel", (*self.kernel_size, self.filters, channels), self.kernel_initializer)
        self.add_bias(self.filters)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        cuts = self._cuts(args[0].type.shape)
        padding: Pairs = tuple(cut for cut, _ in cuts)
        op = ops.ConvTranspose(self.strides, padding, tuple(added for _, added in cuts), self.dilation_rate)
        y = in_channels_last(
            t, self.floating(t, args[0]), str(self.data_format), lambda x: t(op, x, t.weight("kernel"), *self.bias(t))
        )
        return self.finish(t, y)

    def _cuts(self, shape: Shape) -> list[tuple[tuple[int, int], int]]:
        """What is cut and added at the ends of each axis."""
        extra = self.output_padding or (None,) * self.rank
        axes = zip(self.kernel_size, self.strides, self.dilation_rate, extra, strict=True)
        return [transposed_padding(self.padding, *axis) for axis in axes]


@dataclass(eq=False)
class _ConvTransposePlanar(_ConvTranspose):
    """The arguments of Conv1DTranspose and Conv2DTranspose."""

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    output_padding: Any = None
    data_format: str | None = None
    dilation_rate: Any = 1
    activation: Any = None
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None


@register_layer("keras>Conv1DTranspose")
@dataclass(eq=False)
class Conv1DTranspose(_ConvTransposePlanar):
    """Transposed convolution along one axis."""

    rank = 1


@register_layer("keras>Conv2DTranspose")
@dataclass(eq=False)
class Conv2DTranspose(_ConvTransposePlanar):
    """Transposed convolution over images.

    `declared_shape` is the shape of the result, channels and batch included, as Keras 1 had it stated.
    """

    rank = 2
    hidden_fields = frozenset({"declared_shape"})

    declared_shape: Any = None

    def _cuts(self, shape: Shape) -> list[tuple[tuple[int, int], int]]:
        first = 1 if self.data_format == "channels_last" else 2
        declared = (self.declared_shape or (None,) * 4)[first : first + 2]
        extents = shape[first : first + 2]
        axes = zip(super()._cuts(shape), extents, declared, self.kernel_size, self.strides, strict=True)
        return [self._declared_cut(*axis) for axis in axes]

    def _declared_cut(
        self, cut: tuple[tuple[int, int], int], extent: Dim, wanted: int | None, window: int, stride: int
    ) -> tuple[tuple[int, int], int]:
        """The cut that makes the axis `wanted` long: the gradient's of a convolution of so many elements."""
        if wanted is None or not isinstance(extent, int):
            return cut
        surplus = (extent - 1) * stride + window - wanted
        before = max(surplus, 0) // 2 if self.padding == "same" else 0
        return (before, max(surplus, 0) - before), max(-surplus, 0)


@register_layer("keras>Conv3DTranspose")
@dataclass(eq=False)
class Conv3DTranspose(_ConvTranspose):
    """Transposed convolution over volumes."""

    rank = 3

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: str | None = None
    output_padding: Any = None
    dilation_rate: Any = 1
    activation: Any = None
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
