"""What all models share: looking at them, tracing them to IR, running and saving them.

`Model(inputs, outputs)` makes a `Functional` model; `Sequential` is the other kind. A model is a layer, so models nest.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from kcompile.errors import ModelError
from kcompile.frontend.inputs import BATCH, symbolic_shape
from kcompile.frontend.layer import Layer, Weight, unique_name
from kcompile.frontend.tracing import KerasTensor, Trace, flatten, map_structure
from kcompile.frontend.training.trainer import Trainer
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.types import Array, TensorType
from kcompile.runtime.feeds import by_name, converted
from kcompile.runtime.reference import graph_signature
from kcompile.runtime.signature import Signature, Structure

if TYPE_CHECKING:
    from kcompile.frontend.topology import Topology


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from: the file's digest, and the Keras that wrote it."""

    sha256: str = ""
    keras_version: str = ""
    backend: str = ""


class Model(Trainer, Layer):
    """Base of models.

    Args:
        inputs: a tensor made by `kcompile.Input`, or a list or dict of them.
        outputs: the tensors to compute from them, in any structure.
        name: of the model.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"dtype"})
    autocast: ClassVar[bool] = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls is Model:
            from kcompile.frontend.functional import Functional

            return super().__new__(Functional)  # pyright: ignore[reportArgumentType]
        if cls.topology is Model.topology:
            law = "a model is made from layers: kcompile.Model(inputs, outputs), or kcompile.Sequential"
            raise ModelError(f"{law}. Received: {cls.__name__}, a subclass that states no graph.")
        return super().__new__(cls)

    # `inputs` and `outputs` are here for type checkers; a kind of model that has them takes them itself.
    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: str = "float32",
    ) -> None:
        del inputs, outputs
        self.name = name or unique_name(type(self).__name__)
        self.trainable, self.dtype = trainable, dtype
        self.provenance = Provenance()
        super().__post_init__()

    # -- structure --------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The layers, as Keras lists them."""
        raise NotImplementedError

    @property
    def topology(self) -> "Topology":
        """The calls and layers between the inputs and the outputs."""
        raise NotImplementedError

    @property
    def input(self) -> Any:
        """The inputs in the structure that the model takes."""
        raise NotImplementedError

    @property
    def output(self) -> Any:
        """The outputs in the structure that the model gives."""
        raise NotImplementedError

    @property
    def inputs(self) -> list[KerasTensor]:
        """The inputs, flat; those of a dict in the order of its keys."""
        return list(flatten(self.input))

    @property
    def outputs(self) -> list[KerasTensor]:
        """The outputs, flat; those of a dict in the order of its keys."""
        return list(flatten(self.output))

    @property
    def input_shape(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The inputs' shapes, in their structure."""
        return map_structure(lambda tensor: tensor.shape, self.input)

    @property
    def output_shape(self) -> Any:
        """The outputs' shapes, in their structure."""
        return map_structure(lambda tensor: tensor.shape, self.output)

    @property
    def input_names(self) -> list[str]:
        """The names of the input layers."""
        return [tensor.name for tensor in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """The names of the layers that compute the outputs, made unique; the keys where the outputs are a dict."""
        if isinstance(self.output, Mapping) and len(self.output) == len(self.outputs):
            return sorted(self.output)
        names: list[str] = []
        for tensor in self.outputs:
            taken, name, count = set(names), tensor.name, 0
            while name in taken:
                count += 1
                name = f"{tensor.name}_{count}"
            names.append(name)
        return names

    @property
    def sublayers(self) -> Mapping[str, Layer]:
        """The layers by name."""
        return {layer.name: layer for layer in self.layers}

    @property
    def trainable_weights(self) -> list[Weight]:
        """The weights that training changes."""
        return self._weights_by_training(True)

    @property
    def non_trainable_weights(self) -> list[Weight]:
        """The weights that training leaves alone."""
        return self._weights_by_training(False)

    def _weights_by_training(self, trains: bool) -> list[Weight]:
        from kcompile.frontend.keras_file.layout import owned_weights

        return [owned.weight for owned in owned_weights(self) if owned.trains == trains]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or number `index` of `layers`.

        Raises:
            ModelError: there is no such layer, or not exactly one argument is given.
        """
        if (name is None) == (index is None):
            raise ModelError(f"`get_layer` takes either `name` or `index`. Received: name={name!r}, index={index}.")
        if index is not None and not -len(self.layers) <= index < len(self.layers):
            raise ModelError(f"model `{self.name}` has {len(self.layers)} layers. Received: index={index}.")
        if index is not None:
            return self.layers[index]
        if name is None or name not in self.sublayers:
            raise ModelError(f"model `{self.name}` has no layer `{name}`. Its layers: {', '.join(self.sublayers)}.")
        return self.sublayers[name]

    # -- meaning ----------------------------------------------------------------------------------------------------

    def run(self, t: Trace, values: Sequence[Value], masks: Sequence[Value | None]) -> tuple[Any, Any]:
        """The outputs and their masks, in the outputs' structure, for one value per input."""
        raise NotImplementedError

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        """The outputs, where the model is a layer of another."""
        values = [leaf for leaf in flatten((args, kwargs)) if isinstance(leaf, Value)]
        if len(values) != len(self.inputs):
            law = f"model `{self.name}` takes {len(self.inputs)} inputs ({', '.join(self.input_names)})"
            raise ModelError(f"{law}. Received: {len(values)}.")
        for tensor, value in zip(self.inputs, values, strict=True):
            self._check_input(tensor, value)
        results, t.result_masks = self.run(t, values, t.masks)
        return results

    def _check_input(self, tensor: KerasTensor, value: Value) -> None:
        pairs = zip(tensor.type.shape, value.type.shape, strict=False)
        clash = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in list(pairs)[1:])
        if clash or tensor.type.rank != value.type.rank:
            law = f"input `{tensor.name}` of model `{self.name}` must have shape {tensor.shape}"
            raise ModelError(f"{law}. Received: {value.type}.")

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        """The outputs' masks, found by `call`."""
        return t.result_masks

    def trace(self) -> Graph:
        """The graph of the model.

        Inputs and outputs carry their names in Keras. The batch is ``N`` in all inputs. Open extents of several inputs
        get symbols of their own; where the model needs some to be equal, those on the same axis share one.

        Raises:
            ModelError: a layer does not accept its inputs.
        """
        open_inputs = sum(None in tensor.shape[1:] for tensor in self.inputs)
        if open_inputs < 2:
            return self._trace(apart=False)
        try:
            return self._trace(apart=True)
        except ModelError:
            return self._trace(apart=False)

    def input_types(self, apart: bool) -> dict[str, TensorType]:
        """The inputs' types by name; open extents of several inputs have symbols of their own where `apart`."""
        suffixes = (str(i + 1) if apart else "" for i in range(len(self.inputs)))
        pairs = zip(self.inputs, suffixes, strict=True)
        return {t.name: TensorType(t.dtype, symbolic_shape(t.shape, suffix)) for t, suffix in pairs}

    def _trace(self, apart: bool) -> Graph:
        b = Builder(self.name)
        constants: dict[int, Value] = {}

        def constant(weight: Weight, path: str) -> Value:
            if id(weight) not in constants:
                constants[id(weight)] = b.constant(weight.value, path)
            return constants[id(weight)]

        values = [b.input(name, type) for name, type in self.input_types(apart).items()]
        outputs, _ = self.run(Trace(b, constant), values, (None,) * len(values))
        return b.build(dict(zip(self.output_names, flatten(outputs), strict=True)))

    @property
    def input_keys(self) -> dict[str, str]:
        """The inputs' names by their keys, where the model takes a dict with keys that are not the names."""
        keys = sorted(self.input) if isinstance(self.input, Mapping) else []
        return {key: name for key, name in zip(keys, self.input_names, strict=False) if key != name}

    def signature(self, graph: Graph) -> Signature:
        """What `graph`, traced from this model, takes and gives, in the structures that the model was built with."""
        names = iter(graph.output_names)
        structure = map_structure(lambda _: next(names), self.output)
        return replace(graph_signature(graph, _with_lists(structure)), keys=self.input_keys)

    def match_inputs(self, x: Any) -> dict[str, Array]:
        """Arrays in any structure that `predict` takes, by the inputs' names, with their ranks and any batch size.

        Raises:
            InputError: numbers, names or shapes do not fit.
        """
        types = {t.name: t.type.with_shape((BATCH, *t.type.shape[1:])) if t.type.rank else t.type for t in self.inputs}
        arrays = converted(types, by_name(types, self.input_keys, x), casts=False)
        return dict(zip(types, arrays, strict=True))

    def structure_outputs(self, arrays: Mapping[str, Array]) -> Any:
        """Outputs by name in the structure that Keras gives: an array, or a list or dict of them."""
        queue = iter([arrays[name] for name in self.output_names])
        return map_structure(lambda _: next(queue), self.output)

    # -- printing and saving ----------------------------------------------------------------------------------------

    def summary(self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print a table of the layers: names, output shapes, numbers of parameters and, for a graph, connections."""
        from kcompile.frontend.summary import summary_text

        (print_fn or print)(summary_text(self, line_length))

    def to_json(self, **options: Any) -> str:
        """The config as JSON text; `options` are those of `json.dumps`."""
        from kcompile.frontend.serialization import serialize_model

        return json.dumps(serialize_model(self), **options)

    def save(self, path: str | Path, overwrite: bool = True) -> None:
        """Write the model to a file that Keras reads: ``.keras``, or ``.h5`` (Keras's older format).

        Raises:
            ModelError: the suffix is another, or the file exists and `overwrite` is False.
        """
        from kcompile.frontend.keras_file.save import save_model

        save_model(self, Path(path), overwrite)

    def save_weights(self, path: str | Path, overwrite: bool = True) -> None:
        """Write the weights alone to a ``.weights.h5`` file that Keras reads."""
        from kcompile.frontend.keras_file.save import save_weights

        save_weights(self, Path(path), overwrite)

    def load_weights(self, path: str | Path, skip_mismatch: bool = False, by_name: bool = False) -> None:
        """Take the weights from a file that Keras or kcompile wrote: ``.weights.h5``, ``.h5`` or ``.keras``.

        Args:
            skip_mismatch: leave layers alone whose weights have other shapes.
            by_name: match layers by their names, and leave those alone that only one side has; for ``.h5`` files.

        Raises:
            ModelError: weights are missing, left over or of other shapes; all are named.
        """
        from kcompile.frontend.keras_file.reader import load_weights

        load_weights(self, Path(path), by_name, skip_mismatch)


def _with_lists(structure: Any) -> Structure:
    """`structure` with lists for tuples, as JSON has it."""
    if isinstance(structure, Mapping):
        items = cast(Mapping[str, Any], structure)
        return {key: _with_lists(item) for key, item in items.items()}
    if isinstance(structure, list | tuple):
        return [_with_lists(item) for item in cast(Sequence[Any], structure)]
    return structure
