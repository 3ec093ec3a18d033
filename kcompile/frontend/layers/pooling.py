"""Pooling over windows, over everything, and into a given number of windows."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.resampling import along_axis
from kcompile.frontend.layers.writing import cast, expand_dims, floating, in_channels_last, like
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value
from kcompile.ir.op import Op


class _Pooling(Layer):
    """Base: ``x: T[N, *spatial, C] -> T[N, *spatial', C]``, or channels first."""

    rank: ClassVar[int]
    op: ClassVar[type[ops.MaxPool] | type[ops.AvgPool]]

    pool_size: Any
    strides: Any
    padding: str
    data_format: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pool_size = arguments.integers(self, "pool_size", self.rank)
        self.strides = self.pool_size if self.strides is None else arguments.integers(self, "strides", self.rank)
        self.padding = self.padding.lower()
        arguments.choice(self, "padding", ("valid", "same"))
        self.data_format = arguments.data_format(self)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], self.rank + 2)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        op = self.op(self.pool_size, self.strides, "same" if self.padding == "same" else "valid")
        return in_channels_last(t, args[0], str(self.data_format), lambda x: t(op, x))


@dataclass(eq=False)
class _MaxPooling(_Pooling):
    """The largest element of each window."""

    op = ops.MaxPool

    pool_size: Any = 2
    strides: Any = None
    padding: str = "valid"
    data_format: str | None = None


@dataclass(eq=False)
class _AveragePooling(_Pooling):
    """The mean of each window; padding does not count."""

    op = ops.AvgPool

    pool_size: Any
    strides: Any = None
    padding: str = "valid"
    data_format: str | None = None

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return super().call(t, floating(t, args[0]))


@register_layer("keras>MaxPooling1D")
@dataclass(eq=False)
class MaxPooling1D(_MaxPooling):
    """Max pooling along one axis."""

    rank = 1


@register_layer("keras>MaxPooling2D")
@dataclass(eq=False)
class MaxPooling2D(_MaxPooling):
    """Max pooling over images."""

    rank = 2


@register_layer("keras>MaxPooling3D")
@dataclass(eq=False)
class MaxPooling3D(_MaxPooling):
    """Max pooling over volumes."""

    rank = 3


@register_layer("keras>AveragePooling1D")
@dataclass(eq=False)
class AveragePooling1D(_AveragePooling):
    """Average pooling along one axis."""

    rank = 1


@register_layer("keras>AveragePooling2D")
@dataclass(eq=False)
class AveragePooling2D(_AveragePooling):
    """Average pooling over images."""

    rank = 2


@register_layer("keras>AveragePooling3D")
@dataclass(eq=False)
class AveragePooling3D(_AveragePooling):
    """Average pooling over volumes."""

    rank = 3


@dataclass(eq=False)
class _GlobalPooling(Layer):
    """Base: one number per channel, ``x: T[N, *spatial, C] -> T[N, C]``, or with extents 1 where `keepdims`."""

    rank: ClassVar[int]
    op: ClassVar[type[ops.ReduceMax] | type[ops.ReduceMean]]

    data_format: str | None = None
    keepdims: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.data_format = arguments.data_format(self)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], self.rank + 2)

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes."""
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + self.rank))

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return t(self.op(self.axes, self.keepdims), args[0])


class _GlobalMax(_GlobalPooling):
    op = ops.ReduceMax


class _GlobalAverage(_GlobalPooling):
    op = ops.ReduceMean

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return super().call(t, floating(t, args[0]))


@register_layer("keras>GlobalMaxPooling1D")
@dataclass(eq=False)
class GlobalMaxPooling1D(_GlobalMax):
    """The largest element of each channel of a sequence."""

    rank = 1


@register_layer("keras>GlobalMaxPooling2D")
@dataclass(eq=False)
class GlobalMaxPooling2D(_GlobalMax):
    """The largest element of each channel of an image."""

    rank = 2


@register_layer("keras>GlobalMaxPooling3D")
@dataclass(eq=False)
class GlobalMaxPooling3D(_GlobalMax):
    """The largest element of each channel of a volume."""

    rank = 3


@register_layer("keras>GlobalAveragePooling1D")
@dataclass(eq=False)
class GlobalAveragePooling1D(_GlobalAverage):
    """The mean of each channel of a sequence, over its unmasked steps."""

    rank = 1
    supports_masking = True

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = floating(t, args[0])
        mask: Value | None = kwargs.get("mask", args[1] if len(args) > 1 else t.masks[0])
        if mask is None:
            return super().call(t, x)
        counted = expand_dims(t, cast(t, mask, "bool"), 2 if self.data_format == "channels_last" else 1)
        add = ops.ReduceSum(self.axes, self.keepdims)
        total = t(add, t(ops.Where(), counted, x, like(t, x, 0.0)))
        return t(ops.Div(), total, t(add, cast(t, counted, x.type.dtype)))

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> None:
        return None


@register_layer("keras>GlobalAveragePooling2D")
@dataclass(eq=False)
class GlobalAveragePooling2D(_GlobalAverage):
    """The mean of each channel of an image."""

    rank = 2


@register_layer("keras>GlobalAveragePooling3D")
@dataclass(eq=False)
class GlobalAveragePooling3D(_GlobalAverage):
    """The mean of each channel of a volume."""

    rank = 3


@dataclass(eq=False)
class _AdaptivePooling(Layer):
    """Base: `output_size` windows per axis; window i runs from ``floor(i * d / n)`` to ``ceil((i + 1) * d / n)``."""

    rank: ClassVar[int]

    output_size: Any
    data_format: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.output_size = arguments.integers(self, "output_size", self.rank)
        self.data_format = arguments.data_format(self)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], self.rank + 2)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        def write(x: Value) -> Value:
            for axis, count in enumerate(self.output_size, 1):
                x = self.pool(t, x, axis, _windows(x.type.shape[axis], count))
            return x

        return in_channels_last(t, args[0], str(self.data_format), write)

    def pool(self, t: Trace, x: Value, axis: int, windows: list[tuple[Dim, Dim]]) -> Value:
        """The windows along one axis reduced; over several axes, one after the other is the same."""
        raise NotImplementedError


def _windows(extent: Dim, count: int) -> list[tuple[Dim, Dim]]:
    """The first element of each window along an axis, and the one after its last."""
    edges = [dims.mul(i, extent) for i in range(count + 1)]
    return [(dims.floor_div(low, count), dims.ceil_div(high, count)) for low, high in pairwise(edges)]


class _AdaptiveAverage(_AdaptivePooling):
    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return super().call(t, floating(t, args[0]))

    def pool(self, t: Trace, x: Value, axis: int, windows: list[tuple[Dim, Dim]]) -> Value:
        known = [(start, stop) for start, stop in windows if isinstance(start, int) and isinstance(stop, int)]
        if len(known) < len(windows):
            return _each(t, x, axis, windows, ops.ReduceMean((axis,), keepdims=True))
        shares = np.zeros((known[-1][1], len(known)), x.type.dtype)
        for i, (start, stop) in enumerate(known):
            shares[start:stop, i] = 1 / (stop - start)
        return along_axis(t, x, axis, t.constant(shares))


class _AdaptiveMax(_AdaptivePooling):
    def pool(self, t: Trace, x: Value, axis: int, windows: list[tuple[Dim, Dim]]) -> Value:
        return _each(t, x, axis, windows, ops.ReduceMax((axis,), keepdims=True))


def _each(t: Trace, x: Value, axis: int, windows: list[tuple[Dim, Dim]], reduced: Op) -> Value:
    """`x` with each of `windows` reduced."""
    return t(ops.Concat(axis), *(t(reduced, t(ops.Slice(axis, *window), x)) for window in windows))


@register_layer("keras>AdaptiveAveragePooling1D")
@dataclass(eq=False)
class AdaptiveAveragePooling1D(_AdaptiveAverage):
    """Average pooling of a sequence to a given length."""

    rank = 1


@register_layer("keras>AdaptiveAveragePooling2D")
@dataclass(eq=False)
class AdaptiveAveragePooling2D(_AdaptiveAverage):
    """Average pooling of an image to a given size."""

    rank = 2


@register_layer("keras>AdaptiveAveragePooling3D")
@dataclass(eq=False)
class AdaptiveAveragePooling3D(_AdaptiveAverage):
    """Average pooling of a volume to a given size."""

    rank = 3


@register_layer("keras>AdaptiveMaxPooling1D")
@dataclass(eq=False)
class AdaptiveMaxPooling1D(_AdaptiveMax):
    """Max pooling of a sequence to a given length."""

    rank = 1


@register_layer("keras>AdaptiveMaxPooling2D")
@dataclass(eq=False)
class AdaptiveMaxPooling2D(_AdaptiveMax):
    """Max pooling of an image to a given size."""

    rank = 2


@register_layer("keras>AdaptiveMaxPooling3D")
@dataclass(eq=False)
class AdaptiveMaxPooling3D(_AdaptiveMax):
    """Max pooling of a volume to a given size."""

    rank = 3
