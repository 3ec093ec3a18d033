"""Attention without heads: a softmax over scores of queries and keys."""

from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.attention import both, causal_mask
from kcompile.frontend.layers.regularization import dropped
from kcompile.frontend.layers.writing import cast, expand_dims, like, transpose
from kcompile.frontend.tracing import Trace, flatten
from kcompile.ir import ops
from kcompile.ir.graph import Value


class _Scored(Layer):
    """Base: ``softmax(score(query, key)) @ value``, called on ``[query, value]`` or ``[query, value, key]``.

    ``query: T[N, Q, D], value: T[N, K, E], key: T[N, K, D] -> T[N, Q, E]``, and the softmax ``T[N, Q, K]`` where a call
    has `return_attention_scores`. The value's mask hides steps of value and key, the query's zeroes results.
    """

    supports_masking = True

    dropout: float

    def scores(self, t: Trace, query: Value, key: Value) -> Value:
        """How well each query fits each key."""
        raise NotImplementedError

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        tensors = list(flatten(args))
        if len(tensors) not in (2, 3):
            law = f"layer `{self.name}` takes a list of query and value, or of query, value and key"
            raise ModelError(f"{law}. Received: {len(tensors)} tensors.")
        query, value, key = tensors if len(tensors) == 3 else (*tensors, tensors[1])
        scores = self.scores(t, query, key)
        mask = self._score_mask(t, scores, bool(kwargs.get("use_causal_mask")))
        if mask is not None:
            hidden = like(t, scores, 65504.0 if scores.type.dtype == "float16" else 1e9)
            scores = t(ops.Where(), mask, scores, t(ops.Sub(), scores, hidden))
        weights = dropped(t, t(ops.Softmax(), scores), self.dropout)
        y = t(ops.MatMul(), weights, value)
        if t.masks[0] is not None:
            y = t(ops.Where(), expand_dims(t, cast(t, t.masks[0], "bool"), -1), y, like(t, y, 0.0))
        return (y, weights) if kwargs.get("return_attention_scores") else y

    def _score_mask(self, t: Trace, scores: Value, causal: bool) -> Value | None:
        mask = t.masks[1]
        mask = expand_dims(t, cast(t, mask, "bool"), -2) if mask is not None else None
        return both(t, mask, causal_mask(t, *scores.type.shape[-2:])) if causal else mask

    def pairs(self, t: Trace, query: Value, key: Value) -> Value:
        """The sum of each query and each key: ``T[N, Q, K, D]``."""
        return t(ops.Add(), expand_dims(t, query, -2), expand_dims(t, key, -3))


@register_layer("keras>Attention")
@dataclass(eq=False)
class Attention(_Scored):
    """Scores ``query @ key^T`` (Luong et al. 2015, arXiv:1508.04025), or sums of ``tanh(query + key)`` for "concat"."""

    use_scale: bool = False
    score_mode: str = "dot"
    dropout: float = 0.0
    seed: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice(self, "score_mode", ("dot", "concat"))

    def build(self, *input_shapes: Any) -> None:
        if self.use_scale:
            self.add_weight("scale", (), "ones")
        if self.score_mode == "concat":
            self.add_weight("concat_score_weight", (), "ones")

    def scores(self, t: Trace, query: Value, key: Value) -> Value:
        if self.score_mode == "dot":
            rank = key.type.rank
            product = t(ops.MatMul(), query, transpose(t, key, (*range(rank - 2), rank - 1, rank - 2)))
            return t(ops.Mul(), product, t.weight("scale")) if self.use_scale else product
        both_sides = self.pairs(t, query, key)
        if self.use_scale:
            both_sides = t(ops.Mul(), both_sides, t.weight("scale"))
        total = t(ops.ReduceSum((-1,)), t(ops.Tanh(), both_sides))
        return t(ops.Mul(), total, t.weight("concat_score_weight"))


@register_layer("keras>AdditiveAttention")
@dataclass(eq=False)
class AdditiveAttention(_Scored):
    """Scores ``sum(scale * tanh(query + key))``; Bahdanau et al. 2015, arXiv:1409.0473."""

    use_scale: bool = True
    dropout: float = 0.0
    seed: Any = None

    def build(self, *input_shapes: Any) -> None:
        if self.use_scale:
            self.add_weight("scale", (input_shapes[0][-1],), "glorot_uniform")

    def scores(self, t: Trace, query: Value, key: Value) -> Value:
        curve = t(ops.Tanh(), self.pairs(t, query, key))
        return t(ops.ReduceSum((-1,)), t(ops.Mul(), curve, t.weight("scale")) if self.use_scale else curve)
