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
from kcompile.frontend import custom, initializers
from kcompile.frontend.operators import Operators
from kcompile.frontend.tensor import Tensor, current
from kcompile.frontend.tracing import (
    Call,
    KerasTensor,
    Trace,
    apply_symbolically,
    flatten,
    holds_symbols,
    map_structure,
    result_types,
)
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


@dataclass(kw_only=True, eq=False, init=False)
class Layer(ABC):
    """Base of all layers, of kcompile's own style (above) and of Keras's:

        class Scale(Layer):
            def __init__(self, units, **kwargs):
                super().__init__(**kwargs)
                self.units = units

            def build(self, input_shape):
                self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="w")

            def call(self, x, training=None, mask=None):
                return kcompile.ops.relu(kcompile.ops.matmul(x, self.w))

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
    # Attributes whose layers are not inside this one, where the attributes say which are.
    untracked: ClassVar[frozenset[str]] = frozenset()
    # Texts that a ``.keras`` file may hold of the layer beside its config and weights, by their names.
    assets: ClassVar[tuple[str, ...]] = ()

    # What the layer was made with, positional and by name; set in each object.
    given: ClassVar[tuple[tuple[Any, ...], dict[str, Any]]] = ((), {})

    name: str = ""
    trainable: bool = True
    dtype: str = "float32"
    # Shape of one sample, or of a batch, given to the first layer of a Sequential in place of an Input.
    input_shape: Shape | None = field(default=None, repr=False)
    # The extent of samples that are vectors, in place of `input_shape`.
    input_dim: int | None = field(default=None, repr=False)

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "call" in cls.__dict__ and custom.takes_trace(cls.call):
            cls.call = custom.either(cls.call)
        if "build" in cls.__dict__:
            cls.build = custom.building(cls.build)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        object.__setattr__(made, "given", (args, kwargs))
        return made

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        input_shape: Shape | None = None,
        input_dim: int | None = None,
        **others: Any,
    ) -> None:
        if others:
            law = f"layer {type(self).__name__} takes name, trainable, dtype, autocast and activity_regularizer here"
            raise ModelError(f"{law}. Received: {', '.join(others)}.")
        object.__setattr__(self, "name", name or "")
        self.trainable, self.dtype, self.input_shape, self.input_dim = trainable, dtype, input_shape, input_dim
        self.activity_regularizer = activity_regularizer
        if not autocast:
            object.__setattr__(self, "autocast", False)
        self.__post_init__()

    def __post_init__(self) -> None:
        self.name = self.name or unique_name(type(self).__name__)
        if self.input_dim is not None and self.input_shape is None and "input_dim" in _unstated(self):
            self.input_shape = (self.input_dim,)
        self.dtype = _policy_name(self.dtype)
        known = self.dtype.removeprefix("mixed_") in SHORT_DTYPES
        self.require(known or not self.has_policy, "dtype", 'a dtype, or the policy "mixed_float16"')
        self.own_weights: list[Weight] = []
        # What the layer gave where the `call` of another, in Keras's style, last called it.
        self.traced_outputs: Any = None
        self.calls: list[Call] = []
        self.built = False

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "trainable" and "built" in self.__dict__:  # once the layer is made, for the layers inside as well
            for layer in self.sublayers.values():
                layer.trainable = value
        if isinstance(value, Weight) and not any(value is weight for weight in self.own_weights):
            self.own_weights.append(value)

    def __getattr__(self, name: str) -> Any:
        """The layer's own weight of that name (``dense.kernel``)."""
        if name in ("own_weights", "calls", "built"):
            raise ModelError(f"`__init__` of {type(self).__name__} must call super().__init__() first.")
        found = next((weight for weight in self.__dict__.get("own_weights", ()) if weight.name == name), None)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return found

    # -- what a layer defines ---------------------------------------------------------------------------------------

    def build(self, *input_shapes: Any) -> None:
        """Create the weights with `add_weight`; called once, with the shape of each call argument that is a tensor."""
        del input_shapes

    def finish_build(self, *input_shapes: Any, **named: Any) -> None:
        """What follows `build`: the layer is built."""
        del input_shapes, named
        self.built = True

    def get_build_config(self) -> dict[str, Any] | None:
        """What `build_from_config` needs, beside the config; None where calls say it all."""
        return None

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Create the weights as a file says; calls do so for most layers."""
        del config

    def build_for(self, x: Any) -> None:
        """Create the weights for arrays; a layer does so when it is called."""
        del x

    @classmethod
    def is_users_own(cls) -> bool:
        """Whether the class is written in Keras's style, so that its `__init__` says what makes an equal layer."""
        return not custom.is_own_style(cls)

    @abstractmethod
    def call(self, t: Any, *args: Any, **kwargs: Any) -> Any:
        """The results as IR values, from IR values (in the structure that the user's call gave); `t` writes them.

        Where the first parameter is not called `t`, the results as tensors, from tensors.
        """

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | Sequence[Value | None] | None:
        """The mask of the result; by default the first input's where `supports_masking`."""
        del args, kwargs
        if not self.supports_masking:
            return None
        return next(iter(t.masks), None)

    @property
    def sublayers(self) -> Mapping[str, "Layer"]:
        """Layers inside this one by the attribute names that Keras gives them (``"forward_layer"``)."""
        return {} if custom.is_own_style(type(self)) else dict(custom.attribute_layers(self))

    @property
    def stands_for(self) -> "Layer":
        """The layer that configs name in the place of this one: itself."""
        return self

    def ensure_built(
        self, shapes: Sequence[Shape], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Create the weights, once, for values of these shapes, which stand in the arguments where those are given."""
        if self.built:
            return
        if custom.is_own_style(type(self)):
            self.build(*shapes)
        else:
            custom.build(self, shapes, args, kwargs or {})
        self.built = True

    def applied(self, t: Trace, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """The results and their masks, in either style of `call`."""
        if not custom.is_own_style(type(self)):
            return custom.apply(self, t, args, kwargs)
        return self.call(t, *args, **kwargs), self.compute_mask(t, *args, **kwargs)

    def compute_output_shape(self, *shapes: Any) -> Any:
        """The shapes of the results for inputs of these shapes, None for open extents."""
        from kcompile.frontend.inputs import Input

        tensors = tuple(map_shapes(lambda shape: Input(batch_shape=shape), each) for each in shapes)
        types, _ = result_types(self, tensors, {})
        return map_structure(lambda type: KerasTensor(type).shape, types)

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
        weight = Weight(name, np.asarray(value), given.get("trainable", trainable), regularizer, constraint)
        self.own_weights.append(weight)
        return weight

    def add_loss(self, loss: Any) -> None:
        """Add a cost to the loss, from within `call`: numbers, which are summed."""
        t = current()
        if t is None:
            raise ModelError(f"`add_loss` of layer `{self.name}` is for its `call`.")
        if t.effects is not None:
            from kcompile.frontend.operations.calling import call

            t.effects.add(call("Sum", loss).value)

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
    def losses(self) -> list[Array]:
        """What the regularizers of the weights cost now."""
        from kcompile.frontend.training.step import penalties

        return penalties(self)

    def _weights_by_training(self, trains: bool) -> list[Weight]:
        from kcompile.frontend.keras_file.layout import owned_weights

        return [owned.weight for owned in owned_weights(self) if owned.trains == trains]

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
        return sum(weight.value.size for weight in self.weights)

    # -- config -----------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal layer, as Keras names them."""
        left_out = {*_unstated(self), *self.hidden_fields}
        left_out |= {name for name in self.optional_fields if getattr(self, name) is None}
        config = {f.name: _serialize(f.name, getattr(self, f.name)) for f in fields(self) if f.name not in left_out}
        return config | custom.arguments(self) if self.is_users_own() else config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer that `config` describes.

        Raises:
            ModelError: an argument is missing or unknown.
        """
        if cls.is_users_own():
            return custom.made(cls, config)
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
        """Apply the layer to tensors, alone, in lists, dicts or as keyword arguments.

        Symbolic tensors (`KerasTensor`) record a call in a graph; arrays are computed at once.
        """
        if holds_symbols((args, kwargs)):
            return apply_symbolically(self, args, kwargs)
        if current() is not None:
            return custom.apply_to_tensors(self, args, kwargs)
        if not any(isinstance(leaf, np.ndarray | list | int | float) for leaf in flatten((args, kwargs))):
            received = ", ".join(type(a).__name__ for a in args) or "nothing"
            law = f"layer `{self.name}` takes arrays, or symbolic tensors such as kcompile.Input(...)"
            raise ModelError(f"{law}. Received: {received}.")
        from kcompile.frontend.training.eager import apply_layer

        self.build_for(args[0] if args else None)
        return apply_layer(self, args, kwargs)

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


# The order of `add_weight`'s arguments in Keras 3.
_KERAS_ORDER = ("shape", "initializer", "dtype", "trainable")


def _unstated(layer: Layer) -> set[str]:
    """Fields that place a layer in a model and are no part of its config; a layer may have one of that name itself."""
    return {f.name for f in fields(layer) if f.name in ("input_shape", "input_dim") and f.kw_only}


def map_shapes(function: Callable[[Any], Any], shapes: Any) -> Any:
    """A structure whose leaves are shapes, with every leaf replaced."""
    if isinstance(shapes, Mapping):
        return {key: map_shapes(function, shape) for key, shape in shapes.items()}  # pyright: ignore
    if all(extent is None or isinstance(extent, int) for extent in shapes):
        return function(tuple(shapes))
    return [map_shapes(function, shape) for shape in shapes]


def _policy_name(dtype: Any) -> str:
    """The name of a dtype policy, which Keras writes as a config; None is "float32"."""
    config: Any = dtype.get("config") if isinstance(dtype, Mapping) else None  # pyright: ignore[reportUnknownMemberType]
    return str(config.get("name") if isinstance(config, Mapping) else dtype or "float32")  # pyright: ignore[reportUnknownMemberType]


def _serialize(name: str, value: Any) -> Any:
    """The value of an argument as a config holds it."""
    if name.endswith("_initializer"):
        return initializers.serialize(value)
    if isinstance(value, Layer):
        from kcompile.frontend import activations

        return activations.serialize(value) if name.endswith("activation") else serialize_layer(value)
    if name.endswith(("_regularizer", "_constraint")):
        from kcompile.frontend.objects import serialize_keras_object

        return serialize_keras_object(value)
    return value


# The numbers of layers that stand in several models of what is being serialized, by identity. One is noted where the
# layer stands for the first time: with the others, Keras would take the calls in one model for those in another.
shared_numbers: ContextVar[dict[int, int]] = ContextVar("shared_numbers")


def serialize_layer(layer: Layer) -> dict[str, Any]:
    """`layer` as Keras 3 writes one inside another layer's config."""
    number = shared_numbers.get({}).pop(id(layer), None)
    shared = {} if number is None else {"shared_object_id": number}
    layer = layer.stands_for
    cls = type(layer)
    names = [name for name, entry in LAYERS.items() if entry is cls]
    own = any(name.startswith(("keras>", "keras.ops>")) for name in names)
    registered = next((name for name in names if not name.startswith("keras>")), None)
    return {
        "module": cls.keras_module if own else None,
        "class_name": cls.__name__,
        "config": layer.get_config(),
        "registered_name": None if own else registered,
        **({} if (built := layer.get_build_config()) is None else {"build_config": built}),
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
    cls = parts.get("layer_class") or next(filter(None, found), None) or _registered(names)
    if cls is None:
        law = f"kcompile cannot compile layer class {names[1]!r}"
        raise UnsupportedLayer(f"{law}. Register a converter with @kcompile.register_layer.")
    if not shared:
        shared.append(cls.from_config(parts["config"]))
        if isinstance(parts.get("build_config"), Mapping):
            shared[0].build_from_config(parts["build_config"])
    return shared[0]


def _registered(names: Sequence[Any]) -> type[Layer] | None:
    from kcompile.frontend import registry

    found = registry.find(*names)
    return found if isinstance(found, type) and issubclass(found, Layer) else None


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
