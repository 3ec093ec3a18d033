"""Layers whose weights Keras 3.15 keeps in 4 bits, or as GPTQ and AWQ leave them, and those of float8.

Two numbers of 4 bits share a byte: the first of each pair stands in the lower half. A number ``q`` of a group stands
for ``(q - zero) * scale``, or without groups for ``q / scale``. Which group a row belongs to, `g_idx` says. Products
are of floats, as in Keras; what is computed from weights alone becomes a constant. Sources: `_int4_call`, `_gptq_call`,
`_awq_call` and `_float8_call` in keras/src/layers/core, and `unpack_int4`, `dequantize_with_sz_map` and
`quantize_and_dequantize` in keras/src/quantizers/quantizers.py of Keras 3.15.
"""

import math
from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend import activations
from kcompile.frontend.keras_file.int8_layers import InputQuantizer, QuantizedLayer, beside
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers.core import Dense, Embedding
from kcompile.frontend.layers.einsum import EinsumDense, einsum
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value


@dataclass(frozen=True)
class Packing:
    """What a mode says (``"int4/128"``, ``"gptq/4/128"``, ``"awq/4/-1"``): the bits, and the rows of a group, or -1."""

    method: str
    bits: int
    group: int

    @classmethod
    def parse(cls, mode: str) -> "Packing":
        """The packing of a mode."""
        method, *numbers = mode.split("/")
        bits = 4 if method == "int4" or len(numbers) < 2 else int(numbers[0])
        return cls(method, bits, int(numbers[-1]) if numbers else -1)

    @property
    def grouped(self) -> bool:
        """Whether there are groups, which have zero points."""
        return self.group > 0 or self.method != "int4"

    def groups(self, rows: int) -> int:
        """The number of groups of that many rows."""
        return math.ceil(rows / self.group) if self.group > 0 else 1


def unpacked(x: Expression, axis: int, length: int, signed: bool) -> Expression:
    """The numbers of 4 bits in bytes along an axis, as floats."""
    whole = x.cast("int32").apply(ops.Mod(), 256)
    halves = [whole.apply(ops.Mod(), 16), whole.apply(ops.FloorDiv(), 16)]
    if signed:
        halves = [half - (half > 7).cast("int32") * 16 for half in halves]
    joined = Expression(x.b, x.b(ops.Concat(axis + 1), *(half.expand(axis + 1).value for half in halves)))
    extents = [2 * int(extent) if i == axis else extent for i, extent in enumerate(x.shape)]
    return joined.reshape(extents).apply(ops.Slice(axis, 0, length)).cast("float32")


def of_group(x: Expression, groups: Expression, axis: int) -> Expression:
    """For each row or column what its group has."""
    return x.apply(ops.Gather(axis), groups.cast("int32")).cast("float32")


class _Packed(QuantizedLayer):
    """Base of layers with a packed matrix of `rows` inputs and `columns` outputs."""

    default_quantizer = None
    zero_name = "kernel_zero"

    packing: str

    def keep_matrix(self, rows: int, columns: int, bias: Any) -> None:
        """Create the arrays in the order of the file."""
        packing = Packing.parse(self.packing)
        if packing.method == "int4":
            self.keep("kernel", (rows, -(-columns // 2)), "int8")
        if bias is not None:
            self.keep("bias", bias, self.variable_dtype)
        groups = packing.groups(rows)
        if packing.method == "int4":
            self.keep("kernel_scale", (groups, columns) if packing.grouped else (columns,), self.variable_dtype)
            if packing.grouped:
                self.keep(self.zero_name, (groups, columns), "int8")
                self.keep("g_idx", (rows,), "float32")
            return
        self.keep("kernel", (-(-columns // 2) if packing.bits == 4 else columns, rows), "uint8")
        self.keep("kernel_scale", (columns, groups), self.variable_dtype)
        self.keep(self.zero_name, (columns, groups), "uint8")
        if packing.method == "awq":
            self.keep("awq_scales", (rows,), self.variable_dtype)
        self.keep("g_idx", (rows,), "float32")

    def matrix(self, t: Trace, columns: int) -> Value:
        """The matrix as floats: ``T[rows, columns]``."""
        packing = Packing.parse(self.packing)
        kernel, scale = lift(t.b, t.weight("kernel"), t.weight("kernel_scale"))
        if packing.method == "int4":
            numbers = unpacked(kernel, 1, columns, signed=True)
            if not packing.grouped:
                return (numbers / scale).cast(self.compute_dtype).value
            zero, groups = lift(t.b, t.weight(self.zero_name), t.weight("g_idx"))
            made = (numbers - of_group(zero, groups, 0)) * of_group(scale, groups, 0)
            return made.cast(self.compute_dtype).value
        numbers = unpacked(kernel, 0, columns, signed=False) if packing.bits == 4 else kernel.cast("float32")
        zero, groups = lift(t.b, t.weight(self.zero_name), t.weight("g_idx"))
        made = ((numbers - of_group(zero, groups, 1)) * of_group(scale, groups, 1)).swap_last()
        if packing.method == "awq":
            made = made / lift(t.b, t.weight("awq_scales"))[0].expand(1)
        return made.cast(self.compute_dtype).value


@register_layer("kcompile.packed>Dense")
@dataclass(eq=False)
class PackedDense(_Packed, Dense):
    """``activation(x @ kernel + bias)`` with a packed kernel."""

    packing: str = ""

    def build(self, *input_shapes: Any) -> None:
        self.keep_matrix(int(input_shapes[0][-1]), self.units, (self.units,) if self.use_bias else None)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        scale: Value | None = None
        if self.input_quantizer and not Packing.parse(self.packing).grouped:
            x, scale = self.input_quantizer(t, x, (x.type.rank - 1,))
        y = t(ops.Dense(), x, self.matrix(t, self.units))
        y = t(ops.Div(), y, scale) if scale is not None else y
        y = t(ops.Add(), y, t.weight("bias")) if self.use_bias else y
        return activations.apply(t, self.activation, y)


@register_layer("kcompile.packed_rows>Dense")
@dataclass(eq=False)
class RowPackedDense(PackedDense):
    """`Dense` as Keras before 3.15 packed it: pairs along the inputs, which are quantised, and no groups."""

    default_quantizer = InputQuantizer()

    def build(self, *input_shapes: Any) -> None:
        self.rows = int(input_shapes[0][-1])
        self.keep("kernel", (-(-self.rows // 2), self.units), "int8")
        if self.use_bias:
            self.keep("bias", (self.units,), self.variable_dtype)
        self.keep("kernel_scale", (self.units,), self.variable_dtype)

    def matrix(self, t: Trace, columns: int) -> Value:
        """The matrix as floats: ``T[rows, columns]``."""
        kernel, scale = lift(t.b, t.weight("kernel"), t.weight("kernel_scale"))
        return (unpacked(kernel, 0, self.rows, signed=True) / scale).cast(self.compute_dtype).value


@register_layer("kcompile.packed>EinsumDense")
@dataclass(eq=False)
class PackedEinsumDense(_Packed, EinsumDense):
    """`EinsumDense` with a packed kernel."""

    zero_name = "zero_point"

    packing: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if Packing.parse(self.packing).method == "int4":
            self.zero_name = "kernel_zero"

    def _extents(self, shape: Any) -> tuple[int, int]:
        """The rows and columns of the packed matrix."""
        equation = self.analyzed(shape)
        kernel = [int(extent) for extent in equation.kernel_shape]
        if Packing.parse(self.packing).method == "int4":
            rows = math.prod(kernel[axis] for axis in equation.input_axes)
            return rows, math.prod(kernel) // rows
        if len(kernel) not in (2, 3):
            law = f"layer `{self.name}` must have a kernel of 2 or 3 axes to be packed as {self.packing}"
            raise ModelError(f"{law}. Received: {kernel}.")
        cut = 1 if len(kernel) == 2 or kernel.index(max(kernel)) == 0 else 2
        return math.prod(kernel[:cut]), math.prod(kernel[cut:])

    def build(self, *input_shapes: Any) -> None:
        self.keep_matrix(*self._extents(input_shapes[0]), self.analyzed(input_shapes[0]).bias_shape)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        equation = self.analyzed(x.type.shape)
        matrix = t(ops.Reshape(equation.kernel_shape), self.matrix(t, self._extents(x.type.shape)[1]))
        scale: Value | None = None
        if self.input_quantizer and not Packing.parse(self.packing).grouped:
            summed = [axis for axis, letter in enumerate(equation.x) if letter not in equation.y]
            x, scale = self.input_quantizer(t, x, summed)
        y = einsum(t, equation.x, equation.kernel, equation.y, x, matrix)
        y = t(ops.Div(), y, beside(t, scale, equation.x, equation.y)) if scale is not None else y
        y = t(ops.Add(), y, t.weight("bias")) if equation.bias_shape is not None else y
        return activations.apply(t, self.activation, y)


@register_layer("kcompile.packed>Embedding")
@dataclass(eq=False)
class PackedEmbedding(_Packed, Embedding):
    """Rows of a packed table."""

    packing: str = ""

    def build(self, *input_shapes: Any) -> None:
        packing = Packing.parse(self.packing)
        groups = packing.groups(self.output_dim)
        self.keep("embeddings", (self.input_dim, -(-self.output_dim // 2)), "int8")
        scale = (self.input_dim, groups) if packing.grouped else (self.input_dim,)
        self.keep("embeddings_scale", scale, self.variable_dtype)
        if packing.grouped:
            self.keep("embeddings_zero", (self.input_dim, groups), "int8")
            self.keep("g_idx", (self.output_dim,), "float32")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        indices = x if x.type.dtype in ("int32", "int64") else t(ops.Cast("int32"), x)
        packed, scale = lift(t.b, t.weight("embeddings"), t.weight("embeddings_scale"))
        numbers = unpacked(packed, 1, self.output_dim, signed=True)
        if Packing.parse(self.packing).grouped:
            zero, groups = lift(t.b, t.weight("embeddings_zero"), t.weight("g_idx"))
            table = (numbers - of_group(zero, groups, 1)) * of_group(scale, groups, 1)
        else:
            table = numbers / scale.expand(1)
        return t(ops.Gather(), table.cast(self.compute_dtype).value, indices)


# -- float8 -----------------------------------------------------------------------------------------------------------

_LARGEST = 448.0
_LEAST_EXPONENT, _MOST_EXPONENT, _FRACTION_BITS = -6, 8, 3


def as_float8(x: Expression, scale: Expression) -> Expression:
    """The nearest number that float8_e4m3fn has, times `scale`: 4 bits of exponent, 3 of fraction, no infinity."""
    y = (x / scale).clip(-_LARGEST, _LARGEST)
    step = y.like(2.0 ** (_LEAST_EXPONENT - _FRACTION_BITS))
    for exponent in range(_LEAST_EXPONENT + 1, _MOST_EXPONENT + 1):
        step = y.like(2.0 ** (exponent - _FRACTION_BITS)).where(y.abs() >= 2.0**exponent, step)
    return (y / step).apply(ops.Round()) * step * scale


class _Float8(QuantizedLayer):
    """Base of layers that round inputs and kernel to float8 before they multiply them."""

    default_quantizer = None

    amax_history_length: int

    def __post_init__(self) -> None:
        self.quantization_config = None
        super().__post_init__()

    def keep_scales(self, kernel: Any, bias: Any) -> None:
        """Create the arrays in the order of the file; only the scales of inputs and kernel count at inference."""
        self.keep("kernel", kernel, self.variable_dtype)
        if bias is not None:
            self.keep("bias", bias, self.variable_dtype)
        for name in ("inputs", "kernel", "outputs_grad"):
            self.keep(f"{name}_scale", (), "float32")
            self.keep(f"{name}_amax_history", (self.amax_history_length,), "float32")

    def rounded(self, t: Trace, x: Value) -> tuple[Value, Value]:
        """The input and the kernel."""
        given, kernel = lift(t.b, x, t.weight("kernel"))
        scales = (lift(t.b, t.weight(name))[0].cast(kernel.type.dtype) for name in ("inputs_scale", "kernel_scale"))
        pairs = zip((given.cast(kernel.type.dtype), kernel), scales, strict=True)
        first, second = (as_float8(value, scale).value for value, scale in pairs)
        return first, second


@register_layer("kcompile.float8>Dense")
@dataclass(eq=False)
class Float8Dense(_Float8, Dense):
    """`Dense` of what float8 has of inputs and kernel."""

    amax_history_length: int = 1024

    def build(self, *input_shapes: Any) -> None:
        self.keep_scales((input_shapes[0][-1], self.units), (self.units,) if self.use_bias else None)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        bias = [t.weight("bias")] if self.use_bias else []
        return activations.apply(t, self.activation, t(ops.Dense(), *self.rounded(t, args[0]), *bias))


@register_layer("kcompile.float8>EinsumDense")
@dataclass(eq=False)
class Float8EinsumDense(_Float8, EinsumDense):
    """`EinsumDense` of what float8 has of inputs and kernel."""

    amax_history_length: int = 1024

    def build(self, *input_shapes: Any) -> None:
        equation = self.analyzed(input_shapes[0])
        self.keep_scales(equation.kernel_shape, equation.bias_shape)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        equation = self.analyzed(args[0].type.shape)
        y = einsum(t, equation.x, equation.kernel, equation.y, *self.rounded(t, args[0]))
        y = t(ops.Add(), y, t.weight("bias")) if equation.bias_shape is not None else y
        return activations.apply(t, self.activation, y)


# By the method and the layer that is quantised.
PACKED_LAYERS: dict[str, dict[str, type[Layer]]] = {
    "awq": {"Dense": PackedDense, "EinsumDense": PackedEinsumDense},
    "gptq": {"Dense": PackedDense, "EinsumDense": PackedEinsumDense},
    "int4": {"Dense": PackedDense, "EinsumDense": PackedEinsumDense, "Embedding": PackedEmbedding},
    "float8": {"Dense": Float8Dense, "EinsumDense": Float8EinsumDense},
}
