"""Attention layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.einsum import EinsumDense
from kcompile.frontend.layers.regularization import dropped
from kcompile.frontend.layers.writing import (
    any_of,
    broadcast,
    cast,
    expand_dims,
    inverse,
    like,
    positions,
    reshape,
    transpose,
)
from kcompile.frontend.tracing import Trace, ensure_built
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Value

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def projection(rank: int, bound: int, outputs: int) -> tuple[str, str]:
    """The equation that maps the last `bound` axes of a tensor to `outputs` new ones, and the letters of those."""
    free = rank - bound
    x = _LETTERS[:rank]
    new = _LETTERS[rank : rank + outputs]
    return f"{x},{x[free:]}{new}->{x[:free]}{new}", new


def both(t: Trace, left: Value | None, right: Value | None) -> Value | None:
    """Where two masks hold; None holds everywhere."""
    if left is None or right is None:
        return left if right is None else right
    return t(ops.And(), left, right)


def causal_mask(t: Trace, queries: Dim, keys: Dim) -> Value:
    """Whether key j is not after query i: ``bool[1, queries, keys]``."""
    row = reshape(t, positions(t, queries), (1, queries, 1))
    return t(ops.Compare(">="), row, reshape(t, positions(t, keys), (1, 1, keys)))


def window_mask(t: Trace, queries: Dim, keys: Dim, reach: int) -> Value:
    """Whether key j is fewer than `reach` steps from query i: ``bool[1, queries, keys]``."""
    row = reshape(t, positions(t, queries), (1, queries, 1))
    distance = t(ops.Abs(), t(ops.Sub(), row, reshape(t, positions(t, keys), (1, 1, keys))))
    return t(ops.Compare("<"), distance, like(t, distance, reach))


@dataclass(frozen=True)
class _Call:
    """The arguments of a call of an attention layer with heads."""

    query: Value
    value: Value
    key: Value
    masks: Mapping[str, Value | None]
    attention_mask: Value | None
    scores: bool
    causal: bool


class _Heads(Layer):
    """Base: attention over projections to several heads, Vaswani et al. 2017, arXiv:1706.03762.

    The masks of query, value and key, `attention_mask` and `use_causal_mask` are all taken together.
    """

    supports_masking = True
    # How Keras names the attribute of a dense layer, and whether a mask named in a call counts for the query.
    attribute: ClassVar[str] = "{}_dense"
    query_mask_is_own: ClassVar[bool] = True

    dropout: float
    use_bias: bool
    use_gate: bool
    sliding_window: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dense: dict[str, EinsumDense] = {}
        if self.sliding_window is not None:
            arguments.positive(self, "sliding_window")

    @property
    def sublayers(self) -> dict[str, Layer]:
        return {"_gate_dense" if n == "gate" else self.attribute.format(n): dense for n, dense in self.dense.items()}

    def read_call(self, t: Trace, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Call:
        """The arguments by name, with the masks that the tensors carry."""
        names = ("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask")
        given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        if not isinstance(given.get("query"), Value) or not isinstance(given.get("value"), Value):
            raise ModelError(f"layer `{self.name}` takes a query and a value. Received: {', '.join(given)}.")
        # The masks stand in the order of the tensors: the positional ones, then the others by name.
        order = [*names[: len(args)], *sorted(kwargs)]
        tensors = [name for name in order if isinstance(given.get(name), Value)]
        carried = dict(zip(tensors, t.masks, strict=True))
        masks: dict[str, Value | None] = {}
        for name in ("query", "value", "key"):
            named = None if name == "query" and self.query_mask_is_own else given.get(f"{name}_mask")
            masks[name] = carried.get(name) if named is None else named
        key = given.get("key")
        return _Call(
            given["query"],
            given["value"],
            given["value"] if key is None else key,
            masks,
            given.get("attention_mask"),
            bool(given.get("return_attention_scores")),
            bool(given.get("use_causal_mask")),
        )

    def combined_mask(self, t: Trace, call: _Call) -> Value | None:
        """All masks as one that broadcasts to ``[N, queries, keys]``; None where only `use_causal_mask` is left."""
        mask: Value | None = None
        for name, axis in (("query", -1), ("value", -2), ("key", -2)):
            own = call.masks[name]
            if own is not None:
                # A negative axis counts in the result, which has one more.
                mask = both(t, mask, expand_dims(t, cast(t, own, "bool"), axis))
        queries, keys = call.query.type.shape[1], call.value.type.shape[1]
        given = cast(t, call.attention_mask, "bool") if call.attention_mask is not None else None
        if call.causal and (mask is not None or given is not None or self.sliding_window is not None):
            mask = both(t, mask, causal_mask(t, queries, keys))
        if self.sliding_window is not None:
            mask = both(t, mask, window_mask(t, queries, keys, self.sliding_window))
        return both(t, given, mask)

    def attend(self, t: Trace, call: _Call, scale: float, axes: tuple[int, ...]) -> tuple[Value, Value]:
        """The heads' results before the last projection, and the attention scores."""
        mask = self.combined_mask(t, call)
        query, key, value = (
            t.run(self.dense[n], x) for n, x in (("query", call.query), ("key", call.key), ("value", call.value))
        )
        op = ops.Attention(scale, causal=call.causal and mask is None)
        # Where Keras computes the scores itself, it puts zeros in the place of those that are masked.
        explicit = self.dropout > 0 or call.scores or query.type.rank != 4
        return _Attending(t, op, mask, explicit, self.dropout).run(query, key, value, axes)

    def finish(self, t: Trace, call: _Call, heads: Value, scores: Value) -> Any:
        """The gate, the last projection, and the scores where the call asks for them."""
        if self.use_gate:
            heads = t(ops.Mul(), heads, t.run(self.dense["gate"], call.query))
        y: Value = t.run(self.dense["output"], heads)
        return (y, scores) if call.scores else y

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | None:
        return self.read_call(t, args, kwargs).masks["query"]

    def create(self, call: _Call, heads: Mapping[str, tuple[int, int]], output_shape: Shape | None) -> None:
        """Create the dense layers, once: by name, the number of heads and their size; then the last one."""
        if self.dense:
            return
        inputs = {"query": call.query, "key": call.key, "gate": call.query, "value": call.value}
        gate = {"gate": (heads["query"][0], heads["value"][1])} if self.use_gate else {}
        # In the order in which Keras makes them.
        for name in ("query", "key", *gate, "value"):
            self._dense(name, inputs[name].type.shape, 1, {**heads, **gate}[name])
        query = call.query.type.shape
        self._dense("output", (*query[:-1], heads["query"][0], heads["value"][1]), 2, output_shape or query[-1:])

    def _dense(self, name: str, shape: Shape, bound: int, outputs: Shape) -> None:
        equation, letters = projection(len(shape), bound, len(outputs))
        common: dict[str, Any] = {n: getattr(self, n) for n in _SHARED}
        self.dense[name] = EinsumDense(
            equation,
            (*(None,) * (len(shape) - bound - 1), *outputs),
            activation="sigmoid" if name == "gate" else None,
            bias_axes=letters if self.use_bias else None,
            name="attention_output" if name == "output" else name,
            **common,
        )
        ensure_built(self.dense[name], [shape])


# What the dense layers of an attention layer take from it.
_SHARED = ("kernel_initializer", "bias_initializer", "dtype", "trainable")


@dataclass(frozen=True)
class _Attending:
    """Attention over any axes, by an op that knows ``[N, length, heads, depth]`` only."""

    t: Trace
    op: ops.Attention
    mask: Value | None
    explicit: bool
    dropout: float = 0.0

    def run(self, query: Value, key: Value, value: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
        """Query, key and value are ``[N, *dims, heads, depth]``; attention runs along `axes` of dims."""
        t, rank = self.t, query.type.rank
        others = tuple(a for a in range(1, rank - 2) if a not in axes)
        perm = (0, *others, *axes, rank - 2, rank - 1)
        lead = tuple(query.type.shape[a] for a in (0, *others))
        lengths = [tuple(x.type.shape[a] for a in axes) for x in (query, key)]
        mask = self._flat_mask(lead, query.type.shape[-2], lengths)
        flat = [self._flat(x, perm, len(lead), len(axes)) for x in (query, key, value)]
        y, scores = t.multi(self.op, *flat, *([mask] if mask is not None else []))
        if mask is not None and self.explicit:
            zero = like(t, y, 0.0)
            seen = transpose(t, expand_dims(t, any_of(t, mask, 3), -1), (0, 2, 1, 3))
            y, scores = t(ops.Where(), seen, y, zero), t(ops.Where(), mask, scores, zero)
        if t.training and self.dropout:
            y = self._mixed(dropped(t, scores, self.dropout), flat[2])
        heads, depth = y.type.shape[2:]
        y = transpose(t, reshape(t, y, (*lead, *lengths[0], heads, depth)), inverse(perm))
        return y, reshape(t, scores, (*lead, heads, *lengths[0], *lengths[1]))

    def _mixed(self, scores: Value, value: Value) -> Value:
        """The sums of values by other scores than the op's own: ``T[N, H, Q, K], T[N, K, G, E] -> T[N, Q, H, E]``."""
        batch, length, groups, depth = value.type.shape
        repeats = dims.exact_div(scores.type.shape[1], groups) or 1
        each = expand_dims(self.t, transpose(self.t, value, (0, 2, 1, 3)), 2)
        each = broadcast(self.t, each, (batch, groups, repeats, length, depth))
        each = reshape(self.t, each, (batch, scores.type.shape[1], length, depth))
        return transpose(self.t, self.t(ops.MatMul(), scores, each), (0, 2, 1, 3))

    def _flat(self, x: Value, perm: Sequence[int], lead: int, count: int) -> Value:
        x = transpose(self.t, x, perm)
        shape = x.type.shape
        return reshape(self.t, x, (dims.mul(*shape[:lead]), dims.mul(*shape[lead : lead + count]), *shape[-2:]))

    def _flat_mask(self, lead: Shape, heads: Dim, lengths: Sequence[Shape]) -> Value | None:
        if self.mask is None:
            return None
        mask, count = self.mask, len(lengths[0])
        rank = len(lead) + 1 + 2 * count
        if mask.type.rank > rank:
            raise ModelError(f"an attention mask must have at most {rank} axes here. Received: {mask.type}.")
        while mask.type.rank < rank:
            mask = expand_dims(self.t, mask, -2 * count - 1)
        if rank == 4:
            return mask
        shape = (*lead, mask.type.shape[len(lead)], *lengths[0], *lengths[1])
        whole = [dims.mul(*s) for s in (lead, lengths[0], lengths[1])]
        return reshape(self.t, broadcast(self.t, mask, shape), (whole[0], shape[len(lead)], *whole[1:]))


@register_layer("keras>MultiHeadAttention")
@dataclass(eq=False)
class MultiHeadAttention(_Heads):
    """Attention with `num_heads` heads: ``query: T[N, Q, D], value: T[N, K, E] -> T[N, Q, D]``, or `output_shape` last.

    With `return_attention_scores` the scores ``T[N, heads, Q, K]`` follow.
    """

    hidden_fields = frozenset({"flash_attention"})

    num_heads: int
    key_dim: int
    value_dim: int | None = None
    dropout: float = 0.0
    use_bias: bool = True
    output_shape: Any = None
    attention_axes: Any = None
    sliding_window: int | None = None
    flash_attention: Any = None
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    use_gate: bool = False
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.value_dim = self.value_dim or self.key_dim
        arguments.positive(self, "num_heads", "key_dim", "value_dim")
        if self.output_shape is not None:
            given: Any = self.output_shape
            self.output_shape = (given,) if isinstance(given, int) else tuple(given)
        if self.attention_axes is not None:
            axes: Any = self.attention_axes
            self.attention_axes = (axes,) if isinstance(axes, int) else tuple(axes)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        call = self.read_call(t, args, kwargs)
        size = self.value_dim or self.key_dim
        heads = {"query": (self.num_heads, self.key_dim), "key": (self.num_heads, self.key_dim)}
        self.create(call, {**heads, "value": (self.num_heads, size)}, self.output_shape)
        rank = call.query.type.rank
        axes = tuple(a if a >= 0 else rank + a for a in self.attention_axes or range(1, rank - 1))
        self.require(all(0 < a < rank - 1 for a in axes), "attention_axes", "axes between the batch and the features")
        return self.finish(t, call, *self.attend(t, call, 1.0 / math.sqrt(self.key_dim), axes))


@register_layer("keras>GroupQueryAttention", "keras>GroupedQueryAttention")
@dataclass(eq=False)
class GroupQueryAttention(_Heads):
    """Attention whose query heads share fewer heads of keys and values; Ainslie et al. 2023, arXiv:2305.13245.

    ``query: T[N, Q, D], value: T[N, K, D] -> T[N, Q, D]``, and the scores ``T[N, heads, Q, K]`` where a call asks.
    """

    hidden_fields = frozenset({"flash_attention"})
    attribute = "_{}_dense"
    query_mask_is_own = False

    head_dim: int
    num_query_heads: int
    num_key_value_heads: int
    dropout: float = 0.0
    use_bias: bool = True
    sliding_window: int | None = None
    flash_attention: Any = None
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    use_gate: bool = False
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "head_dim", "num_query_heads", "num_key_value_heads")
        divides = self.num_query_heads % self.num_key_value_heads == 0
        self.require(divides, "num_query_heads", f"a multiple of num_key_value_heads={self.num_key_value_heads}")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        call = self.read_call(t, args, kwargs)
        shared = (self.num_key_value_heads, self.head_dim)
        self.create(call, {"query": (self.num_query_heads, self.head_dim), "key": shared, "value": shared}, None)
        return self.finish(t, call, *self.attend(t, call, 1.0 / math.sqrt(self.head_dim), (1,)))
