"""A stack of layers."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from kcompile.errors import ModelError
from kcompile.frontend.functional import Functional
from kcompile.frontend.inputs import InputLayer, OpenShape, is_input
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.model import Model
from kcompile.frontend.topology import Topology
from kcompile.frontend.tracing import KerasTensor, Trace
from kcompile.ir.graph import Value


@register_layer("keras>Sequential")
class Sequential(Model):
    """Layers that each take the result of the one before.

    The model is built as soon as its input shape is known: from an `Input` or a model in the first place, from
    `input_shape` of the first layer, from `build`, or from the first call. Until then it has no weights.

    Raises:
        ModelError: something is added that is no layer, a name is taken, or a layer does not accept its input.
    """

    keras_module = "keras"

    def __init__(
        self,
        layers: Sequence[Layer | KerasTensor] | None = None,
        trainable: bool = True,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self._entry: InputLayer | None = None
        self._layers: list[Layer] = []
        # The result of each layer, as far as the stack is built.
        self._results: list[KerasTensor] = []
        self._functional: Functional | None = None
        for layer in layers or ():
            self.add(layer)

    def add(self, layer: Layer | KerasTensor) -> None:
        """Put a layer, or a tensor made by `kcompile.Input`, on top of the stack."""
        if isinstance(layer, KerasTensor) and layer.call is not None and is_input(layer):
            layer = layer.call.layer
        if not isinstance(layer, Layer):
            law = f"Sequential model `{self.name}` takes layers"
            raise ModelError(f"{law}. Received: {layer!r} ({type(layer).__name__}).")
        if any(other.name == layer.name and other is not layer for other in (*self._layers, self._entry) if other):
            law = f"the layers of Sequential model `{self.name}` must have names of their own"
            raise ModelError(f"{law}. Received a second `{layer.name}`.")
        if isinstance(layer, InputLayer):
            self._enter(layer)
            return
        if not self._layers and self._entry is None:
            self._entry = _entry_for(layer)
        self._layers.append(layer)
        self._grow()

    def _enter(self, layer: InputLayer) -> None:
        if self._layers or self._entry:
            law = f"an input must be the first layer of Sequential model `{self.name}`"
            raise ModelError(f"{law}. Received: `{layer.name}` after {len(self._layers)} layers.")
        self._entry = layer

    def pop(self) -> Layer:
        """Take the last layer off the stack.

        Raises:
            ModelError: the model has no layers.
        """
        if not self._layers:
            raise ModelError(f"there is no layer to take off Sequential model `{self.name}`.")
        layer = self._layers.pop()
        if self._results:
            result = self._results.pop()
            layer.calls = [call for call in layer.calls if call is not result.call]
        self._functional = None
        return layer

    def build(self, *input_shapes: Any) -> None:
        """Create the weights for an input of a shape that includes the batch axis.

        Raises:
            ModelError: the model has no layers, has another input shape already, or a layer does not accept its input.
        """
        shape: OpenShape = tuple(d if isinstance(d, int) else None for d in input_shapes[0]) if input_shapes else ()
        if self._entry is None:
            self._entry = InputLayer(batch_shape=shape)
        elif not _compatible(self._entry.batch_shape or (), shape):
            law = f"Sequential model `{self.name}` takes inputs of shape {self._entry.batch_shape}"
            raise ModelError(f"{law}. Received: {shape}.")
        self._grow()

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Create the weights for inputs of the shape that is stated, where it was not known."""
        if not self.built and "input_shape" in config:
            self.build(config["input_shape"])

    def _grow(self) -> None:
        """Call the layers that have not been called yet, as soon as there is an input."""
        self._functional = None
        if self._entry is None:
            return
        for layer in self._layers[len(self._results) :]:
            result = layer(self._results[-1] if self._results else self._entry.output)
            if not isinstance(result, KerasTensor):
                law = f"each layer of Sequential model `{self.name}` must give one tensor"
                raise ModelError(f"{law}. Received: `{layer.name}` gives {type(result).__name__}.")
            self._results.append(result)
        self.built = bool(self._layers)

    @property
    def functional(self) -> Functional:
        """The same graph as a `Functional` model.

        Raises:
            ModelError: the input shape is not known yet.
        """
        if self._entry is None or not self._results:
            reason = "has no layers" if not self._layers else "does not know its input shape"
            law = f"Sequential model `{self.name}` {reason} yet"
            raise ModelError(f"{law}. Put kcompile.Input(shape) first, or call model.build((None, ...)).")
        if self._functional is None:
            self._functional = Functional(self._entry.output, self._results[-1], name=self.name)
        return self._functional

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the input."""
        return list(self._layers)

    @property
    def entry(self) -> InputLayer | None:
        """The input layer, once there is one."""
        return self._entry

    @property
    def topology(self) -> Topology:
        """The calls and layers between the input and the output."""
        return self.functional.topology

    @property
    def input(self) -> Any:
        """The input."""
        return self.functional.input

    @property
    def output(self) -> Any:
        """The output."""
        return self.functional.output

    def run(self, t: Trace, values: Sequence[Value], masks: Sequence[Value | None]) -> tuple[Any, Any]:
        """The output and its mask, for one value."""
        return self.functional.run(t, values, masks)

    def get_config(self) -> dict[str, Any]:
        """The layers with their configs, as Keras 3 writes them."""
        from kcompile.frontend.serialization import sequential_config

        return sequential_config(self)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self:
        """The model that a stack's config describes."""
        from kcompile.frontend.serialization import sequential_from_config

        return sequential_from_config(cls, config)


def _entry_for(first: Layer) -> InputLayer | None:
    """The input that the first layer of a stack implies."""
    if isinstance(first, Model):
        known = first.built and isinstance(first.input, KerasTensor)
        return InputLayer(batch_shape=first.input.shape, dtype=first.input.dtype) if known else None
    return InputLayer(shape=first.input_shape) if first.input_shape is not None else None  # pyright: ignore


def _compatible(known: OpenShape, shape: OpenShape) -> bool:
    pairs = zip(known[1:], shape[1:], strict=False)
    return len(known) == len(shape) and all(a is None or b is None or a == b for a, b in pairs)
