"""Layers as Keras's users write them: ``call(self, x, training=None, mask=None)``, written with ``kcompile.ops``.

kcompile's own layers take what they write with as the first parameter of `call`, named ``t``, and IR values after it.
A class whose `call` begins otherwise is one of these; it gets tensors (`tensor.py`) in the place of values, and shapes
with None for open extents. Each style can build on the other: `either` lets a class call ``super().call(x)`` of ours.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.tensor import Tensor, current, lifted, lowered, writing
from kcompile.frontend.tracing import KerasTensor, Trace, flatten, map_structure
from kcompile.frontend.training.naming import snake_case
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value

if TYPE_CHECKING:
    from kcompile.frontend.layer import Layer


def takes_trace(call: Callable[..., Any]) -> bool:
    """Whether a `call` is of kcompile's own style: its first parameter is ``t``, and others follow."""
    names = list(inspect.signature(call).parameters)
    return len(names) > 2 and names[1] == "t"


def either(method: Callable[..., Any]) -> Callable[..., Any]:
    """A `call` of kcompile's own style that takes tensors too, as subclasses in Keras's style pass them."""

    @wraps(method)
    def call(self: "Layer", *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], Trace):
            return method(self, *args, **kwargs)
        t = _required(self)
        return lifted(method(self, t, *lowered(args), **lowered(kwargs)), [next(iter(t.masks), None)])

    setattr(call, "takes_trace", True)  # noqa: B010 - functions have no such member for pyright
    return call


def _required(layer: "Layer") -> Trace:
    t = current()
    if t is None:
        law = f"`call` of layer `{layer.name}` is for subclasses"
        raise ModelError(f"{law}. Call the layer itself: layer(x).")
    return t


def building(method: Callable[..., Any]) -> Callable[..., Any]:
    """A `build` after which the layer counts as built, as where a user calls it."""

    any_names = all(p.kind == p.VAR_POSITIONAL for p in list(inspect.signature(method).parameters.values())[1:])

    @wraps(method)
    def build(self: "Layer", *args: Any, **kwargs: Any) -> Any:
        if any_names:
            args, kwargs = (*args, *kwargs.values()), {}
        method(self, *args, **kwargs)
        if type(self).build is build:
            self.finish_build(*args, **kwargs)

    return build


def is_own_style(cls: type["Layer"]) -> bool:
    """Whether a class is of kcompile's own style."""
    return getattr(cls.call, "takes_trace", False)


@cache
def _parameters(cls: type["Layer"], method: str) -> Mapping[str, inspect.Parameter]:
    found = inspect.signature(getattr(cls, method)).parameters
    return dict(list(found.items())[1:])


def build(layer: "Layer", types: Sequence[Shape], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Call `build` with the shapes of the arguments that are tensors: of the first alone, or of each that it names."""
    takes = _parameters(type(layer), "build")
    given = inspect.signature(layer.call).bind_partial(*args, **kwargs).arguments
    shapes: dict[str, Any] = {f"{name}_shape": _shapes(part) for name, part in given.items() if _holds_values(part)}
    if not args and not kwargs:
        shapes = {str(i): _open(shape) for i, shape in enumerate(types)}
    named = {name: shape for name, shape in shapes.items() if name in takes}
    if len(named) == len(shapes) > 1:
        layer.build(**named)
    elif takes and shapes:
        several = len(takes) > 1 and len(shapes) > 1
        layer.build(*(shapes.values() if several else list(shapes.values())[:1]))
    else:
        layer.build()


def _holds_values(structure: Any) -> bool:
    return any(isinstance(leaf, Value) for leaf in flatten(structure))


def _shapes(structure: Any) -> Any:
    return map_structure(lambda leaf: _open(leaf.type.shape) if isinstance(leaf, Value) else None, structure)


def _open(shape: Shape) -> tuple[int | None, ...]:
    """A shape as Keras's users see it."""
    return tuple(dim if isinstance(dim, int) else None for dim in shape)


def apply(layer: "Layer", t: Trace, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """The results of a layer in Keras's style, and their masks, from values.

    `call` gets `training` and `mask` where it takes them. A mask is passed on where the layer says so
    (`supports_masking`, `compute_mask`), or with the tensors of layers inside.
    """
    takes = _parameters(type(layer), "call")
    tensors, named = lifted((tuple(args), dict(kwargs)), t.masks)
    masks = map_structure(lambda x: lifted(x.mask) if isinstance(x, Tensor) else None, tensors[0] if tensors else None)
    if "training" in takes:
        named.setdefault("training", t.training)
    if "mask" in takes and (t.mask_given or any(mask is not None for mask in flatten(masks))):
        named.setdefault("mask", masks)
    with writing(t):
        results = layer.call(*tensors, **named)
        found = _result_masks(layer, t, tensors[:1], masks, results)
    _refuse_others(layer, results)
    return lowered(results), lowered(found)


def _result_masks(layer: "Layer", t: Trace, inputs: Sequence[Any], masks: Any, results: Any) -> Any:
    takes = list(_parameters(type(layer), "compute_mask"))
    if not takes or takes[0] != "t":
        return layer.compute_mask(*inputs, masks)
    if layer.supports_masking:
        return masks
    return map_structure(lambda y: y.mask if isinstance(y, Tensor) else None, results)


def _refuse_others(layer: "Layer", results: Any) -> None:
    wrong = [leaf for leaf in flatten(results) if not isinstance(leaf, Tensor)]
    if wrong or not list(flatten(results)):
        law = f"`call` of layer `{layer.name}` ({type(layer).__name__}) must return tensors made from its inputs"
        received = ", ".join(type(leaf).__name__ for leaf in wrong) or "nothing"
        raise ModelError(f"{law}. Received: {received}.")


def apply_to_tensors(layer: "Layer", args: Any, kwargs: Any) -> Any:
    """The results of a layer inside the `call` of another, as tensors with their masks."""
    t = _required(layer)
    if t.is_outermost and t.effects is not None:
        t.effects.enter(layer)
    args, kwargs = map_structure(lambda leaf: _as_tensor(t, leaf), (args, kwargs))
    leaves = [leaf for leaf in flatten((args, kwargs)) if isinstance(leaf, Tensor)]
    values, named = lowered((args, kwargs))
    results, mask = t.run_with_mask(layer, *values, masks=[leaf.mask for leaf in leaves], **named)
    if t.for_shapes:
        layer.traced_outputs = map_structure(lambda value: KerasTensor(value.type, layer.name), results)
    found = list(flatten(results))
    masks = [*flatten(mask), *[None] * len(found)]
    return lifted(results, masks)


def _as_tensor(t: Trace, leaf: Any) -> Any:
    """An argument of a layer: arrays and weights as tensors."""
    from kcompile.frontend.weight import Weight

    if isinstance(leaf, Weight):
        return Tensor(t.read(leaf))
    return Tensor(t.constant(leaf)) if isinstance(leaf, np.ndarray) else leaf


def attribute_layers(layer: "Layer") -> Iterator[tuple[str, "Layer"]]:
    """The layers among a layer's attributes, in lists and dicts too, by the paths that Keras gives them in files."""
    from kcompile.frontend.layer import Layer

    seen: set[int] = set()
    for name, value in list(vars(layer).items()):
        if name in layer.untracked:
            continue
        leaves = [value] if isinstance(value, Layer) else list(_contained(value))
        counts: dict[str, int] = {}
        for leaf in leaves:
            kind = snake_case(type(leaf).__name__)
            number = counts[kind] = counts.get(kind, -1) + 1
            path = name if leaf is value else f"{name}/{kind}_{number}" if number else f"{name}/{kind}"
            if id(leaf) not in seen:
                seen.add(id(leaf))
                yield path, leaf


def _contained(value: Any) -> Iterator["Layer"]:
    """The layers in a list, tuple or dict, and in those inside it."""
    from kcompile.frontend.layer import Layer

    items: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for item in items:
        if isinstance(item, Layer):
            yield item
        else:
            yield from _contained(item)


def arguments(layer: "Layer") -> dict[str, Any]:
    """What a layer in Keras's style was made with, where its class does not say: the arguments of `__init__`."""
    from kcompile.frontend.layer import Layer
    from kcompile.frontend.layer_configs import serialize_layer

    if type(layer).__init__ is Layer.__init__ or type(layer).get_config is not Layer.get_config:
        return {}
    args, kwargs = layer.given
    given = inspect.signature(type(layer).__init__).bind(layer, *args, **kwargs)
    given.apply_defaults()
    named = {p.name for p in given.signature.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    found = {name: value for name, value in list(given.arguments.items())[1:] if name in named}
    return {name: serialize_layer(value) if isinstance(value, Layer) else value for name, value in found.items()}


def made(cls: type["Layer"], config: Mapping[str, Any]) -> Any:
    """The layer of a class in Keras's style that a config describes.

    Raises:
        ModelError: `__init__` does not take what the config holds.
    """
    from kcompile.frontend.layer import Layer
    from kcompile.frontend.layer_configs import deserialize_layer, layer_class

    def argument(value: Any) -> Any:
        is_layer = isinstance(value, Mapping) and layer_class(value) is not None  # pyright: ignore[reportUnknownArgumentType]
        return deserialize_layer(value) if is_layer and cls.get_config is Layer.get_config else value

    takes = inspect.signature(cls.__init__).parameters
    open_ended = any(p.kind == p.VAR_KEYWORD for p in takes.values())
    named = {key: argument(value) for key, value in config.items() if open_ended or key in takes}
    try:
        return cls(**named)
    except TypeError as error:
        raise ModelError(f"layer {cls.__name__} does not take its config {dict(config)} ({error}).") from error
