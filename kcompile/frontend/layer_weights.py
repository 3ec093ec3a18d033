"""The weights of a layer: making them, listing them, and their arrays."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import initializers
from kcompile.frontend.weight import Weight
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.frontend.layer import Layer

_KERAS_ORDER = ("shape", "initializer", "dtype", "trainable")


class Weighted(ABC):
    """What has weights of its own, and others inside that have."""

    name: str
    dtype: str
    own_weights: list[Weight]

    @property
    @abstractmethod
    def sublayers(self) -> "Mapping[str, Layer]":
        """Layers inside this one by the attribute names that Keras gives them."""

    @classmethod
    @abstractmethod
    def is_users_own(cls) -> bool:
        """Whether the class is written in Keras's style."""

    def add_weight(
        self,
        *order: Any,
        name: str | None = None,
        shape: Sequence[Any] = (),
        initializer: Any = None,
        dtype: str | None = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
    ) -> Weight:
        """Create a weight, filled by an initializer (a Keras name, config or object).

        Args:
            order: name, shape, initializer and trainable; or, as in Keras 3, shape, initializer and dtype.
        """
        del autocast
        names = ("name", "shape", "initializer", "trainable") if order and isinstance(order[0], str) else _KERAS_ORDER
        given: dict[str, Any] = dict(zip(names, order, strict=False))
        name, shape = str(given.get("name", name) or "variable"), given.get("shape", shape)
        initializer = given.get("initializer", initializer)
        dtype = str(given.get("dtype", dtype) or self.variable_dtype)
        shape = (shape,) if isinstance(shape, int) else shape or ()
        if not all(isinstance(extent, int) for extent in shape):
            law = f"`{name}` of layer `{self.name}` needs known extents"
            raise ModelError(f"{law}. Received: {tuple(shape)}. Give the model's Input a full shape.")
        if initializer is None:
            initializer = "glorot_uniform" if dtype.startswith("float") else "zeros"
        value = initializers.get(initializer)(tuple(shape), dtype)
        trainable = given.get("trainable", trainable)
        weight = Weight(name, np.asarray(value), trainable, regularizer, constraint, path=f"{self.name}/{name}")
        self.own_weights.append(weight)
        return weight

    @property
    def variable_dtype(self) -> str:
        """The dtype of the weights: that of the policy's variables."""
        return self.dtype if not self.dtype.startswith("mixed_") else "float32"

    @property
    def weights(self) -> list[Weight]:
        """All weights: the layer's own, then those of layers inside, depth first."""
        inner = [weight for layer in self.sublayers.values() for weight in layer.weights]
        own = self.own_weights
        if self.is_users_own():  # where Keras lists those first that train
            own = sorted(own, key=lambda weight: not weight.trainable)
        return list(dict.fromkeys([*own, *inner]))

    @property
    def trainable_weights(self) -> list[Weight]:
        """The weights that training changes."""
        return self._weights_by_training(True)

    @property
    def non_trainable_weights(self) -> list[Weight]:
        """The weights that training leaves alone."""
        return self._weights_by_training(False)

    @property
    def variables(self) -> list[Weight]:
        """`weights`."""
        return self.weights

    @property
    def trainable_variables(self) -> list[Weight]:
        """`trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Weight]:
        """`non_trainable_weights`."""
        return self.non_trainable_weights

    @property
    def losses(self) -> list[Any]:
        """What the regularizers of the weights cost now; in the code of a step, tensors, with what layers added."""
        from kcompile.frontend.tensor import current
        from kcompile.frontend.training.formulas import tensors
        from kcompile.frontend.training.owners import penalties

        t = current()
        if t is not None and t.effects is not None:
            return tensors(t.effects.losses_of(cast("Layer", self)))
        return penalties(cast("Layer", self))

    def _weights_by_training(self, trains: bool) -> list[Weight]:
        from kcompile.frontend.keras_file.layout import owned_weights

        return [owned.weight for owned in owned_weights(cast("Layer", self)) if owned.trains == trains]

    def get_weights(self) -> list[Array]:
        """Copies of the arrays of `weights`."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, arrays: Sequence[Array]) -> None:
        """Assign arrays to `weights`, in order.

        Raises:
            ModelError: their number or a shape differs.
        """
        if len(arrays) != len(self.weights):
            law = f"layer `{self.name}` has {len(self.weights)} weights"
            raise ModelError(f"{law}. Received: {len(arrays)} arrays.")
        for weight, array in zip(self.weights, arrays, strict=True):
            weight.assign(array)

    def count_params(self) -> int:
        """The number of elements of all weights."""
        return sum(weight.array.size for weight in self.weights)
