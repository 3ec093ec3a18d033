"""Tensors as Keras's users know them, inside the `call` of a layer, a loss or a metric while it is traced.

`lifted` makes them from the values of the graph that is being written, and `lowered` takes the values back. The
functions of ``kcompile.ops`` find the graph by `current`, so that a tensor is no more than a value and its mask.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.operators import Unknown
from kcompile.frontend.tracing import Trace, map_structure
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value

_current: ContextVar[Trace | None] = ContextVar("current trace", default=None)


@contextmanager
def writing(t: Trace) -> Generator[Trace]:
    """Functions of ``kcompile.ops`` called inside write with `t`."""
    token = _current.set(t)
    try:
        yield t
    finally:
        _current.reset(token)


def current() -> Trace | None:
    """What writes the graph that is being traced, where one is."""
    return _current.get()


@dataclass(eq=False, frozen=True)
class Tensor(Unknown):
    """A value of the graph that is being written, with the mask that layers before gave it."""

    value: Value
    mask: Value | None = None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape with None for open extents; `kcompile.ops.shape` has these too."""
        return tuple(dim if isinstance(dim, int) else None for dim in self.value.type.shape)

    @property
    def dtype(self) -> str:
        """The numpy name of the element type."""
        return self.value.type.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.value.type.rank

    @property
    def size(self) -> int | None:
        """The number of elements, None where an extent is open."""
        size = dims.mul(*self.value.type.shape)
        return size if isinstance(size, int) else None

    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        """The tensor with its axes in reverse order."""
        from kcompile.frontend.operations.calling import call

        return call("Transpose", self)

    def __repr__(self) -> str:
        return f"<tensor {self.value.type}>"


@dataclass(eq=False, frozen=True)
class Extent:
    """An open extent, as `kcompile.ops.shape` gives it: a number that is known when the graph runs.

    Sums, differences, products and divisions by integers make others; functions that take a shape take it.
    """

    dim: Dim

    def __add__(self, other: Any) -> Any:
        return extent(dims.add(self.dim, dim_of(other)))

    def __sub__(self, other: Any) -> Any:
        return extent(dims.sub(self.dim, dim_of(other)))

    def __rsub__(self, other: Any) -> Any:
        return extent(dims.sub(dim_of(other), self.dim))

    def __mul__(self, other: Any) -> Any:
        return extent(dims.mul(self.dim, dim_of(other)))

    def __floordiv__(self, other: int) -> Any:
        return extent(dims.floor_div(self.dim, other))

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extent) and other.dim == self.dim

    def __hash__(self) -> int:
        return hash(self.dim)

    def __index__(self) -> int:
        law = "an open extent is no number while the graph is written"
        raise ModelError(f"{law}. Received: {self.dim}. Give the model's Input a full shape.")

    __int__ = __float__ = __index__

    def __repr__(self) -> str:
        return f"<extent {self.dim}>"


def extent(dim: Dim) -> int | Extent:
    """An extent as users see it."""
    return dim if isinstance(dim, int) else Extent(dim)


def dim_of(given: Any) -> Dim:
    """An extent as the graph has it.

    Raises:
        ModelError: it is no extent.
    """
    if isinstance(given, Extent):
        return given.dim
    try:
        return given.__index__()
    except AttributeError:
        law = "an extent must be an integer or come from kcompile.ops.shape"
        raise ModelError(f"{law}. Received: {given!r}.") from None


def lifted(structure: Any, masks: Any = None) -> Any:
    """The structure with tensors for its values, and with their masks where those are given in order."""
    queue = iter(masks or ())
    return map_structure(lambda leaf: Tensor(leaf, next(queue, None)) if isinstance(leaf, Value) else leaf, structure)


def lowered(structure: Any) -> Any:
    """The structure with values for its tensors."""
    return map_structure(lambda leaf: leaf.value if isinstance(leaf, Tensor) else leaf, structure)
