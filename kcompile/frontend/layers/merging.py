"""Layers that make one tensor of several."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.agreement import agreeing
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers.normalization import unit
from kcompile.frontend.layers.writing import all_of, any_of, broadcast, expand_dims, full, like, reshape, transpose
from kcompile.frontend.operations.operation import promoted
from kcompile.frontend.tracing import Trace, flatten
from kcompile.ir import dims, ops
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value


@dataclass(eq=False)
class _Merge(Layer):
    """Base: elementwise over a list of tensors, which broadcast after their batch axes.

    A tensor with fewer axes gets axes of extent 1 behind its batch axis. The result is masked where all inputs are.
    With `keras_2_masks` it is masked where any is, and masks have no say in the values, as in Keras 2
    (`_Merge.compute_mask` in keras/layers/merge.py of 2.2.4).
    """

    supports_masking = True
    hidden_fields = frozenset({"keras_2_masks"})

    keras_2_masks: bool = field(default=False, kw_only=True)

    def inputs(self, args: tuple[Any, ...]) -> list[Value]:
        """The tensors of a call."""
        values = [v for v in flatten(args) if isinstance(v, Value)]
        if not isinstance(args[0], list | tuple) or not values:
            raise ModelError(
                f"layer `{self.name}` ({type(self).__name__}) takes a list of tensors. Received: {args[0]}."
            )
        return values

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        values = promoted(t, *self.inputs(args))
        rank = max(v.type.rank for v in values)
        # As in Keras, a mask has a say in the values only where its tensor has all the axes.
        heard = [v.type.rank == rank and not self.keras_2_masks for v in values]
        masks = [m if has_say else None for has_say, m in zip(heard, t.masks, strict=True)]
        return self.merge(t, agreeing(t, [self._aligned(t, v, rank) for v in values], range(rank)), masks)

    def _aligned(self, t: Trace, x: Value, rank: int) -> Value:
        shape = x.type.shape
        return reshape(t, x, (*shape[:1], *(1,) * (rank - len(shape)), *shape[1:])) if shape else x

    def merge(self, t: Trace, values: list[Value], masks: list[Value | None]) -> Value:
        """The result for tensors of one rank."""
        raise NotImplementedError

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | Sequence[Value | None] | None:
        masks = [mask for mask in t.masks if mask is not None]
        if not masks or (len(masks) < len(t.masks) and not self.keras_2_masks):
            return None
        joint = ops.And() if self.keras_2_masks else ops.Or()
        return reduce(lambda left, right: t(joint, left, right), masks)


@register_layer("keras>Add")
@dataclass(eq=False)
class Add(_Merge):
    """The sum."""

    def merge(self, t: Trace, values: list[Value], masks: list[Value | None]) -> Value:
        return reduce(lambda x, y: t(ops.Add(), x, y), values)


@register_layer("keras>Subtract")
@dataclass(eq=False)
class Subtract(_Merge):
    """The first of two tensors less the second."""

    def merge(self, t: Trace, values: list[Value], masks: list[Value | None]) -> Value:
        if len(values) != 2:
            raise ModelError(f"layer `{self.name}` (Subtract) takes a list of 2 tensors. Received: {len(values)}.")
        return t(ops.Sub(), *values)


@register_layer("keras>Multiply")
@dataclass(eq=False)
class Multiply(_Merge):
    """The product; a masked element counts as 1, and as 0 where it is masked in all inputs."""

    def merge(self, t: Trace, values: list[Value], masks: list[Value | None]) -> Value:
        counted = [None if m is None else stretched(t, m, x) for x, m in zip(values, masks, strict=True)]
        known = [c for c in counted if c is not None]
        factors = [
            x if c is None else t(ops.Where(), c, x, like(t, x, 1.0)) for x, c in zip(values, counted, strict=True)
        ]
        product = reduce(lambda x, y: t(ops.Mul(), x, y), factors)
        if len(known) < len(values):
            return product
        return t(ops.Where(), reduce(lambda x, y: t(ops.Or(), x, y), known), product, like(t, product, 0.0))


def stretched(t: Trace, mask: Value, x: Value) -> Value:
    """A mask of the steps of `x`, for each of their features."""
    return broadcast(t, expand_dims(t, mask, -1), x.type.shape)


@register_layer("keras>Average")
@dataclass(eq=False)
class Average(_Merge):
    """The mean."""

    def merge(self, t: Trace, values: list[Value], masks: list[Value | None]) -> Value:
        total = reduce(lambda x, y: t(ops.Add(), x, y), values)
        return t(ops.Div(), total, like(t, total, len(values)))


class _Extremum(_Merge):
    """Base: the larger or smaller of unmasked elements."""

    op: ops.Maximum | ops.Minimum

    def merge(self, t: Trace, values: list[Value], masks: list[Value | None]) -> Value:
        stretch = [None if m is None else stretched(t, m, x) for x, m in zip(values, masks, strict=True)]
        result, counted = values[0], stretch[0]
        for x, mask in zip(values[1:], stretch[1:], strict=True):
            candidate = x if mask is None else t(ops.Where(), mask, x, result)
            if counted is not None:
                result = t(ops.Where(), counted, result, candidate)
            counted = t(ops.Or(), counted, mask) if counted is not None and mask is not None else None
            result = t(self.op, result, candidate)
        return result


@register_layer("keras>Maximum")
@dataclass(eq=False)
class Maximum(_Extremum):
    """The largest."""

    op = ops.Maximum()


@register_layer("keras>Minimum")
@dataclass(eq=False)
class Minimum(_Extremum):
    """The smallest."""

    op = ops.Minimum()


@register_layer("keras>Concatenate")
@dataclass(eq=False)
class Concatenate(_Merge):
    """The tensors one after another along `axis`."""

    axis: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(isinstance(self.axis, int), "axis", "an integer")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        values = promoted(t, *self.inputs(args))
        rank = values[0].type.rank
        if len(values) == 1 or any(v.type.rank != rank for v in values) or not -rank <= self.axis < rank:
            return t(ops.Concat(self.axis), *values)
        return t(ops.Concat(self.axis), *agreeing(t, values, [a for a in range(rank) if a != self.axis % rank]))

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | Sequence[Value | None] | None:
        values = self.inputs(args)
        if all(mask is None for mask in t.masks):
            return None
        masks: list[Value] = []
        for x, mask in zip(values, t.masks, strict=True):
            if mask is None:
                masks.append(full(t, x.type.shape, 1, "bool"))
            else:
                masks.append(stretched(t, mask, x) if mask.type.rank < x.type.rank else mask)
        joined = t(ops.Concat(self.axis), *masks)
        last = joined.type.rank - 1
        return all_of(t, joined, (last,)) if self.keras_2_masks else any_of(t, joined, last)


@register_layer("keras>Dot")
@dataclass(eq=False)
class Dot(_Merge):
    """The product of two tensors, summed over one axis of each: ``T[N, ..., K, ...], T[N, ..., K, ...]``.

    The rest of the axes of the first come before those of the second. With `normalize`, of unit vectors.
    """

    axes: Any
    normalize: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.axes
        fits = isinstance(given, int) or (
            isinstance(given, list | tuple)
            and len(given) == 2  # pyright: ignore[reportUnknownArgumentType]
            and all(isinstance(a, int) for a in given)  # pyright: ignore[reportUnknownVariableType]
        )
        self.require(fits, "axes", "an integer or a pair of integers")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        values = promoted(t, *self.inputs(args))
        ranks = [v.type.rank for v in values]
        if len(values) != 2 or min(ranks) < 2:
            received = ", ".join(str(v.type) for v in values)
            raise ModelError(f"layer `{self.name}` (Dot) takes 2 tensors of 2 or more axes. Received: {received}.")
        given: list[int] = [self.axes] * 2 if isinstance(self.axes, int) else list(self.axes)
        self.require(all(-r <= a < r for a, r in zip(given, ranks, strict=True)), "axes", "axes of its inputs")
        axes = [a % r for a, r in zip(given, ranks, strict=True)]
        self.require(0 not in axes, "axes", "other than the batch axis")
        if self.normalize:
            # The least norm is that of `keras.ops.normalize`.
            values = [unit(t, v, (axis,), 1e-7) for v, axis in zip(values, axes, strict=True)]
        return self._product(t, values, axes)

    def _product(self, t: Trace, values: list[Value], axes: list[int]) -> Value:
        x, y = values
        x_rest = [a for a in range(1, x.type.rank) if a != axes[0]]
        y_rest = [a for a in range(1, y.type.rank) if a != axes[1]]
        x, y = transpose(t, x, [0, *x_rest, axes[0]]), transpose(t, y, [0, axes[1], *y_rest])
        batch, summed = x.type.shape[0], x.type.shape[-1]
        x_shape: Shape = x.type.shape[1:-1]
        y_shape: Shape = y.type.shape[2:]
        matrix = reshape(t, x, (batch, dims.mul(*x_shape), summed))
        product = t(ops.MatMul(), matrix, reshape(t, y, (*y.type.shape[:2], dims.mul(*y_shape))))
        return reshape(t, product, (batch, *x_shape, *y_shape) if x_shape or y_shape else (batch, 1))

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> None:
        return None
