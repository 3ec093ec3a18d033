"""Sums over products, by the letters of ``numpy.einsum``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kcompile.frontend import activations, initializers
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers.writing import cast, reshape, transpose
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Value


def einsum(t: Trace, x_letters: str, w_letters: str, y_letters: str, x: Value, w: Value) -> Value:
    """The sum of ``x * w`` over the letters that the result lacks; no operand has a letter twice."""
    x, x_letters = _summed(t, x, x_letters, w_letters + y_letters)
    w, w_letters = _summed(t, w, w_letters, x_letters + y_letters)
    extents: dict[str, Dim] = dict(zip(w_letters, w.type.shape, strict=True))
    extents.update(zip(x_letters, x.type.shape, strict=True))
    shared = [a for a in y_letters if a in x_letters and a in w_letters]
    left = [a for a in y_letters if a in x_letters and a not in w_letters]
    right = [a for a in y_letters if a in w_letters and a not in x_letters]
    summed = [a for a in x_letters if a in w_letters and a not in y_letters]

    def arranged(value: Value, letters: str, *groups: list[str]) -> Value:
        order = [letters.index(a) for group in groups for a in group]
        shape = [dims.mul(*(extents[a] for a in group)) for group in groups[1:]]
        lead = tuple(extents[a] for a in groups[0])
        return reshape(t, transpose(t, value, order), (*lead, *shape))

    if shared:
        left_matrix = arranged(x, x_letters, shared, left, summed)
        product = t(ops.MatMul(), left_matrix, arranged(w, w_letters, shared, summed, right))
    else:
        # The free axes of x stay as they are: a dense kernel reads its last axis.
        product = t(ops.Dense(), arranged(x, x_letters, left, summed), arranged(w, w_letters, [], summed, right))
    order = [*shared, *left, *right]
    y = reshape(t, product, tuple(extents[a] for a in order))
    return transpose(t, y, [order.index(a) for a in y_letters])


def _summed(t: Trace, x: Value, letters: str, others: str) -> tuple[Value, str]:
    """`x` summed over the axes whose letters stand nowhere else."""
    alone = [i for i, letter in enumerate(letters) if letter not in others]
    if not alone:
        return x, letters
    return t(ops.ReduceSum(tuple(alone)), x), "".join(a for a in letters if a in others)


@dataclass(frozen=True)
class Equation:
    """An equation with the letters of all axes, its weights' shapes, and which axes of the kernel are inputs."""

    x: str
    kernel: str
    y: str
    kernel_shape: Shape
    bias_shape: Shape | None
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]


_FORM = re.compile(r"(\.\.\.)?([a-zA-Z]+)(\.\.\.)?,([a-zA-Z]+)->(\.\.\.)?([a-zA-Z]+)(\.\.\.)?")
_SPARE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@register_layer("keras>EinsumDense")
@dataclass(eq=False)
class EinsumDense(Layer):
    """``activation(einsum(equation, x, kernel) + bias)``, with a bias along `bias_axes`.

    `output_shape` is the result's without the batch and without the axes that ``...`` stands for; None for an extent
    that the input gives.
    """

    optional_fields = frozenset({"activity_regularizer", "lora_rank", "lora_alpha", "gptq_unpacked_column_size"})

    equation: str
    output_shape: Any
    activation: Any = None
    bias_axes: str | None = None
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    lora_rank: int | None = None
    lora_alpha: Any = None
    gptq_unpacked_column_size: Any = None
    quantization_config: Any = None
    activity_regularizer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.quantization_config is None, "quantization_config", "None: weights must be floats")
        given: Any = self.output_shape
        self.output_shape = (given,) if isinstance(given, int) or given is None else tuple(given)
        self.activation = activations.get(self.activation, f"`activation` of layer `{self.name}`")
        form = _FORM.fullmatch(self.equation.replace(" ", ""))
        elided = form is not None and (bool(form[1]), bool(form[3])) == (bool(form[5]), bool(form[7]))
        fits = form is not None and elided and not (form[1] and form[3])
        self.require(fits, "equation", "of the form X,Y->Z, ...X,Y->...Z or X...,Y->Z...")

    def analyzed(self, shape: Shape) -> Equation:
        """The equation for an input shape.

        Raises:
            ModelError: the input or `output_shape` does not fit the equation.
        """
        form = _FORM.fullmatch(self.equation.replace(" ", ""))
        assert form is not None
        x, kernel, y = form[2], form[4], form[6]
        count = len(shape) - len(x)
        self.require(count == 0 or (count > 0 and bool(form[1] or form[3])), "equation", f"one for {len(shape)} axes")
        spare = "".join(a for a in _SPARE if a not in x + kernel + y)[:count]
        free = list(shape[1:count] if form[1] else shape[len(shape) - count :])
        out: list[Any] = [shape[0], *free, *self.output_shape] if form[1] else [shape[0], *self.output_shape, *free]
        x, y = (spare + x, spare + y) if form[1] else (x + spare, y + spare)
        self.require(len(out) == len(y), "output_shape", f"one extent for each axis of the result {y} but the first")
        extents: dict[str, Any] = dict(zip(y, out, strict=True))
        for letter, extent in zip(x, shape, strict=True):
            known = extents.get(letter)
            self.require(known is None or known == extent, "output_shape", f"{extent} at axis {letter!r}")
            extents[letter] = extent
        unknown = [a for a in kernel + y if extents.get(a) is None]
        self.require(not unknown, "output_shape", f"known at {unknown}")
        return Equation(
            x,
            kernel,
            y,
            tuple(extents[a] for a in kernel),
            self._bias_shape(y, extents),
            tuple(i for i, a in enumerate(kernel) if a not in y),
            tuple(i for i, a in enumerate(kernel) if a in y),
        )

    def _bias_shape(self, y: str, extents: dict[str, Dim]) -> Shape | None:
        if self.bias_axes is None:
            return None
        self.require(bool(self.bias_axes) and all(a in y for a in self.bias_axes), "bias_axes", f"letters of {y!r}")
        first = min(y.index(a) for a in self.bias_axes)
        return tuple(extents[a] if a in self.bias_axes else 1 for a in y[first:])

    def build(self, *input_shapes: Any) -> None:
        equation = self.analyzed(input_shapes[0])
        initializer: Any = initializers.get(self.kernel_initializer)
        if isinstance(initializer, initializers.VarianceScaling) and initializer.input_axes is None:
            initializer = replace(initializer, input_axes=equation.input_axes, output_axes=equation.output_axes)
        self.add_weight("kernel", equation.kernel_shape, initializer)
        if equation.bias_shape is not None:
            self.add_weight("bias", equation.bias_shape, self.bias_initializer)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        kernel = t.weight("kernel")
        x = cast(t, args[0], kernel.type.dtype)
        equation = self.analyzed(x.type.shape)
        y = self._as_dense(t, equation, x, kernel)
        if y is None:
            y = einsum(t, equation.x, equation.kernel, equation.y, x, kernel)
            y = t(ops.Add(), y, t.weight("bias")) if equation.bias_shape is not None else y
        return activations.apply(t, self.activation, y)

    def _as_dense(self, t: Trace, equation: Equation, x: Value, kernel: Value) -> Value | None:
        """The result with the bias inside the product, where the last axes of x meet the first of the kernel."""
        summed = len(equation.input_axes)
        free, features = equation.y[: len(equation.y) - len(equation.output_axes)], equation.kernel[summed:]
        straight = equation.kernel[:summed] == equation.x[len(equation.x) - summed :]
        straight = straight and equation.x[: len(equation.x) - summed] == free and equation.y == free + features
        if not straight or not summed or equation.bias_shape not in (None, equation.kernel_shape[summed:]):
            return None
        shapes: Sequence[Shape] = (equation.kernel_shape[:summed], equation.kernel_shape[summed:])
        inner, outer = (dims.mul(*shape) for shape in shapes)
        lead = x.type.shape[: len(free)]
        bias = [] if equation.bias_shape is None else [reshape(t, t.weight("bias"), (outer,))]
        y = t(ops.Dense(), reshape(t, x, (*lead, inner)), reshape(t, kernel, (inner, outer)), *bias)
        return reshape(t, y, (*lead, *shapes[1]))
