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

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from kcompile.errors import ModelError, shown
from kcompile.frontend import custom, initializers
from kcompile.frontend.layer_weights import Weighted
from kcompile.frontend.naming import unique_name
from kcompile.frontend.policies import dtype_policy
from kcompile.frontend.tensor import current
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
from kcompile.frontend.weight import Weight
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


@dataclass(kw_only=True, eq=False, init=False)
class Layer(Weighted):
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
        # A field of kcompile's own layers says "float32" where it is not given; some classes have another default.
        unstated = custom.is_own_style(type(self)) and self.dtype == "float32" and "dtype" not in self.given[1]
        self.dtype = _policy_name(None if unstated and self.has_policy else self.dtype)
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

    @property
    def compute_dtype(self) -> str:
        """The dtype of the results: that of the policy's computations."""
        return self.dtype.removeprefix("mixed_")

    def add_loss(self, loss: Any) -> None:
        """Add a cost to the loss, from within `call`: numbers, which are summed."""
        t = current()
        if t is None:
            raise ModelError(f"`add_loss` of layer `{self.name}` is for its `call`.")
        if t.effects is not None:
            from kcompile.frontend.operations.calling import call

            t.effects.add(self, call("Sum", loss).value)

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
    """The name of a dtype policy, which Keras writes as a config; None is that of layers that state none."""
    config: Any = dtype.get("config") if isinstance(dtype, Mapping) else None  # pyright: ignore[reportUnknownMemberType]
    return str(config.get("name") if isinstance(config, Mapping) else dtype or dtype_policy())  # pyright: ignore[reportUnknownMemberType]


def _serialize(name: str, value: Any) -> Any:
    """The value of an argument as a config holds it."""
    if name.endswith("_initializer"):
        return initializers.serialize(value)
    if isinstance(value, Layer):
        from kcompile.frontend import activations
        from kcompile.frontend.layer_configs import serialize_layer

        return activations.serialize(value) if name.endswith("activation") else serialize_layer(value)
    if name.endswith(("_regularizer", "_constraint")):
        from kcompile.frontend.objects import serialize_keras_object

        return serialize_keras_object(value)
    return value


__all__ = ["LAYERS", "Call", "KerasTensor", "Layer", "Trace", "Weight", "register_layer"]
