"""What all models share: looking at them, tracing them to IR, running and saving them.

`Model(inputs, outputs)` makes a `Functional` model; `Sequential` is the other kind. A model is a layer, so models nest.
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from kcompile.errors import InputError, ModelError
from kcompile.frontend.inputs import symbolic_shape
from kcompile.frontend.layer import Layer, Weight, unique_name
from kcompile.frontend.tracing import KerasTensor, Trace, flatten, map_structure
from kcompile.frontend.training.trainer import Trainer
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.types import Array, TensorType

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
        if cls is Model and (args or kwargs):
            from kcompile.frontend.functional import Functional

            return super().__new__(Functional)  # pyright: ignore[reportArgumentType]
        return super().__new__(cls)

    def __init__(self, name: str | None = None, trainable: bool = True, dtype: str = "float32") -> None:
        self.name = name or unique_name(type(self).__name__)
        self.trainable, self.dtype = trainable, dtype
        self.provenance = Provenance()
        super().__post_init__()

    # -- structure --------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def layers(self) -> list[Layer]:
        """The layers, as Keras lists them."""

    @property
    @abstractmethod
    def topology(self) -> "Topology":
        """The calls and layers between the inputs and the outputs."""

    @property
    @abstractmethod
    def input(self) -> Any:
        """The inputs in the structure that the model takes."""

    @property
    @abstractmethod
    def output(self) -> Any:
        """The outputs in the structure that the model gives."""

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

    @abstractmethod
    def run(self, t: Trace, values: Sequence[Value], masks: Sequence[Value | None]) -> tuple[Any, Any]:
        """The outputs and their masks, in the outputs' structure, for one value per input."""

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

    def name_inputs(self, x: Any) -> dict[str, Array]:
        """Arrays in any accepted structure by the inputs' names, as the inputs' dtypes.

        Raises:
            InputError: their number or names do not fit.
        """
        arrays = self.match_inputs(x)
        return {tensor.name: arrays[tensor.name].astype(tensor.dtype, copy=False) for tensor in self.inputs}

    def match_inputs(self, x: Any) -> dict[str, Array]:
        """Arrays in any accepted structure by the inputs' names.

        Raises:
            InputError: their number or names do not fit.
        """
        names = self.input_names
        keys = sorted(self.input) if isinstance(self.input, Mapping) else names
        if isinstance(x, Mapping):
            given = {str(key): array for key, array in x.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            arrays = {n: given[k if k in given else n] for k, n in zip(keys, names, strict=True) if {k, n} & set(given)}
            fits = len(arrays) == len(names) == len(given)
        else:
            leaves = list(x) if isinstance(x, list | tuple) else [x]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            arrays = dict(zip(names, leaves, strict=False))
            given, fits = leaves, len(leaves) == len(names)
        if not fits:
            received = ", ".join(given) if isinstance(given, dict) else f"{len(given)} arrays"
            raise InputError(f"model `{self.name}` takes the inputs {', '.join(names)}. Received: {received}.")
        return {name: np.asarray(arrays[name]) for name in names}

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

    def load_weights(self, path: str | Path) -> None:
        """Take the weights from a file that Keras or kcompile wrote: ``.weights.h5``, ``.h5`` or ``.keras``.

        Raises:
            ModelError: weights are missing, left over or of other shapes; all are named.
        """
        from kcompile.frontend.keras_file.reader import load_weights

        load_weights(self, Path(path))
