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
        regularizer: what its size costs while training; `constraint`: what it is brought back to after each step.
        trained: whether steps of training change the array where it lies.
    """

    name: str
    value: Array = field(repr=False)
    trainable: bool = True
    regularizer: Any = field(default=None, repr=False)
    constraint: Any = field(default=None, repr=False)
    trained: bool = field(default=False, init=False, repr=False)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.value.shape

    @property
    def dtype(self) -> str:
        """The numpy name of the element type."""
        return self.value.dtype.name

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.value.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.value.size

    def numpy(self) -> Array:
        """A copy of the array."""
        return self.value.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.value, dtype, copy=copy)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

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
        self.value = array.astype(self.value.dtype, copy=False)
