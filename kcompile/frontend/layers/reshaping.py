"""Layers that rearrange, cut, pad and repeat."""

from dataclasses import dataclass
from typing import Any, ClassVar

from kcompile.errors import ModelError
from kcompile.frontend.agreement import reshaped
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.resampling import INTERPOLATIONS, resize
from kcompile.frontend.layers.writing import expand_dims, in_channels_last, reshape, transpose
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value


@register_layer("keras>Flatten")
@dataclass(eq=False)
class Flatten(Layer):
    """All axes but the batch as one: ``x: T[N, *D] -> T[N, prod(D)]``; channels first are moved last before."""

    data_format: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.data_format = arguments.data_format(self)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        if self.data_format == "channels_first" and x.type.rank > 2:
            x = t(ops.Transpose((0, *range(2, x.type.rank), 1)), x)
        return reshape(t, x, (x.type.shape[0], dims.mul(*x.type.shape[1:])))


@register_layer("keras>Reshape")
@dataclass(eq=False)
class Reshape(Layer):
    """The elements of each sample under `target_shape`, in which one extent may be -1: whatever is left."""

    target_shape: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.target_shape
        given = [given] if isinstance(given, int) else given
        fits = isinstance(given, list | tuple) and all(d is None or arguments.is_int(d, -1) for d in given)  # pyright: ignore[reportUnknownVariableType]
        self.require(fits and sum(d in (-1, None) for d in given) <= 1, "target_shape", "integers, one of them -1")
        self.target_shape = tuple(-1 if d is None else int(d) for d in given)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        y = reshaped(t, x, self.target_shape, kept=1)
        if y is None:
            total = dims.mul(*x.type.shape[1:])
            law = f"`target_shape` of layer `{self.name}` must hold the {total} elements of a sample of {x.type}"
            raise ModelError(f"{law}. Received: target_shape={self.target_shape}.")
        return y


@register_layer("keras>Permute")
@dataclass(eq=False)
class Permute(Layer):
    """The axes behind the batch in the order `dims`, counted from 1."""

    dims: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.dims
        fits = isinstance(given, list | tuple) and sorted(given) == list(range(1, len(given) + 1))  # pyright: ignore[reportUnknownArgumentType]
        self.require(fits, "dims", "the numbers of the axes from 1 on, each once")
        self.dims = tuple(given)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], len(self.dims) + 1)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return transpose(t, args[0], (0, *self.dims))


@register_layer("keras>RepeatVector")
@dataclass(eq=False)
class RepeatVector(Layer):
    """Each sample `n` times: ``x: T[N, K] -> T[N, n, K]``."""

    n: int

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "n")

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], 2)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return t(ops.Tile((1, self.n, 1)), expand_dims(t, args[0], 1))


class _Cropping(Layer):
    """Base: cuts the ends of the spatial axes off."""

    rank: ClassVar[int]

    cropping: Any
    data_format: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cropping = arguments.pairs(self, "cropping", self.rank)
        self.data_format = arguments.data_format(self)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], self.rank + 2)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        first = 1 if self.data_format == "channels_last" else 2
        for axis, (low, high) in enumerate(self.cropping, first):
            extent = x.type.shape[axis]
            if isinstance(extent, int) and low + high >= extent:
                law = f"`cropping` of layer `{self.name}` must leave something of its input {x.type}"
                raise ModelError(f"{law}. Received: cropping={self.cropping}.")
            if low or high:
                x = t(ops.Slice(axis, low, dims.sub(extent, high)), x)
        return x


@register_layer("keras>Cropping1D")
@dataclass(eq=False)
class Cropping1D(_Cropping):
    """Cuts both ends of sequences off."""

    rank = 1

    cropping: Any = (1, 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cropping": self.cropping[0]}


@register_layer("keras>Cropping2D")
@dataclass(eq=False)
class Cropping2D(_Cropping):
    """Cuts the borders of images off."""

    rank = 2

    cropping: Any = ((0, 0), (0, 0))
    data_format: str | None = None


@register_layer("keras>Cropping3D")
@dataclass(eq=False)
class Cropping3D(_Cropping):
    """Cuts the borders of volumes off."""

    rank = 3

    cropping: Any = ((1, 1), (1, 1), (1, 1))
    data_format: str | None = None


class _ZeroPadding(Layer):
    """Base: zeros at the ends of the spatial axes."""

    rank: ClassVar[int]

    padding: Any
    data_format: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.padding = arguments.pairs(self, "padding", self.rank)
        self.data_format = arguments.data_format(self)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], self.rank + 2)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        none = ((0, 0),)
        last = self.data_format == "channels_last"
        widths = (*none, *self.padding, *none) if last else (*none, *none, *self.padding)
        return t(ops.Pad(tuple(low for low, _ in widths), tuple(high for _, high in widths)), args[0])


@register_layer("keras>ZeroPadding1D")
@dataclass(eq=False)
class ZeroPadding1D(_ZeroPadding):
    """Zeros at both ends of sequences."""

    rank = 1

    padding: Any = 1
    data_format: str | None = None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding[0]}


@register_layer("keras>ZeroPadding2D")
@dataclass(eq=False)
class ZeroPadding2D(_ZeroPadding):
    """Zeros around images."""

    rank = 2

    padding: Any = (1, 1)
    data_format: str | None = None


@register_layer("keras>ZeroPadding3D")
@dataclass(eq=False)
class ZeroPadding3D(_ZeroPadding):
    """Zeros around volumes."""

    rank = 3

    padding: Any = ((1, 1), (1, 1), (1, 1))
    data_format: str | None = None


class _UpSampling(Layer):
    """Base: each spatial axis `size` times as long."""

    rank: ClassVar[int]

    size: Any
    data_format: str | None = None
    interpolation: str = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.size = arguments.integers(self, "size", self.rank)
        self.data_format = arguments.data_format(self)
        self.interpolation = self.interpolation.lower()
        arguments.choice(self, "interpolation", INTERPOLATIONS)

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], self.rank + 2)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        def write(x: Value) -> Value:
            extents: list[Dim] = [dims.mul(d, n) for d, n in zip(x.type.shape[1:-1], self.size, strict=True)]
            return resize(t, x, extents, self.interpolation)

        return in_channels_last(t, args[0], str(self.data_format), write)


@register_layer("keras>UpSampling1D")
@dataclass(eq=False)
class UpSampling1D(_UpSampling):
    """Repeats the steps of sequences."""

    rank = 1

    size: Any = 2

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size[0]}


@register_layer("keras>UpSampling2D")
@dataclass(eq=False)
class UpSampling2D(_UpSampling):
    """Enlarges images by integer factors."""

    rank = 2

    size: Any = (2, 2)
    data_format: str | None = None
    interpolation: str = "nearest"


@register_layer("keras>UpSampling3D")
@dataclass(eq=False)
class UpSampling3D(_UpSampling):
    """Repeats the elements of volumes."""

    rank = 3

    size: Any = (2, 2, 2)
    data_format: str | None = None
