"""Scaled dot-product attention."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcompile.ir import dims, expression
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values, broadcast_shapes

if TYPE_CHECKING:
    from kcompile.ir.expression import Expression
    from kcompile.ir.graph import Builder

# What stands for the score of a masked key, as in `keras.layers.Softmax`.
MASKED_SCORE = -1e9
_MASKED_SCORE_OF_HALVES = -3e4


def masked_score(dtype: str) -> float:
    """The score of a masked key: so low that its power is 0, unless all keys of a query are masked and all count."""
    return _MASKED_SCORE_OF_HALVES if dtype == "float16" else MASKED_SCORE


@dataclass(frozen=True)
class Attention(Op, name="attention", operands=("query", "key", "value", "mask?")):
    """``softmax(scale * query @ key^T + masked) @ value`` for each head; the second result holds the softmax.

    ``query: T[N, Q, H, D], key: T[N, K, G, D], value: T[N, K, G, E], mask: bool -> T[N, Q, H, E], T[N, H, Q, K]``
    where G divides H and query head h reads key head ``h // (H / G)``, and the mask (True: may attend) broadcasts to
    ``[N, H, Q, K]``. With `causal`, query i sees keys up to i, as far as the mask allows them. A query that may see no
    key attends to all alike. Vaswani et al. 2017, arXiv:1706.03762.
    """

    scale: float
    causal: bool = False

    def infer(self, types: Types) -> Types:
        query, key, value = types[:3]
        fits = query.rank == key.rank == value.rank == 4 and query.dtype == key.dtype == value.dtype
        self.require(fits, "query, key and value must be [N, length, heads, depth]", types)
        batch, length, heads, depth = query.shape
        grouped = isinstance(heads, int) and isinstance(key.shape[2], int) and heads % key.shape[2] == 0
        agree = key.shape[:3] == value.shape[:3] and key.shape[0] == batch and key.shape[3] == depth
        self.require(agree and grouped, "lengths, heads and depths must agree", types)
        scores = query.with_shape((batch, heads, length, key.shape[1]))
        if len(types) > 3:
            law = types[3].dtype == "bool" and broadcast_shapes(self, (types[3], scores)) == scores.shape
            self.require(law, f"the mask must be bool and broadcast to {scores}", types)
        return query.with_shape((batch, length, heads, value.shape[3])), scores

    def kernel(self, args: Arrays) -> Arrays:
        query, key, value = (a.swapaxes(1, 2) for a in args[:3])
        repeat = query.shape[1] // key.shape[1] if key.shape[1] else 1
        key, value = (np.repeat(a, repeat, axis=1) if repeat > 1 else a for a in (key, value))
        scores = np.matmul(query * query.dtype.type(self.scale), key.swapaxes(2, 3))
        allowed = args[3] if len(args) > 3 else np.ones((), bool)
        if self.causal:
            allowed = np.logical_and(allowed, np.tri(scores.shape[2], scores.shape[3], dtype=bool))
        scores = np.where(allowed, scores, scores.dtype.type(masked_score(scores.dtype.name)))
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        return np.matmul(weights, value).swapaxes(1, 2), weights

    def macs(self, types: Types, results: Types) -> Dim:
        pairs = results[1].size
        return dims.add(dims.mul(pairs, types[0].shape[3]), dims.mul(pairs, types[2].shape[3]))

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.linear import MatMul

        query, key, value = (x.transpose((0, 2, 1, 3)) for x in expression.lift(b, *xs[:3]))
        weights, dy, dweights = expression.lift(b, ys[1], *expression.given(b, dys, ys))
        dy = dy.transpose((0, 2, 1, 3))
        heads = query.shape[1]
        dweights = dweights + dy.apply(MatMul(), _spread(value, heads).swap_last())
        dscores = weights * (dweights - (dweights * weights).sum((-1,), keepdims=True)) * self.scale
        if len(xs) > 3:  # where all keys are masked the weights are not 0, but no score made them
            dscores = dscores.where(self._allowed(expression.Expression(b, xs[3]), dscores), 0.0)
        dquery = dscores.apply(MatMul(), _spread(key, heads))
        dkey = _gathered(dscores.swap_last().apply(MatMul(), query), key.shape[1])
        dvalue = _gathered(weights.swap_last().apply(MatMul(), dy), value.shape[1])
        found = tuple(dx.transpose((0, 2, 1, 3)).value for dx in (dquery, dkey, dvalue))
        return (*found, None) if len(xs) > 3 else found

    def _allowed(self, mask: "Expression", scores: "Expression") -> "Expression":
        from kcompile.ir.ops.constant import Full
        from kcompile.ir.ops.reduction import CumSum

        if not self.causal:
            return mask
        (ones,) = expression.lift(mask.b, mask.b(Full(scores.shape[2:], 1.0, "int32")))
        return mask & (ones.apply(CumSum(0)) >= ones.apply(CumSum(1)))


def _spread(x: "Expression", heads: Dim) -> "Expression":
    """``x: [N, G, L, D] -> [N, H, L, D]``: each of G heads as often as query heads read it."""
    batch, groups, length, depth = x.shape
    if groups == heads:
        return x
    repeats = dims.exact_div(heads, groups) or 1
    apart = x.reshape((batch, groups, 1, length, depth)).broadcast_to((batch, groups, repeats, length, depth))
    return apart.reshape((batch, heads, length, depth))


def _gathered(dx: "Expression", groups: Dim) -> "Expression":
    """``dx: [N, H, L, D] -> [N, G, L, D]``: the sum over the query heads that read one head."""
    batch, heads, length, depth = dx.shape
    if groups == heads:
        return dx
    repeats = dims.exact_div(heads, groups) or 1
    return dx.reshape((batch, groups, repeats, length, depth)).sum((2,))
