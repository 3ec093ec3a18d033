"""Types of tensors: an element type and a shape whose extents are integers or symbols."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kcompile.errors import GraphError, InputError
from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape

Array: TypeAlias = NDArray[Any]

# Short names of the text form, by the numpy names that Keras uses.
SHORT_DTYPES = {
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "bool": "bool",
    "string": "str",
}
LONG_DTYPES = {short: long for long, short in SHORT_DTYPES.items()}


@dataclass(frozen=True)
class TensorType:
    """``dtype[shape]``: a numpy dtype name and extents that are integers or symbolic expressions."""

    dtype: str
    shape: Shape

    def __post_init__(self) -> None:
        if self.dtype not in SHORT_DTYPES:
            raise GraphError(f"`dtype` must be one of {', '.join(SHORT_DTYPES)}. Received: {self.dtype!r}.")
        if any(isinstance(dim, int) and dim < 0 for dim in self.shape):
            raise GraphError(f"extents must be from 0 on. Received: {self.shape}.")

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return dims.mul(*self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every extent is an integer."""
        return all(isinstance(dim, int) for dim in self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.dtype.startswith("float")

    @property
    def itemsize(self) -> int:
        """Bytes of one element; of a text, 0, for they differ."""
        return array_dtype(self.dtype).itemsize

    def static_shape(self) -> tuple[int, ...]:
        """The shape, where every extent is an integer.

        Raises:
            GraphError: an extent is symbolic.
        """
        if not self.is_static:
            raise GraphError(f"a static shape is needed here. Received: {self}.")
        return tuple(dim for dim in self.shape if isinstance(dim, int))

    def with_shape(self, shape: Sequence[Dim]) -> "TensorType":
        """The same element type with another shape."""
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: str) -> "TensorType":
        """The same shape with another element type."""
        return TensorType(dtype, self.shape)

    def bind(self, bindings: Mapping[str, Dim]) -> "TensorType":
        """The type with symbols replaced."""
        return self.with_shape([dims.substitute(dim, bindings) for dim in self.shape])

    def __str__(self) -> str:
        return f"{SHORT_DTYPES[self.dtype]}[{', '.join(map(str, self.shape))}]"


def array_dtype(dtype: str) -> np.dtype[Any]:
    """What numpy calls an element type; texts stand in arrays of numpy's kind "U", of any width."""
    return np.dtype(np.str_ if dtype == "string" else dtype)


def dtype_of(array: Array) -> str:
    """The name of an array's element type."""
    return "string" if array.dtype.kind == "U" else array.dtype.name


def type_of(array: Array) -> TensorType:
    """The type of a concrete array."""
    return TensorType(dtype_of(array), array.shape)


def bind_shapes(named_types: Mapping[str, TensorType], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The symbols' values that make `named_types` have `shapes`: ``{"N": 32, "T": 50}``.

    Raises:
        InputError: a rank or an extent does not fit, or one symbol would need two values; all problems are named.
    """
    bindings: dict[str, int] = {}
    givers: dict[str, str] = {}
    problems: list[str] = []
    for name, expected in named_types.items():
        received = tuple(shapes[name])
        for dim, extent in zip(expected.shape, received, strict=False):
            if isinstance(dim, str) and dim.isidentifier() and dim not in bindings:
                bindings[dim], givers[dim] = extent, name
        bound = tuple(dims.substitute(dim, bindings) for dim in expected.shape)
        if bound != received:
            pairs = zip(expected.shape, bound, received, strict=False) if len(bound) == len(received) else ()
            clashing = dims.symbols(*(dim for dim, wanted, extent in pairs if wanted != extent))
            others = [symbol for symbol in sorted(clashing) if givers.get(symbol, name) != name]
            values = [f"{symbol} is {bindings[symbol]} from input `{givers[symbol]}`" for symbol in others]
            where = f", where {' and '.join(values)}" if values else ""
            law = f"input `{name}` must have shape ({', '.join(map(str, expected.shape))}){where}"
            problems.append(f"{law}. Received: {received}.")
    if problems:
        raise InputError("\n".join(problems))
    return bindings
