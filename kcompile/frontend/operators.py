"""Python's operators on tensors: each is the function of ``kcompile.ops`` that it stands for."""

from collections.abc import Iterator
from typing import Any, NoReturn

from kcompile.errors import ModelError


def _call(name: str, *args: Any) -> Any:
    from kcompile.frontend.operations.calling import call

    return call(name, *args)


class Operators:
    """What symbolic tensors, tensors in a layer's `call` and weights inherit.

    ``==`` compares element by element, as the other comparisons do; tensors are hashed by identity.
    """

    __array_priority__ = 100.0
    __array_ufunc__ = None  # leaves ``array + tensor`` to the tensor
    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Any:
        return _call("Add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _call("Add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _call("Subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _call("Subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return _call("Multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _call("Multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _call("TrueDivide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _call("TrueDivide", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _call("FloorDivide", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _call("FloorDivide", other, self)

    def __mod__(self, other: Any) -> Any:
        return _call("Mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return _call("Mod", other, self)

    def __pow__(self, other: Any) -> Any:
        return _call("Power", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _call("Power", other, self)

    def __matmul__(self, other: Any) -> Any:
        return _call("Matmul", self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _call("Matmul", other, self)

    def __neg__(self) -> Any:
        return _call("Negative", self)

    def __abs__(self) -> Any:
        return _call("Absolute", self)

    def __round__(self, decimals: int = 0) -> Any:
        return _call("Round", self, decimals)

    def __lt__(self, other: Any) -> Any:
        return _call("Less", self, other)

    def __le__(self, other: Any) -> Any:
        return _call("LessEqual", self, other)

    def __gt__(self, other: Any) -> Any:
        return _call("Greater", self, other)

    def __ge__(self, other: Any) -> Any:
        return _call("GreaterEqual", self, other)

    def __eq__(self, other: object) -> Any:
        return _call("Equal", self, other)

    def __ne__(self, other: object) -> Any:
        return _call("NotEqual", self, other)

    def __and__(self, other: Any) -> Any:
        return _call("LogicalAnd", self, other)

    def __rand__(self, other: Any) -> Any:
        return _call("LogicalAnd", other, self)

    def __or__(self, other: Any) -> Any:
        return _call("LogicalOr", self, other)

    def __ror__(self, other: Any) -> Any:
        return _call("LogicalOr", other, self)

    def __xor__(self, other: Any) -> Any:
        return _call("LogicalXor", self, other)

    def __invert__(self) -> Any:
        return _call("LogicalNot", self)

    def __getitem__(self, key: Any) -> Any:
        return _call("GetItem", self, key)


class Unknown(Operators):
    """Tensors whose elements are not known while Python runs, but only when the graph does."""

    def _unknown(self, use: str) -> NoReturn:
        law = "the elements of a symbolic tensor are not known while the graph is written"
        advice = "Choose between tensors with kcompile.ops.where, and take known extents from its shape"
        raise ModelError(f"{law}. Received: {self!r}, used as {use}. {advice}.")

    def __bool__(self) -> bool:
        self._unknown("a condition of Python (`if`, `while`, `and`, `or`, `not`)")

    def __int__(self) -> int:
        self._unknown("an int")

    def __index__(self) -> int:
        self._unknown("an index or a `range`")

    def __float__(self) -> float:
        self._unknown("a float")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self._unknown("a NumPy array. Use the functions of kcompile.ops in place of NumPy's")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = function.__name__
        self._unknown(f"an argument of numpy.{name}. Use kcompile.ops.{name}, or what takes its place there")

    def __len__(self) -> int:
        extent = self.shape[0] if self.shape else None
        if not isinstance(extent, int):
            self._unknown("a sequence, whose length is open")
        return extent

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, item: object) -> bool:
        self._unknown("a container (`in`)")

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The extents, None for open ones."""
        raise NotImplementedError
