"""One array of a layer, which training changes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.operators import Operators
from kcompile.frontend.tensor import Tensor, current
from kcompile.ir.types import Array


@dataclass(eq=False)
class Weight(Operators):
    """One array of a layer. `name` is the layer's own name for it (``"kernel"``).

    In the `call` of a layer in Keras's style it stands for its value, as a tensor does.

    Attributes:
        array: the present value; in what is traced `value` is a tensor.
        regularizer: what its size costs while training; `constraint`: what it is brought back to after each step.
        path: the layer's name and the weight's: ``"dense/kernel"``.
        trained: whether steps of training change the array where it lies.
    """

    name: str
    array: Array = field(repr=False)
    trainable: bool = True
    regularizer: Any = field(default=None, repr=False)
    constraint: Any = field(default=None, repr=False)
    trained: bool = field(default=False, init=False, repr=False)
    path: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self.path = self.path or self.name

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        """Whether it is the same weight; with anything else, its values are compared."""
        return self is other if other is None or isinstance(other, Weight) else super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        return self is not other if other is None or isinstance(other, Weight) else super().__ne__(other)

    @property
    def value(self) -> Any:
        """The array; in what is traced, a tensor."""
        t = current()
        return self.array if t is None else Tensor(t.read(self))

    @value.setter
    def value(self, array: Array) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.array.shape

    @property
    def dtype(self) -> str:
        """The numpy name of the element type."""
        return self.array.dtype.name

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.array.size

    def numpy(self) -> Array:
        """A copy of the array."""
        return self.array.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.array, dtype, copy=copy)

    def __float__(self) -> float:
        return float(self.array)

    def __int__(self) -> int:
        return int(self.array)

    def __bool__(self) -> bool:
        return bool(self.array)

    def assign_add(self, value: Any) -> None:
        """Add to the present value."""
        self.assign(self + value)

    def assign_sub(self, value: Any) -> None:
        """Take away from the present value."""
        self.assign(self - value)

    def assign(self, value: Any) -> None:
        """Replace the array by one of the same shape; while a step is traced, after the step.

        Raises:
            ModelError: the shape differs.
        """
        t = current()
        if t is not None:
            from kcompile.frontend.operations.calling import call

            given = call("Cast", value if isinstance(value, Tensor) else self * 0 + value, self.dtype)
            t.store(self, call("BroadcastTo", given, self.shape).value)
            return
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ModelError(f"weight `{self.name}` must have shape {self.shape}. Received: {array.shape}.")
        self.array = array.astype(self.array.dtype, copy=False)
