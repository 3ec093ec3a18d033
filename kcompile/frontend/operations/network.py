"""Operations of ``keras.ops.nn`` that normalize, attend, and compare predictions with targets."""

import math
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layers.categories import one_hot
from kcompile.frontend.operations.arranging import moveaxis, offsets
from kcompile.frontend.operations.elementary import floats, tensor
from kcompile.frontend.operations.operation import as_value, axes_of, axis_of, operation, promoted
from kcompile.frontend.operations.statistics import known_extent, norm
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value
from kcompile.ir.ops.attention import masked_score

# What Keras adds to be safe, unless it is told otherwise (`keras.config.epsilon`).
_EPSILON = 1e-7

# -- normalization ----------------------------------------------------------------------------------------------------


def _beside(t: Trace, x: Expression, vector: Any, axes: tuple[int, ...]) -> Expression:
    """A vector, or an array, along axes of `x`."""
    value = lift(t.b, tensor(t, vector))[0].cast(x.type.dtype)
    if value.type.rank == x.type.rank:
        return value
    return value.reshape([extent if i in axes else 1 for i, extent in enumerate(x.shape)])


@operation("nn", "BatchNorm", function="batch_normalization")
def batch_normalization(
    t: Trace,
    x: Value,
    mean: Value,
    variance: Value,
    offset: Any = None,
    scale: Any = None,
    *,
    axis: int,
    epsilon: float = 1e-3,
) -> Value:
    """``scale * (x - mean) / sqrt(variance + epsilon) + offset`` along an axis."""
    (y,), axes = lift(t.b, x), (axis_of(x, axis),)
    factor = 1.0 / (_beside(t, y, variance, axes) + epsilon).sqrt()
    factor = factor if scale is None else factor * _beside(t, y, scale, axes)
    shifted = (y - _beside(t, y, mean, axes)) * factor
    return (shifted if offset is None else shifted + _beside(t, y, offset, axes)).value


@operation("nn", "LayerNorm", function="layer_normalization")
def layer_normalization(
    t: Trace,
    x: Value,
    gamma: Any = None,
    beta: Any = None,
    *,
    axis: Any = -1,
    epsilon: float | None = None,
    rms_scaling: bool = False,
) -> Value:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` over axes; with `rms_scaling` x itself over the root."""
    axes = axes_of(x, axis)
    y = lift(t.b, x)[0].cast("float64" if x.type.dtype == "float64" else "float32")
    centred = y - y.mean(axes, keepdims=True)
    root = (centred.square().mean(axes, keepdims=True) + (_EPSILON if epsilon is None else epsilon)).sqrt()
    made = (y if rms_scaling else centred) / root
    made = made if gamma is None else made * _beside(t, y, gamma, axes)
    made = made if beta is None or rms_scaling else made + _beside(t, y, beta, axes)
    return made.cast(x.type.dtype).value


@operation("nn", "RMSNorm", function="rms_normalization")
def rms_normalization(t: Trace, x: Value, scale: Any = None, *, axis: Any = -1, epsilon: float | None = None) -> Value:
    """``scale * x / sqrt(mean(x * x) + epsilon)`` over axes."""
    axes = axes_of(x, axis)
    y = lift(t.b, x)[0].cast("float64" if x.type.dtype == "float64" else "float32")
    made = y / (y.square().mean(axes, keepdims=True) + (_EPSILON if epsilon is None else epsilon)).sqrt()
    return (made if scale is None else made * _beside(t, y, scale, axes)).cast(x.type.dtype).value


@operation("nn", "Normalize")
def normalize(t: Trace, x: Value, *, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Value:
    """``x`` over its norm along axes, which is `epsilon` at least."""
    (y,) = lift(t.b, x)
    length = lift(t.b, norm(t, x, ord=None if order == 2 else order, axis=axis, keepdims=True))[0]
    return (y / length.maximum(_EPSILON if epsilon is None else epsilon)).value


# -- attention --------------------------------------------------------------------------------------------------------


@operation("nn", "DotProductAttention")
def dot_product_attention(
    t: Trace,
    query: Value,
    key: Value,
    value: Value,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
    *,
    is_causal: bool = False,
    flash_attention: Any = None,
    attn_logits_soft_cap: float | None = None,
) -> Value:
    """``softmax(scale * query @ key^T + bias) @ value`` for each head, where the mask allows it.

    ``query: T[N, Q, H, D], key: T[N, K, G, D], value: T[N, K, G, E] -> T[N, Q, H, E]``.

    Raises:
        ModelError: `attn_logits_soft_cap` is given, which only accelerators have.
    """
    del flash_attention
    if attn_logits_soft_cap is not None:
        raise ModelError("`attn_logits_soft_cap` of an operation DotProductAttention must be None.")
    q, k, v = promoted(t, query, key, value, floating=True)
    factor = 1 / math.sqrt(known_extent(q, 3, "DotProductAttention")) if scale is None else float(scale)
    # A graph's call takes an argument of that name for the mask that a layer sees.
    mask = t.masks[0] if t.mask_given else mask
    allowed = [] if mask is None else [as_value(t, mask, "bool")]
    if bias is None:
        return t.multi(ops.Attention(factor, bool(is_causal)), q, k, v, *allowed)[0]
    heads, tokens = (0, 2, 1, 3), (0, 2, 3, 1)
    orders = (heads, tokens, heads)
    left, right, values = (x.transpose(order) for x, order in zip(lift(t.b, q, k, v), orders, strict=True))
    scores = left.apply(ops.MatMul(), right) * factor + lift(t.b, as_value(t, bias, q.type.dtype))[0]
    conditions = list(lift(t.b, *allowed))
    conditions += [offsets(t, *scores.shape[-2:]) <= 0] if is_causal else []
    for condition in conditions:
        scores = scores.where(condition, masked_score(q.type.dtype))
    return scores.apply(ops.Softmax(-1)).apply(ops.MatMul(), values).transpose(heads).value


# -- comparisons with targets -----------------------------------------------------------------------------------------


@operation("nn", "BinaryCrossentropy")
def binary_crossentropy(t: Trace, target: Value, output: Value, *, from_logits: bool = False) -> Value:
    """``-target * log(output) - (1 - target) * log(1 - output)``."""
    wanted, given = floats(t, target, output)
    if from_logits:
        return (given.apply(ops.Softplus()) - wanted * given).value
    given = given.clip(_EPSILON, 1.0 - _EPSILON)
    return (-(wanted * given.log() + (1.0 - wanted) * (1.0 - given).log())).value


@operation("nn", "CategoricalCrossentropy")
def categorical_crossentropy(
    t: Trace, target: Value, output: Value, *, from_logits: bool = False, axis: int = -1
) -> Value:
    """``-sum(target * log(output))`` along an axis, where outputs are brought to the sum 1."""
    wanted, given = floats(t, target, output)
    place = axis_of(output, axis)
    if from_logits:
        logarithm = given.apply(ops.LogSoftmax(place))
    else:
        logarithm = (given / given.sum((place,), keepdims=True)).clip(_EPSILON, 1.0 - _EPSILON).log()
    return (-(wanted * logarithm).sum((place,))).value


@operation("nn", "SparseCategoricalCrossentropy")
def sparse_categorical_crossentropy(
    t: Trace, target: Value, output: Value, *, from_logits: bool = False, axis: int = -1
) -> Value:
    """``-log(output)`` of the class that is the target."""
    if target.type.rank == output.type.rank and target.type.shape[-1] == 1:
        target = lift(t.b, target)[0].squeeze(target.type.rank - 1).value
    place = axis_of(output, axis)
    codes = one_hot(t, as_value(t, target, "int32"), known_extent(output, place, "CategoricalCrossentropy"), "float32")
    codes = moveaxis(t, codes, source=-1, destination=place)
    return categorical_crossentropy(t, codes, output, from_logits=from_logits, axis=axis)
