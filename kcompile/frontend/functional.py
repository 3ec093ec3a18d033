"""Models of any graph: `Model(inputs, outputs)`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from kcompile.errors import ModelError
from kcompile.frontend.inputs import is_input
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.model import Model
from kcompile.frontend.topology import Topology, cut, topology
from kcompile.frontend.tracing import KerasTensor, Trace, flatten, map_structure
from kcompile.ir.graph import Value


@register_layer("keras>Functional", "keras>Model")
class Functional(Model):
    """A model that computes `outputs` from `inputs`; see `Model`.

    Raises:
        ModelError: an input or output is no symbolic tensor, an output needs an input that is not given, or two layers
            have one name.
    """

    keras_module = "keras.src.models.functional"

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, trainable: bool = True) -> None:
        super().__init__(name=name, trainable=trainable)
        self._check_tensors("inputs", inputs)
        self._check_tensors("outputs", outputs)
        self._check_distinct(list(flatten(inputs)))
        if not all(is_input(tensor) for tensor in flatten(inputs)):
            entries, outputs = cut(list(flatten(inputs)), outputs)
            queue = iter(entries)
            inputs = map_structure(lambda _: next(queue), inputs)
        self._input, self._output = inputs, _unpacked(outputs)
        self._topology = topology(self.inputs, self.outputs)
        self._check_names()
        self.built = True

    def _check_tensors(self, argument: str, structure: Any) -> None:
        leaves = list(flatten(structure))
        wrong = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, KerasTensor)]
        if wrong or not leaves:
            law = f"`{argument}` of model `{self.name}` must hold symbolic tensors, as kcompile.Input and layers give"
            raise ModelError(f"{law}. Received: {', '.join(wrong) or 'none'}.")

    def _check_distinct(self, inputs: list[KerasTensor]) -> None:
        if len({id(tensor) for tensor in inputs}) < len(inputs):
            names = ", ".join(tensor.name for tensor in inputs)
            raise ModelError(f"the inputs of model `{self.name}` must be different tensors. Received: {names}.")

    def _check_names(self) -> None:
        counts = Counter(layer.name for layer in self.layers)
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            law = f"the layers of model `{self.name}` must have names of their own"
            raise ModelError(f"{law}. Received more than one: {', '.join(f'`{name}`' for name in repeated)}.")

    @property
    def layers(self) -> list[Layer]:
        """The layers, as Keras lists them: by falling distance from the outputs."""
        return list(self._topology.layers)

    @property
    def topology(self) -> Topology:
        """The calls and layers between the inputs and the outputs."""
        return self._topology

    @property
    def input(self) -> Any:
        """The inputs in the structure that the model takes."""
        return self._input

    @property
    def output(self) -> Any:
        """The outputs in the structure that the model gives."""
        return self._output

    def run(self, t: Trace, values: Sequence[Value], masks: Sequence[Value | None]) -> tuple[Any, Any]:
        """The outputs and their masks, in the outputs' structure, for one value per input."""
        known = {id(x): pair for x, pair in zip(self.inputs, zip(values, masks, strict=True), strict=True)}

        def value_of(leaf: Any) -> Any:
            return known[id(leaf)][0] if isinstance(leaf, KerasTensor) else leaf

        for call in self._topology.calls:
            if not call.inputs:
                continue
            args, kwargs = map_structure(value_of, (call.args, call.kwargs))
            if t.effects is not None and t.effects.overrides:
                kwargs.pop("training", None)
            carried = [known[id(tensor)][1] for tensor in call.inputs]
            results, mask = t.run_with_mask(call.layer, *args, masks=carried, **kwargs)
            pairs = zip(flatten(results), _spread(mask), strict=False)
            known.update({id(tensor): pair for tensor, pair in zip(call.flat_outputs, pairs, strict=True)})
        return tuple(map_structure(lambda tensor, i=i: known[id(tensor)][i], self._output) for i in (0, 1))

    def get_config(self) -> dict[str, Any]:
        """The layers with their configs and connections, as Keras 3 writes them."""
        from kcompile.frontend.serialization import functional_config

        return functional_config(self)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self:
        """The model that a graph's config describes."""
        from kcompile.frontend.serialization import functional_from_config

        return functional_from_config(cls, config)


def _spread(mask: Any) -> Iterator[Value | None]:
    """The masks of a call's results, in order: a single one is the first result's."""
    yield from flatten(mask)
    while True:
        yield None


def _unpacked(outputs: Any) -> Any:
    """As Keras has it, a model with one output in a list gives that output."""
    if isinstance(outputs, list | tuple) and len(outputs) == 1:  # pyright: ignore[reportUnknownArgumentType]
        return outputs[0]  # pyright: ignore[reportUnknownVariableType]
    return outputs
