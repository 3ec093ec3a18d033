"""`ReversibleEmbedding` of 8 and of 4 bits, called both ways; `_int8_call` and `_int4_call` of Keras 3.15.

Backwards the input is quantised, unless the config leaves it out, and multiplied with the integers of the table; where
those are in groups, with the table as floats.
"""

from dataclasses import dataclass
from typing import Any

from kcompile.frontend.keras_file.int8_layers import INT8_LAYERS, Int8Embedding, QuantizedLayer
from kcompile.frontend.keras_file.packed_layers import PACKED_LAYERS, PackedEmbedding, Packing, of_group, unpacked
from kcompile.frontend.layer import register_layer
from kcompile.frontend.layers.core import ReversibleEmbedding
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value


class _Reversible(QuantizedLayer):
    """Base: which of the two calls it is, and the second one."""

    tie_weights: bool

    def logits(self, t: Trace, x: Value) -> Value:
        """The products with all rows: ``T[..., output_dim] -> T[..., input_dim]``."""
        scale: Expression | None = None
        if self.input_quantizer:
            x, found = self.input_quantizer(t, x, (x.type.rank - 1,))
            (scale,) = lift(t.b, found)
        matrix, columns = self.reverse_table(t)
        y = lift(t.b, t(ops.Dense(), x, matrix.cast(x.type.dtype).value))[0]
        divisor = scale if columns is None else columns if scale is None else scale * columns
        return (y if divisor is None else y / divisor).value

    def reverse_table(self, t: Trace) -> tuple[Expression, Expression | None]:
        """The matrix ``[output_dim, input_dim]``, and what to divide its products by."""
        raise NotImplementedError


@register_layer("kcompile.int8>ReversibleEmbedding")
@dataclass(eq=False)
class Int8ReversibleEmbedding(_Reversible, ReversibleEmbedding):
    """Integers of 8 bits with a scale for each row."""

    def build(self, *input_shapes: Any) -> None:
        Int8Embedding.build(self, *input_shapes)  # pyright: ignore[reportArgumentType]
        if not self.tie_weights:
            self.keep("reverse_embeddings", (self.output_dim, self.input_dim), "int8")
            self.keep("reverse_embeddings_scale", (self.input_dim,), self.variable_dtype)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        if kwargs.get("reverse", any(args[1:])):
            return self.capped(t, self.logits(t, args[0]))
        return Int8Embedding.call(self, t, args[0])  # pyright: ignore[reportArgumentType]

    def reverse_table(self, t: Trace) -> tuple[Expression, Expression | None]:
        if not self.tie_weights:
            table, scale = lift(t.b, t.weight("reverse_embeddings"), t.weight("reverse_embeddings_scale"))
            return table, scale
        table, scale = lift(t.b, t.weight("embeddings"), t.weight("embeddings_scale"))
        return table.swap_last(), scale


@register_layer("kcompile.packed>ReversibleEmbedding")
@dataclass(eq=False)
class PackedReversibleEmbedding(_Reversible, ReversibleEmbedding):
    """Integers of 4 bits, in groups or with a scale for each row."""

    packing: str = ""

    def build(self, *input_shapes: Any) -> None:
        PackedEmbedding.build(self, *input_shapes)  # pyright: ignore[reportArgumentType]
        if self.tie_weights:
            return
        packing = Packing.parse(self.packing)
        self.keep("reverse_embeddings", (-(-self.output_dim // 2), self.input_dim), "int8")
        scale = (packing.groups(self.output_dim), self.input_dim) if packing.grouped else (self.input_dim,)
        self.keep("reverse_embeddings_scale", scale, self.variable_dtype)
        if packing.grouped:
            self.keep("reverse_embeddings_zero", scale, self.variable_dtype)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        if kwargs.get("reverse", any(args[1:])):
            return self.capped(t, self.logits(t, args[0]))
        return PackedEmbedding.call(self, t, args[0])  # pyright: ignore[reportArgumentType]

    def reverse_table(self, t: Trace) -> tuple[Expression, Expression | None]:
        start = "" if self.tie_weights else "reverse_"
        packed, scale = lift(t.b, t.weight(f"{start}embeddings"), t.weight(f"{start}embeddings_scale"))
        numbers = unpacked(packed, 1 if self.tie_weights else 0, self.output_dim, signed=True)
        numbers = numbers.swap_last() if self.tie_weights else numbers
        if not Packing.parse(self.packing).grouped:
            return numbers, scale
        zero, groups = lift(t.b, t.weight(f"{start}embeddings_zero"), t.weight("g_idx"))
        scale, zero = (each.swap_last() if self.tie_weights else each for each in (scale, zero))
        return (numbers - of_group(zero, groups, 0)) * of_group(scale, groups, 0), None


INT8_LAYERS["ReversibleEmbedding"] = Int8ReversibleEmbedding
PACKED_LAYERS["int4"]["ReversibleEmbedding"] = PackedReversibleEmbedding
