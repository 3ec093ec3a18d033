"""Functions of TensorFlow that no single function of ``keras.ops`` does."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layers.images import Resizing
from kcompile.frontend.operations import arranging, network, shaping, statistics
from kcompile.frontend.operations.operation import OPERATIONS, Number, Rule, as_value, axis_of, promoted
from kcompile.frontend.operations.rules import argmax, argmin
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.expression import count, lift
from kcompile.ir.graph import Value

# By the function's name without its module.
RULES: dict[str, Rule] = {}


def _rule(name: str) -> Callable[[Rule], Rule]:
    def enter(rule: Rule) -> Rule:
        RULES[name] = rule
        return rule

    return enter


@_rule("matmul")
def _matmul(
    t: Trace,
    a: Value,
    b: Value,
    transpose_a: bool = False,
    transpose_b: bool = False,
    adjoint_a: bool = False,
    adjoint_b: bool = False,
    **unused: Any,
) -> Value:
    _neutral("matmul", unused)
    x, y = lift(t.b, *promoted(t, a, b))
    x = x.swap_last() if transpose_a or adjoint_a else x
    y = y.swap_last() if transpose_b or adjoint_b else y
    return x.apply(ops.MatMul(), y).value


@_rule("matvec")
def _matvec(t: Trace, a: Value, b: Value, transpose_a: bool = False, **unused: Any) -> Value:
    _neutral("matvec", unused)
    x, y = lift(t.b, *promoted(t, a, b))
    product = (x.swap_last() if transpose_a else x).apply(ops.MatMul(), y.expand(-1))
    return product.squeeze(product.type.rank - 1).value


def _neutral(function: str, unused: dict[str, Any]) -> None:
    """Refuse arguments that would mean something."""
    given = {key: value for key, value in unused.items() if value not in (None, False, 0, "")}
    if given:
        raise ModelError(f"`tf.{function}` does not take {given} here.")


@_rule("squared_difference")
def _squared_difference(t: Trace, x: Number, y: Number) -> Value:
    left, right = lift(t.b, *promoted(t, x, y))
    return (left - right).square().value


@_rule("add_n")
def _add_n(t: Trace, inputs: Sequence[Value]) -> Value:
    total, *rest = lift(t.b, *inputs)
    for other in rest:
        total = total + other
    return total.value


@_rule("l2_normalize")
def _l2_normalize(t: Trace, x: Value, axis: Any = None, epsilon: float = 1e-12, dim: Any = None) -> Value:
    places = axis if dim is None else dim
    places = list(range(x.type.rank)) if places is None else places
    return network.normalize(t, x, axis=places, epsilon=math.sqrt(epsilon))


@_rule("norm")
def _norm(t: Trace, tensor: Value, ord: Any = "euclidean", axis: Any = None, keepdims: bool = False) -> Value:
    return statistics.norm(t, tensor, ord=None if ord == "euclidean" else ord, axis=axis, keepdims=keepdims)


@_rule("reduce_euclidean_norm")
def _reduce_euclidean_norm(t: Trace, input_tensor: Value, axis: Any = None, keepdims: bool = False) -> Value:
    axes = list(range(input_tensor.type.rank)) if axis is None else axis
    axes = [axes] if isinstance(axes, int) else list(axes)
    return lift(t.b, input_tensor)[0].square().sum([a % input_tensor.type.rank for a in axes], keepdims).sqrt().value


def _position(find: Any) -> Rule:
    def rule(t: Trace, input: Value, axis: Any = None, output_type: str = "int64", dimension: Any = None) -> Value:
        place = dimension if axis is None else axis
        return as_value(t, find(t, input, axis=0 if place is None else int(place)), str(output_type))

    return rule


RULES["argmax"], RULES["argmin"] = _position(argmax), _position(argmin)


@_rule("gather")
def _gather(
    t: Trace, params: Value, indices: Any, axis: Any = None, batch_dims: int = 0, validate_indices: Any = None
) -> Value:
    del validate_indices
    if batch_dims:
        raise ModelError(f"`batch_dims` of `tf.gather` must be 0. Received: {batch_dims}.")
    return shaping.take(t, params, indices, axis=int(axis or 0))


@_rule("split")
def _split(t: Trace, value: Value, num_or_size_splits: Any, axis: int = 0, num: Any = None) -> list[Value]:
    del num
    if isinstance(num_or_size_splits, int):
        return shaping.split(t, value, indices_or_sections=num_or_size_splits, axis=axis)
    sizes: list[int] = list(num_or_size_splits)
    if -1 in sizes:
        extent = statistics.known_extent(value, axis_of(value, axis), "split")
        sizes[sizes.index(-1)] = extent - sum(sizes) - 1
    return shaping.split(t, value, indices_or_sections=list(accumulate(sizes))[:-1], axis=axis)


@_rule("squeeze")
def _squeeze(t: Trace, input: Value, axis: Any = None, squeeze_dims: Any = None) -> Value:
    return shaping.squeeze(t, input, axis=axis or squeeze_dims or None)


@_rule("reshape")
def _reshape(t: Trace, tensor: Value, shape: Any) -> Value:
    """An extent that is a tensor counts as what is left."""
    extents = [-1 if isinstance(extent, Value) else int(extent) for extent in shape]
    if sum(extent == -1 for extent in extents) > 1:
        law = "the shape of `tf.reshape` must be numbers but for one extent"
        raise ModelError(f"{law}. Received: {list(shape)}. Use a Reshape layer, which keeps the batch.")
    return shaping.reshape(t, tensor, newshape=extents)


@_rule("cumsum")
def _cumsum(t: Trace, x: Value, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Value:
    place = axis_of(x, axis)
    (y,) = lift(t.b, x)
    y = y.apply(ops.Reverse((place,))) if reverse else y
    total = y.apply(ops.CumSum(place))
    total = total - y if exclusive else total
    return (total.apply(ops.Reverse((place,))) if reverse else total).value


@_rule("sort")
def _sort(t: Trace, values: Value, axis: int = -1, direction: str = "ASCENDING") -> Value:
    return t(ops.Sort(axis_of(values, axis), descending=direction == "DESCENDING"), values)


@_rule("argsort")
def _argsort(t: Trace, values: Value, axis: int = -1, direction: str = "ASCENDING", stable: bool = False) -> Value:
    del stable
    negated = lift(t.b, values)[0]
    return arranging.argsort(t, (-negated).value if direction == "DESCENDING" else values, axis=axis)


@_rule("one_hot")
def _one_hot(
    t: Trace, indices: Value, depth: int, on_value: Any = 1, off_value: Any = 0, axis: int = -1, dtype: Any = "float32"
) -> Value:
    (codes,) = lift(t.b, arranging.one_hot(t, indices, num_classes=int(depth), axis=axis, dtype="int32"))
    on, off = (lift(t.b, as_value(t, value, str(dtype)))[0] for value in (on_value, off_value))
    return on.where(codes > 0, off).value


@_rule("pad")
def _pad(t: Trace, tensor: Value, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Value:
    return shaping.pad(t, tensor, constant_values or None, pad_width=paddings, mode=mode.lower())


@_rule("slice")
def _slice(t: Trace, input_: Value, begin: Sequence[int], size: Sequence[int]) -> Value:
    key = [slice(b, None if n == -1 else b + n, None) for b, n in zip(begin, size, strict=True)]
    return shaping.get_item(t, input_, key)


@_rule("shape")
def _shape(t: Trace, input: Value, out_type: str = "int32") -> Value:
    extents = [count(t.b, [extent], str(out_type)).reshape((1,)).value for extent in input.type.shape]
    return t(ops.Concat(0), *extents)


@_rule("bias_add")
def _bias_add(t: Trace, value: Value, bias: Any, data_format: Any = None) -> Value:
    x, b = lift(t.b, *promoted(t, value, bias))
    first = str(data_format or "").startswith("NC")
    return (x + (b.reshape((*b.shape, *(1,) * (x.type.rank - 2))) if first else b)).value


def _pooling(rule: Any) -> Rule:
    def pooled(t: Trace, input: Value, ksize: Any, strides: Any, padding: str, data_format: str = "NHWC") -> Value:
        rank = input.type.rank - 2
        sizes = [
            value if isinstance(value, int) else list(value)[-rank - 1 : -1] if len(value) == rank + 2 else list(value)
            for value in (ksize, strides)
        ]
        if data_format.startswith("NC"):
            raise ModelError("pooling of TensorFlow in a graph must have the channels last.")
        return rule(t, input, pool_size=sizes[0], strides=sizes[1], padding=padding)

    return pooled


RULES["max_pool2d"] = RULES["max_pool"] = _pooling(OPERATIONS["MaxPool"])
RULES["avg_pool2d"] = RULES["avg_pool"] = _pooling(OPERATIONS["AveragePool"])


@_rule("image.resize")
def _resize(
    t: Trace,
    images: Value,
    size: Sequence[int],
    method: str = "bilinear",
    preserve_aspect_ratio: bool = False,
    antialias: bool = False,
) -> Value:
    """Of images as floats, also where the interpolation is "nearest" and they are integers."""
    if preserve_aspect_ratio:
        raise ModelError("`preserve_aspect_ratio` of `tf.image.resize` must be False.")
    height, width = (int(extent) for extent in size)
    layer = Resizing(height, width, str(method).lower(), antialias=antialias, name="resize")
    keeps = method == "nearest" and not images.type.is_float
    return t.run(layer, images if keeps else as_value(t, images, "float32"))
