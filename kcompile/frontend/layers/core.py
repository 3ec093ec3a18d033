"""Layers that mix features, look vectors up, and say which steps count."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kcompile.frontend import activations
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.writing import any_of, cast, expand_dims, like
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value


@register_layer("keras>Dense")
@dataclass(eq=False)
class Dense(Layer):
    """``activation(x @ kernel + bias)``: ``x: T[..., K], kernel: T[K, units], bias: T[units] -> T[..., units]``."""

    supports_masking = True
    optional_fields = frozenset({"activity_regularizer", "lora_rank", "lora_alpha"})

    units: int
    activation: Any = None
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    lora_rank: int | None = None
    lora_alpha: Any = None
    quantization_config: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "units")
        self.require(self.quantization_config is None, "quantization_config", "None: weights must be floats")
        self.activation = activations.get(self.activation, f"`activation` of layer `{self.name}`")

    def build(self, *input_shapes: Any) -> None:
        self.add_weight("kernel", (input_shapes[0][-1], self.units), self.kernel_initializer)
        if self.use_bias:
            self.add_weight("bias", (self.units,), self.bias_initializer)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        kernel = t.weight("kernel")
        bias = [t.weight("bias")] if self.use_bias else []
        return activations.apply(t, self.activation, t(ops.Dense(), cast(t, args[0], kernel.type.dtype), kernel, *bias))


@register_layer("keras>Embedding")
@dataclass(eq=False)
class Embedding(Layer):
    """Row ``x`` of a table: ``x: i[...], embeddings: T[input_dim, output_dim] -> T[..., output_dim]``.

    With `mask_zero`, elements that are 0 are masked.
    """

    supports_masking = True
    optional_fields = frozenset({"lora_rank", "lora_alpha"})

    input_dim: int = field()  # pyright: ignore[reportIncompatibleVariableOverride]
    output_dim: int
    embeddings_initializer: Any = "uniform"
    embeddings_regularizer: Any = None
    embeddings_constraint: Any = None
    mask_zero: bool = False
    lora_rank: int | None = None
    lora_alpha: Any = None
    quantization_config: Any = None
    activity_regularizer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "input_dim", "output_dim")
        self.require(self.quantization_config is None, "quantization_config", "None: weights must be floats")

    def build(self, *input_shapes: Any) -> None:
        self.add_weight("embeddings", (self.input_dim, self.output_dim), self.embeddings_initializer)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        indices: Value = args[0]
        if indices.type.dtype not in ("int32", "int64"):
            indices = t(ops.Cast("int32"), indices)
        return t(ops.Gather(), t.weight("embeddings"), indices)

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | None:
        if not self.mask_zero:
            return None
        return t(ops.Compare("!="), args[0], like(t, args[0], 0))


@register_layer("keras>ReversibleEmbedding")
@dataclass(eq=False)
class ReversibleEmbedding(Embedding):
    """Rows of a table, or called with ``reverse=True`` the products with all rows.

    ``x: i[...] -> T[..., output_dim]``, or ``x: T[..., output_dim] -> T[..., input_dim]``. The products are with a
    table of their own unless `tie_weights`, in `reverse_dtype`, and with `logit_soft_cap` within it:
    ``cap * tanh(x / cap)``.
    """

    input_dim: int = field()
    output_dim: int
    tie_weights: bool = True
    embeddings_initializer: Any = "uniform"
    embeddings_regularizer: Any = None
    embeddings_constraint: Any = None
    mask_zero: bool = False
    reverse_dtype: str | None = None
    logit_soft_cap: float | None = None
    lora_rank: int | None = None
    lora_alpha: Any = None
    quantization_config: Any = None
    activity_regularizer: Any = None

    def build(self, *input_shapes: Any) -> None:
        super().build(*input_shapes)
        if not self.tie_weights:
            self.add_weight("reverse_embeddings", (self.output_dim, self.input_dim), self.embeddings_initializer)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        if not kwargs.get("reverse", any(args[1:])):
            return super().call(t, args[0])
        kernel = t.weight("reverse_embeddings") if not self.tie_weights else self._transposed(t)
        dtype = self.reverse_dtype or kernel.type.dtype
        return self.capped(t, t(ops.Dense(), cast(t, args[0], dtype), cast(t, kernel, dtype)))

    def _transposed(self, t: Trace) -> Value:
        return t(ops.Transpose((1, 0)), t.weight("embeddings"))

    def capped(self, t: Trace, logits: Value) -> Value:
        """The logits within ``logit_soft_cap``."""
        if self.logit_soft_cap is None:
            return logits
        cap = like(t, logits, self.logit_soft_cap)
        return t(ops.Mul(), t(ops.Tanh(), t(ops.Div(), logits, cap)), cap)

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | None:
        return None if kwargs.get("reverse", any(args[1:])) else super().compute_mask(t, *args, **kwargs)


@register_layer("keras>Masking")
@dataclass(eq=False)
class Masking(Layer):
    """Masks steps whose features all equal `mask_value`, and makes those features 0: ``x: T[N, L, ...]``."""

    supports_masking = True

    mask_value: float = 0.0

    def _counts(self, t: Trace, x: Value) -> Value:
        return any_of(t, t(ops.Compare("!="), x, like(t, x, self.mask_value)), x.type.rank - 1)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        return t(ops.Where(), expand_dims(t, self._counts(t, x), -1), x, like(t, x, 0))

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return self._counts(t, args[0])


@register_layer("keras>Identity")
@dataclass(eq=False)
class Identity(Layer):
    """``x``."""

    supports_masking = True

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        return args[0]

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | Sequence[Value | None] | None:
        return t.masks[0] if len(t.masks) == 1 else t.masks
