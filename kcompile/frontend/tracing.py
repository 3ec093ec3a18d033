"""From calls on symbolic tensors to IR.

`KerasTensor` is what the functional API passes around: the result of one `Call` of a layer. `Trace` is what a layer's
`call` writes ops with. Shapes of symbolic results are found by tracing the layer into a throw-away builder, so that
a layer's meaning stands in one place.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.errors import ModelError, TypeRuleError
from kcompile.frontend.operators import Unknown
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Builder, Value
from kcompile.ir.op import Op
from kcompile.ir.ops.arithmetic import Cast
from kcompile.ir.types import Array, TensorType, type_of

if TYPE_CHECKING:
    from kcompile.frontend.layer import Layer
    from kcompile.frontend.training.effects import Effects
    from kcompile.frontend.weight import Weight


@dataclass(eq=False)
class KerasTensor(Unknown):
    """A symbolic tensor: output number `index` of `call`; without one, an input of a model."""

    type: TensorType
    name: str = ""
    call: "Call | None" = field(default=None, repr=False)
    index: int = 0
    # The type of its mask, where it has one.
    mask_type: TensorType | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape with None for open extents, as Keras prints it."""
        return tuple(dim if isinstance(dim, int) else None for dim in self.type.shape)

    @property
    def dtype(self) -> str:
        """The numpy name of the element type."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.type.rank


@dataclass(eq=False)
class Call:
    """One application of a layer; `args` and `kwargs` hold KerasTensors in the user's structure."""

    layer: "Layer"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any = None

    @property
    def inputs(self) -> list[KerasTensor]:
        """The symbolic tensors among the arguments, in order."""
        return [t for t in flatten((self.args, self.kwargs)) if isinstance(t, KerasTensor)]

    @property
    def flat_outputs(self) -> list[KerasTensor]:
        """The results, in order."""
        return [t for t in flatten(self.outputs) if isinstance(t, KerasTensor)]


class Trace:
    """What a layer's `call` writes IR with.

    t(ops.Relu(), x)                 one op, one result
    t.multi(ops.Lstm(), ...)         all results
    t.weight("kernel")               a weight of this layer
    t.constant(array)                a number or array
    t.run(sublayer, x, mask=m)       a layer inside this one
    t.inside(sublayer)               a trace of a layer inside this one, to write its ops in another way than its `call`
    t.masks                          the masks of the call's tensors, None where there is none
    t.mask_given                     whether the call names the mask itself (``lstm(x, mask=m)``)
    t.result_masks                   where a layer's `call` may leave masks for its `compute_mask`
    t.training                       whether the layer acts as it does in training
    t.for_shapes                     whether nothing but the types of the results matters
    t.trainable                      whether training changes the layer's weights
    t.effects                        while training: random numbers, costs beside the loss, new values of weights
    """

    def __init__(self, b: Builder, weights: Callable[["Weight", str], Value], effects: "Effects | None" = None) -> None:
        self.b = b
        self.effects = effects
        self._training, self._asks_training = effects is not None and effects.training, False
        self.for_shapes = False
        self.trainable = True
        self.masks: tuple[Value | None, ...] = ()
        self.mask_given = False
        self.result_masks: Any = None
        self._weights = weights
        self._layer: Layer | None = None
        self._path = ""

    @property
    def training(self) -> bool:
        """Whether the layer acts as it does in training.

        Raises:
            ModelError: the layer's call in the graph says ``training=True``, and this is no training.
        """
        if self._asks_training and not self.for_shapes:
            law = f"layer `{self._path}` is called with training=True, as it acts in training alone"
            raise ModelError(f"{law}. Call it without `training`, or save the model that is to be deployed.")
        return self._training

    @training.setter
    def training(self, value: bool) -> None:
        self._training = value

    @property
    def is_outermost(self) -> bool:
        """Whether this is no layer's `call`, but what stands around all of them."""
        return self._layer is None

    def __call__(self, op: Op, *inputs: Value) -> Value:
        """The only result of `op`."""
        return self.b(op, *inputs)

    def multi(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """All results of `op`."""
        return self.b.multi(op, *inputs)

    def constant(self, value: Array | float | Sequence[float], dtype: str = "float32", name: str = "") -> Value:
        """A constant, as `dtype` where it is no array yet."""
        array: Array = value if isinstance(value, np.ndarray) else np.asarray(value, dtype)
        return self.b.constant(array, name)

    def weight(self, name: str, dtype: str | None = None) -> Value:
        """The layer's own weight of that name, as `dtype`, by default that in which the layer computes."""
        assert self._layer is not None
        weight = next(w for w in self._layer.own_weights if w.name == name)
        value = self._weights(weight, f"{self._path}/{name}")
        return self._as_float(value, dtype) if dtype else self._autocast(self._layer, value)

    def _autocast(self, layer: "Layer", value: Any) -> Any:
        """A float value in the dtype of a layer's policy; anything else as it is."""
        return self._as_float(value, layer.compute_dtype) if layer.autocast else value

    def _as_float(self, value: Any, dtype: str) -> Any:
        wrong = isinstance(value, Value) and value.type.is_float and dtype.startswith("float")
        return self.b(Cast(dtype), value) if wrong and value.type.dtype != dtype else value

    def update(self, name: str, value: Value) -> None:
        """Give the layer's own weight of that name a new value, which is stored after the step."""
        assert self._layer is not None
        assert self.effects is not None
        weight = next(w for w in self._layer.own_weights if w.name == name)
        self.effects.state.write(weight, self._as_float(value, weight.array.dtype.name))

    def read(self, weight: "Weight") -> Value:
        """Any weight, as layers in Keras's style hold them, in the dtype in which the layer computes."""
        value = self._weights(weight, self._path_of(weight))
        return value if self._layer is None else self._autocast(self._layer, value)

    def _path_of(self, weight: "Weight") -> str:
        owners = [("", self._layer)] if self._layer is not None else []
        for path, layer in owners:
            if any(each is weight for each in layer.own_weights):
                return "/".join(part for part in (self._path, path, weight.name) if part)
            owners.extend((f"{path}/{inner.name}".lstrip("/"), inner) for inner in layer.sublayers.values())
        return weight.name

    def store(self, weight: "Weight", value: Value) -> None:
        """Give any weight a new value, which is stored after the step.

        Raises:
            ModelError: what is traced keeps no state.
        """
        if self.for_shapes:
            return
        if self.effects is None:
            law = f"`{self._path_of(weight)}` is given a new value, but a compiled model keeps no state"
            raise ModelError(f"{law}. Assign where `training` is true alone.")
        self.effects.state.write(weight, self._as_float(value, weight.array.dtype.name))

    def has_weight(self, name: str) -> bool:
        """Whether the layer has a weight of that name."""
        assert self._layer is not None
        return any(w.name == name for w in self._layer.own_weights)

    def inside(self, layer: "Layer", path: str | None = None) -> "Trace":
        """A trace with the weights of `layer`, which is inside this one; `path` by default is by its name."""
        inner = Trace(self.b, self._weights, self.effects)
        named = f"{self._path}/{layer.name}" if self._path else layer.name
        inner._layer, inner._path = layer, named if path is None else path
        inner.for_shapes = self.for_shapes
        inner.trainable = self.trainable and layer.trainable
        inner._training, inner._asks_training = self._training, self._asks_training
        return inner

    def with_weights(self, values: Mapping["Weight", Value]) -> "Trace":
        """This trace where these weights have other values."""
        made = copy(self)
        made._weights = lambda weight, path: values[weight] if weight in values else self._weights(weight, path)
        return made

    def loop_body(self, b: Builder) -> tuple["Trace", dict[Value, Value]]:
        """A trace that writes the body of a loop with `b`, and the body's inputs by the weights that it reads."""
        read: dict[Value, Value] = {}

        def entered(weight: "Weight", path: str) -> Value:
            outer = self._weights(weight, path)
            if outer not in read:
                read[outer] = b.input(f"weight_{len(read)}", outer.type)
            return read[outer]

        inner = Trace(b, entered)
        inner._layer, inner._path, inner.for_shapes = self._layer, self._path, self.for_shapes
        return inner, read

    def run(self, layer: "Layer", *args: Any, masks: Sequence[Value | None] | None = None, **kwargs: Any) -> Any:
        """The results of `layer` on IR values; see `run_with_mask`."""
        return self.run_with_mask(layer, *args, masks=masks, **kwargs)[0]

    def run_with_mask(
        self, layer: "Layer", *args: Any, masks: Sequence[Value | None] | None = None, **kwargs: Any
    ) -> tuple[Any, Any]:
        """The results of `layer` on IR values and their mask; `masks` are those of the values, in order.

        As in Keras, the keyword arguments `mask` and `training` reach every layer: they override what is carried.

        Raises:
            ModelError: the layer does not accept its inputs; the text names the layer.
        """
        parts = [("", args), *sorted(kwargs.items())]
        leaves = [(key, leaf) for key, part in parts for leaf in flatten(part) if isinstance(leaf, Value)]
        carried = masks if masks is not None else (None,) * len(leaves)
        values = [value for key, value in leaves if key != "mask"]
        inner = self.inside(layer)
        inner.masks = tuple(mask for (key, _), mask in zip(leaves, carried, strict=True) if key != "mask")
        if (mask := kwargs.pop("mask", None)) is not None:
            explicit = tuple(flatten(mask))
            inner.masks = (*explicit, *inner.masks[len(explicit) :])
            inner.mask_given = True
        if (training := kwargs.pop("training", None)) is not None:
            inner._training = bool(training) and self.effects is not None
            inner._asks_training = bool(training) and self.effects is None
        with self.b.source(layer.name):
            args, kwargs = map_structure(lambda leaf: self._autocast(layer, leaf), (args, kwargs))
            try:
                layer.ensure_built([v.type.shape for v in values], args, kwargs)
                results, found = layer.applied(inner, args, kwargs)
                if self.effects is not None:
                    self.effects.regularize(layer, results)
                return results, found
            except TypeRuleError as error:
                received = ", ".join(str(v.type) for v in values)
                raise ModelError(
                    f"layer `{inner._path}` ({type(layer).__name__}) does not accept its inputs ({received}): {error}"
                ) from error
            except AttributeError as error:
                if not any(isinstance(arg, list | tuple | Mapping) for arg in args):
                    raise
                received = ", ".join(str(v.type) for v in values)
                law = f"layer `{inner._path}` ({type(layer).__name__}) takes one tensor"
                raise ModelError(f"{law}. Received: several in a {type(args[0]).__name__} ({received}).") from error


def ensure_built(layer: "Layer", shapes: Sequence[Shape]) -> None:
    """Create the layer's weights, once."""
    layer.ensure_built(shapes)


def apply_symbolically(layer: "Layer", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record a call of `layer` and return its results as symbolic tensors, in the structure that the layer returns."""
    call = Call(layer, args, kwargs)
    types, masks = result_types(layer, args, kwargs)
    numbers, queue = iter(range(len(list(flatten(types))))), iter(flatten(masks))
    call.outputs = map_structure(
        lambda type: KerasTensor(type, layer.name, call, next(numbers), next(queue, None)), types
    )
    layer.calls.append(call)
    return call.outputs


def result_types(layer: "Layer", args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The types of a layer's results on symbolic tensors, and of their masks, in the structures that it returns."""
    b = Builder("shape inference")
    t = Trace(b, lambda weight, path: b.input(path, type_of(weight.array)))
    t.for_shapes = True

    def value_of(tensor: Any) -> Any:
        return b.input(f"input_{id(tensor)}", tensor.type) if isinstance(tensor, KerasTensor) else tensor

    tensors = [leaf for leaf in flatten((args, kwargs)) if isinstance(leaf, KerasTensor)]
    masks = [None if x.mask_type is None else b.input(f"mask_{id(x)}", x.mask_type) for x in tensors]
    values, value_kwargs = map_structure(value_of, (args, kwargs))
    results, found = t.run_with_mask(layer, *values, masks=masks, **value_kwargs)
    return map_structure(_type_of, results), map_structure(_type_of, found)


def _type_of(value: Any) -> TensorType | None:
    return value.type if isinstance(value, Value) else None


def holds_symbols(structure: Any) -> bool:
    """Whether there is a KerasTensor in a structure."""
    return any(isinstance(leaf, KerasTensor) for leaf in flatten(structure))


def flatten(structure: Any) -> Iterator[Any]:
    """The leaves of nested lists, tuples and dicts, in order (dicts by sorted keys, as in Keras)."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from flatten(structure[key])
    elif isinstance(structure, list | tuple):
        for item in structure:  # pyright: ignore[reportUnknownVariableType]
            yield from flatten(item)
    else:
        yield structure


def map_structure(function: Callable[[Any], Any], structure: Any) -> Any:
    """The structure with every leaf replaced."""
    if isinstance(structure, Mapping):
        items: dict[str, Any] = {k: map_structure(function, structure[k]) for k in sorted(structure)}  # pyright: ignore
        return {key: items[key] for key in structure}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(structure, list | tuple):
        made = [map_structure(function, item) for item in structure]  # pyright: ignore[reportUnknownVariableType]
        return made if isinstance(structure, list) else tuple(made)
    return function(structure)
