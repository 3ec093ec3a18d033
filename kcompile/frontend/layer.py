"""What a layer is: a typed config, its weights, and one `call` that writes it as IR ops.

    @register_layer("keras>Dense")
    @dataclass(kw_only=False, eq=False)
    class Dense(Layer):
        units: int
        activation: Activation = "linear"
        use_bias: bool = True

        def build(self, input_shape: Shape) -> None:
            self.add_weight("kernel", (input_shape[-1], self.units), "glorot_uniform")

        def call(self, t: Trace, x: Value) -> Value:
            return t(ops.Dense(), x, t.weight("kernel"))

The dataclass fields are the config in Keras's words, so the Python API, `get_config` and the file reader share them.
Shapes of results come from the ops' own inference: a layer states them nowhere. The same class serves a layer made in
Python and one read from a file.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from kcompile.errors import ModelError, UnsupportedLayer, shown
from kcompile.frontend import initializers
from kcompile.frontend.tracing import Call, KerasTensor, Trace, apply_symbolically, holds_symbols
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value
from kcompile.ir.types import SHORT_DTYPES, Array

# Layer classes by registered name: ``"keras>Dense"`` for Keras's own, ``"package>Name"`` for others.
LAYERS: dict[str, type["Layer"]] = {}

L = TypeVar("L", bound="type[Layer]")


def register_layer(*names: str) -> Callable[[L], L]:
    """Teach the compiler a layer class under the names that files give it (``"package>Name"``, or a bare ``"Name"``).

    A later registration of a name replaces an earlier one, so that a user can override any layer.
    """

    def enter(cls: L) -> L:
        for name in names:
            LAYERS[name] = cls
        return cls

    return enter


@dataclass(eq=False)
class Weight:
    """One array of a layer. `name` is the layer's own name for it (``"kernel"``)."""

    name: str
    value: Array
    trainable: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.value.shape

    def assign(self, value: Array) -> None:
        """Replace the array by one of the same shape.

        Raises:
            ModelError: the shape differs.
        """
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ModelError(f"weight `{self.name}` must have shape {self.shape}. Received: {array.shape}.")
        self.value = array.astype(self.value.dtype, copy=False)


@dataclass(kw_only=True, eq=False)
class Layer(ABC):
    """Base of all layers.

    Args:
        name: unique in a model; by default the class name in snake case with a number.
        trainable: whether training changes the weights.
        dtype: the dtype of weights and results, or the name of a dtype policy.
    """

    # Whether the mask of the first input is passed on unchanged.
    supports_masking: ClassVar[bool] = False
    # Where Keras keeps the class, as configs name it.
    keras_module: ClassVar[str] = "keras.layers"
    # Fields that `get_config` leaves out.
    hidden_fields: ClassVar[frozenset[str]] = frozenset()
    # Fields that `get_config` leaves out where they are None.
    optional_fields: ClassVar[frozenset[str]] = frozenset()
    # Whether float inputs and weights are brought to the dtype of the layer's policy.
    autocast: ClassVar[bool] = True
    # Whether `dtype` is such a policy; an input's is that of its tensor.
    has_policy: ClassVar[bool] = True
    # Texts that a ``.keras`` file may hold of the layer beside its config and weights, by their names.
    assets: ClassVar[tuple[str, ...]] = ()

    name: str = ""
    trainable: bool = True
    dtype: str = "float32"
    # Shape of one sample, or of a batch, given to the first layer of a Sequential in place of an Input.
    input_shape: Shape | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.name = self.name or unique_name(type(self).__name__)
        self.dtype = _policy_name(self.dtype)
        known = self.dtype.removeprefix("mixed_") in SHORT_DTYPES
        self.require(known or not self.has_policy, "dtype", 'a dtype, or the policy "mixed_float16"')
        self.own_weights: list[Weight] = []
        self.calls: list[Call] = []
        self.built = False

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "trainable" and "built" in self.__dict__:  # once the layer is made, for the layers inside as well
            for layer in self.sublayers.values():
                layer.trainable = value

    # -- what a layer defines ---------------------------------------------------------------------------------------

    def build(self, *input_shapes: Any) -> None:
        """Create the weights with `add_weight`; called once, with the shape of each call argument that is a tensor."""
        del input_shapes

    @abstractmethod
    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        """The results as IR values, from IR values (in the structure that the user's call gave)."""

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | Sequence[Value | None] | None:
        """The mask of the result; by default the first input's where `supports_masking`."""
        del args, kwargs
        if not self.supports_masking:
            return None
        return next(iter(t.masks), None)

    @property
    def sublayers(self) -> Mapping[str, "Layer"]:
        """Layers inside this one by the attribute names that Keras gives them (``"forward_layer"``)."""
        return {}

    # -- what files hold beside config and weights ------------------------------------------------------------------

    def set_asset(self, name: str, text: str) -> None:
        """Take one of `assets` from a file."""
        del name, text

    @property
    def tables(self) -> Mapping[str, Array]:
        """Arrays that files hold under names of their own."""
        return {}

    def set_table(self, name: str, array: Array) -> None:
        """Take one of `tables` from a file."""
        del name, array

    # -- weights ----------------------------------------------------------------------------------------------------

    def add_weight(
        self, name: str, shape: Sequence[Any], initializer: Any = "glorot_uniform", trainable: bool = True
    ) -> None:
        """Create a weight, filled by an initializer (a Keras name, config or object)."""
        if not all(isinstance(extent, int) for extent in shape):
            law = f"`{name}` of layer `{self.name}` needs known extents"
            raise ModelError(f"{law}. Received: {tuple(shape)}. Give the model's Input a full shape.")
        value = initializers.get(initializer)(tuple(shape), self.variable_dtype)
        self.own_weights.append(Weight(name, value, trainable))

    @property
    def variable_dtype(self) -> str:
        """The dtype of the weights: that of the policy's variables."""
        return self.dtype if not self.dtype.startswith("mixed_") else "float32"

    @property
    def compute_dtype(self) -> str:
        """The dtype of the results: that of the policy's computations."""
        return self.dtype.removeprefix("mixed_")

    @property
    def weights(self) -> list[Weight]:
        """All weights: the layer's own, then those of layers inside, depth first."""
        inner = [weight for layer in self.sublayers.values() for weight in layer.weights]
        return list(dict.fromkeys([*self.own_weights, *inner]))

    def get_weights(self) -> list[Array]:
        """The arrays of `weights`."""
        return [weight.value for weight in self.weights]

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
        return sum(weight.value.size for weight in self.weights)

    # -- config -----------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal layer, as Keras names them."""
        left_out = {"input_shape", *self.hidden_fields}
        left_out |= {name for name in self.optional_fields if getattr(self, name) is None}
        return {f.name: _serialize(f.name, getattr(self, f.name)) for f in fields(self) if f.name not in left_out}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer that `config` describes.

        Raises:
            ModelError: an argument is missing or unknown.
        """
        known = {f.name: f for f in fields(cls) if f.init}
        missing = [
            n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in config
        ]
        unknown = [n for n in config if n not in known]
        if missing or unknown:
            where = f"layer `{config.get('name', cls.__name__)}` ({cls.__name__})"
            raise ModelError(f"the config of {where} must hold {list(known)}. Missing: {missing}; unknown: {unknown}.")
        return cls(**config)

    # -- calling ----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the layer to symbolic tensors (`KerasTensor`), alone, in lists, dicts or as keyword arguments."""
        if not holds_symbols((args, kwargs)):
            received = ", ".join(type(a).__name__ for a in args) or "nothing"
            raise ModelError(
                f"layer `{self.name}` takes symbolic tensors such as kcompile.Input(...). Received: {received}. "
                "Use model.predict(x) for arrays."
            )
        return apply_symbolically(self, args, kwargs)

    @property
    def output(self) -> Any:
        """The result of the layer's only call."""
        if len(self.calls) != 1:
            law = f"`output` needs a layer that was called once; layer `{self.name}` was called {len(self.calls)} times"
            raise ModelError(f"{law}.")
        return self.calls[0].outputs

    @property
    def input(self) -> Any:
        """The first argument of the layer's only call."""
        if len(self.calls) != 1:
            law = f"`input` needs a layer that was called once; layer `{self.name}` was called {len(self.calls)} times"
            raise ModelError(f"{law}.")
        return self.calls[0].args[0] if self.calls[0].args else None

    def require(self, law: bool, argument: str, expected: str) -> None:
        """Raise a ModelError that names the argument, the law and what was received, unless `law` holds."""
        if not law:
            value = getattr(self, argument)
            received = f"{argument}={shown(value)}"
            raise ModelError(f"`{argument}` of layer `{self.name}` must be {expected}. Received: {received}.")


def _policy_name(dtype: Any) -> str:
    """The name of a dtype policy, which Keras writes as a config; None is "float32"."""
    config: Any = dtype.get("config") if isinstance(dtype, Mapping) else None  # pyright: ignore[reportUnknownMemberType]
    return str(config.get("name") if isinstance(config, Mapping) else dtype or "float32")  # pyright: ignore[reportUnknownMemberType]


def _serialize(name: str, value: Any) -> Any:
    """The value of an argument as a config holds it."""
    if name.endswith("_initializer"):
        return initializers.serialize(value)
    return serialize_layer(value) if isinstance(value, Layer) else value


# The numbers of layers that stand in several models of what is being serialized, by identity. One is noted where the
# layer stands for the first time: with the others, Keras would take the calls in one model for those in another.
shared_numbers: ContextVar[dict[int, int]] = ContextVar("shared_numbers")


def serialize_layer(layer: Layer) -> dict[str, Any]:
    """`layer` as Keras 3 writes one inside another layer's config."""
    number = shared_numbers.get({}).pop(id(layer), None)
    shared = {} if number is None else {"shared_object_id": number}
    cls = type(layer)
    names = [name for name, entry in LAYERS.items() if entry is cls]
    own = any(name.startswith(("keras>", "keras.ops>")) for name in names)
    registered = next((name for name in names if not name.startswith("keras>")), None)
    return {
        "module": cls.keras_module if own else None,
        "class_name": cls.__name__,
        "config": layer.get_config(),
        "registered_name": None if own else registered,
        **shared,
    }


def deserialize_layer(spec: Any) -> Layer:
    """The layer that a config describes (``{"class_name": ..., "config": ...}``); a layer is itself.

    Raises:
        UnsupportedLayer: no layer is registered under that name.
        ModelError: `spec` is no such config.
    """
    if isinstance(spec, Layer):
        return spec
    if not isinstance(spec, Mapping) or not isinstance(spec.get("config"), Mapping):  # pyright: ignore[reportUnknownMemberType]
        law = "a layer must be an object or a config with `class_name` and `config`"
        raise ModelError(f"{law}. Received: {shown(spec)}.")
    parts: Mapping[str, Any] = spec  # pyright: ignore[reportUnknownVariableType]
    # A reader of files leaves here the class that it chose, and a list that holds the layer once a spec has made it.
    shared: list[Layer] = parts.get("made", [])
    names = [parts.get("registered_name"), parts.get("class_name")]
    found = (LAYERS.get(str(name)) or LAYERS.get(f"keras>{name}") for name in names)
    cls = parts.get("layer_class") or next(filter(None, found), None)
    if cls is None:
        law = f"kcompile cannot compile layer class {names[1]!r}"
        raise UnsupportedLayer(f"{law}. Register a converter with @kcompile.register_layer.")
    if not shared:
        shared.append(cls.from_config(parts["config"]))
    return shared[0]


_names: Counter[str] = Counter()


def unique_name(class_name: str) -> str:
    """``Conv2D`` -> ``conv2d``, then ``conv2d_1``, as Keras names layers."""
    import re

    snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", class_name)
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
    count = _names[snake]
    _names[snake] += 1
    return f"{snake}_{count}" if count else snake


def reset_names() -> None:
    """Start automatic names afresh, as `keras.backend.clear_session` does."""
    _names.clear()


__all__ = [
    "LAYERS",
    "Call",
    "KerasTensor",
    "Layer",
    "Trace",
    "Weight",
    "deserialize_layer",
    "register_layer",
    "reset_names",
    "serialize_layer",
    "unique_name",
]
