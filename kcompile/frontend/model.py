"""What all models share: their layers, inputs and outputs, and how they are built, traced to IR and run.

`Model(inputs, outputs)` makes a `Functional` model; `Sequential` is the other kind. A model is a layer, so models nest.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from kcompile.errors import KCompileError, ModelError
from kcompile.frontend.custom import attribute_layers
from kcompile.frontend.inputs import BATCH, symbolic_shape
from kcompile.frontend.layer import Layer, map_shapes
from kcompile.frontend.naming import unique_name
from kcompile.frontend.policies import dtype_policy
from kcompile.frontend.storable import Storable
from kcompile.frontend.traceable import Traceable
from kcompile.frontend.tracing import Call, KerasTensor, Trace, flatten, map_structure
from kcompile.frontend.training.eager import as_array
from kcompile.frontend.training.naming import snake_case
from kcompile.frontend.training.steps import defines
from kcompile.frontend.training.trainer import Trainer
from kcompile.ir.graph import Value
from kcompile.ir.types import TensorType

if TYPE_CHECKING:
    from kcompile.frontend.topology import Topology

Written = TypeVar("Written")


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from: the file's digest, and the Keras that wrote it."""

    sha256: str = ""
    keras_version: str = ""
    backend: str = ""


class Model(Trainer, Storable, Traceable, Layer):
    """Base of models: ``Model(inputs, outputs)``, or a class with a `call` of its own.

        class Classifier(Model):
            def __init__(self):
                super().__init__()
                self.dense = layers.Dense(10)

            def call(self, x, training=False):
                return self.dense(x)

    Such a class is traced to a graph when it first sees the shape of its input: in `fit`, in `build`, or called. Its
    layers are those among its attributes.

    Args:
        inputs: a tensor made by `kcompile.Input`, or a list or dict of them.
        outputs: the tensors to compute from them, in any structure.
        name: of the model.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"dtype"})
    autocast: ClassVar[bool] = False
    untracked: ClassVar[frozenset[str]] = frozenset({"_graph", "_traced", "calls", "given"})

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls is Model:
            from kcompile.frontend.functional import Functional

            return super().__new__(Functional)  # pyright: ignore[reportArgumentType]
        return super().__new__(cls, *args, **kwargs)

    @classmethod
    def is_users_own(cls) -> bool:
        """Whether the class is a user's, with a `call` or a graph that its `__init__` makes."""
        return cls.topology is Model.topology

    # `inputs` and `outputs` are here for subclasses that state a graph; other kinds take theirs themselves.
    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
    ) -> None:
        self.name = name or unique_name(type(self).__name__)
        self.trainable, self.dtype = trainable, dtype or dtype_policy()
        self.provenance = Provenance()
        self._graph: Model | None = None
        self._traced: Call | None = None
        self._own_topology: Topology | None = None
        super().__post_init__()
        if inputs is not None and outputs is not None:
            self._graph = Model(inputs, outputs, name=self.name)
            self.built = True
        elif not self.has_call and not defines(self, "train_step", "test_step", "predict_step"):
            law = "a model is made from layers: kcompile.Model(inputs, outputs), kcompile.Sequential, or a `call`"
            raise ModelError(f"{law}. Received: {type(self).__name__}, a subclass that states none of them.")

    @property
    def has_call(self) -> bool:
        """Whether the model says what it computes: by a graph, or by a `call`; some have steps of training alone."""
        return type(self).call is not Model.call or self.is_graph

    @property
    def has_weights(self) -> bool:
        """Whether all weights are made."""
        return self.built or (not self.has_call and all(layer.built for layer in self.layers))

    @property
    def is_traced(self) -> bool:
        """Whether inputs and outputs are known."""
        return self._graph is not None or not self.is_users_own() or self._traced is not None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The model that `config` describes.

        Args:
            custom_objects: classes and functions for this config alone, by the names in it.

        Raises:
            ModelError: the config is wrong, or the graph in it is.
        """
        from kcompile.frontend.registry import custom_object_scope

        with custom_object_scope(custom_objects):
            return cls.of_config(config)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self:
        """`from_config`, as each kind of model has it; that of a graph makes one of any model."""
        if cls is not Model:
            return super().from_config(config)
        from kcompile.frontend.functional import Functional

        return cast(Self, Functional.of_config(config))

    # -- structure --------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The layers, as Keras lists them."""
        return self._graph.layers if self._graph else list(dict.fromkeys(self._attribute_layers.values()))

    @property
    def topology(self) -> "Topology":
        """The calls and layers between the inputs and the outputs."""
        if self._graph is not None:
            return self._graph.topology
        self._own_call()
        assert self._own_topology is not None
        return self._own_topology

    @property
    def input(self) -> Any:
        """The inputs in the structure that the model takes."""
        return self._graph.input if self._graph else self._own_call().args[0]

    @property
    def output(self) -> Any:
        """The outputs in the structure that the model gives."""
        return self._graph.output if self._graph else self._own_call().outputs

    @property
    def is_graph(self) -> bool:
        """Whether the model's layers stand in a graph, and not in the code of a `call`."""
        return not self.is_users_own() or self._graph is not None

    def _own_call(self) -> Call:
        if self._traced is None:
            law = f"model `{self.name}` does not know its input shape yet"
            if not self.has_call:
                raise ModelError(f"model `{self.name}` has no `call` that says what it computes. Define one.")
            raise ModelError(f"{law}. Fit it, call it on an array, or call model.build((None, ...)).")
        return self._traced

    def build(self, *input_shapes: Any) -> None:
        """Create the weights for inputs of these shapes, which include the batch axis: one, or a list or dict of them.

        Raises:
            ModelError: a layer does not accept its input.
        """
        del input_shapes

    def finish_build(self, *input_shapes: Any, **named: Any) -> None:
        """What follows `build`: the code of a `call` is traced."""
        self.built = self.built or not self.has_call
        if self.built:
            return
        if not self.is_graph and self._traced is None and (input_shapes or named):
            shapes = next(iter((*input_shapes, *named.values())))
            self._trace_call(map_shapes(lambda shape: TensorType("float32", symbolic_shape(shape)), shapes))

    def build_for(self, x: Any) -> None:
        """Create the weights, where there are none yet, for arrays in any structure."""
        if self.built or not self.has_call:
            return
        types = map_structure(_input_type, x)
        try:
            if not self.is_graph and type(self).build is Model.build:
                self._trace_call(types)
            else:
                self.build(map_structure(lambda type: (None, *type.shape[1:]), types))
        except KCompileError:
            # What a step of a user's own is given may be something else than the model's input.
            if not (defines(self, "train_step") and self.layers and all(layer.built for layer in self.layers)):
                raise

    def stored_layers(self) -> dict[str, Layer]:
        """Where Keras stores the layers of a `call`: by their attributes in the order of the names; what stands after
        "layers" in the alphabet, under that name by classes.
        """
        found: dict[str, Layer] = {}
        first = {name: layer for name, layer in self._attribute_layers.items() if _before_layers(name)}
        found.update(first)
        counts: Counter[str] = Counter()
        for layer in self.layers:
            name = snake_case(type(layer).__name__)
            number = counts[name]
            counts[name] += 1
            if not any(layer is each for each in first.values()):
                found[f"layers/{name}_{number}" if number else f"layers/{name}"] = layer
        return found

    def get_build_config(self) -> dict[str, Any] | None:
        """The inputs' shapes and dtypes, where the model's code needs them to be traced."""
        if self.is_graph or self._traced is None:
            return None
        return {"input_shape": self.input_shape, "dtypes": map_structure(lambda tensor: tensor.dtype, self.input)}

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Trace the model's code for inputs of the shapes that a file states."""
        if self.is_graph or self.built or "input_shape" not in config:
            return
        dtypes = iter(flatten(config.get("dtypes", ())))
        types = map_shapes(
            lambda shape: TensorType(next(dtypes, None) or "float32", symbolic_shape((None, *shape[1:]))),
            config["input_shape"],
        )
        if type(self).build is not Model.build:
            self.build(config["input_shape"])
        if not self.built:
            self._trace_call(types)

    def _trace_call(self, types: Any) -> None:
        """Call the model on symbolic tensors of these types, with any number of samples."""
        names = iter(_input_names(type(self), types))

        from kcompile.frontend.inputs import Input
        from kcompile.frontend.topology import Topology

        def entry(type: TensorType) -> KerasTensor:
            shape = (None, *KerasTensor(type).shape[1:])
            return Input(batch_shape=shape, dtype=type.dtype, name=next(names))

        self.built = True
        inputs = map_structure(entry, types)
        try:
            self(inputs)
        except BaseException:
            self.built = False
            raise
        self._traced = self.calls.pop()
        self._own_topology = Topology((self._traced,), tuple(self.layers))

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
        """The layers by name; in the code of a `call`, by attribute."""
        return {layer.name: layer for layer in self.layers} if self.is_graph else self._attribute_layers

    @property
    def _attribute_layers(self) -> dict[str, Layer]:
        return dict(attribute_layers(self))

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
        if self._graph is not None:
            return self._graph.run(t, values, masks)
        queue = iter(values)
        inner = t.inside(self, "")
        inner.masks = tuple(masks)
        return self.applied(inner, (map_structure(lambda _: next(queue), self.input),), {})

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


def _input_type(x: Any) -> TensorType:
    """The type of an input for arrays like `x`, of any number of samples."""
    array = as_array(x)
    return TensorType(array.dtype.name, (BATCH, *array.shape[1:]))


def _before_layers(path: str) -> bool:
    """Whether Keras comes to an attribute before it comes to "layers"; to private ones it comes last."""
    return not path.startswith("_") and path.split("/")[0] < "layers"


def _input_names(cls: type[Model], types: Any) -> list[str]:
    """Names of the inputs of a `call`: that of its parameter, numbered; the keys of a dict."""
    name = next(iter(list(signature(cls.call).parameters)[1:]), "x")
    if isinstance(types, Mapping):
        return sorted(map(str, cast(Mapping[str, Any], types)))
    count = len(list(flatten(types)))
    return [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
