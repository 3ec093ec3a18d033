"""Scaled dot-product attention."""

from dataclasses import dataclass

import numpy as np

from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Op, Types, broadcast_shapes

# What Keras adds to the score of a masked key: `keras.layers.Softmax` uses -1e9 for float32 and wider.
MASKED_SCORE = -1e9


@dataclass(frozen=True)
class Attention(Op, name="attention", operands=("query", "key", "value", "mask?")):
    """``softmax(scale * query @ key^T + masked) @ value`` for each head; the second result holds the softmax.

    ``query: T[N, Q, H, D], key: T[N, K, G, D], value: T[N, K, G, E], mask: bool -> T[N, Q, H, E], T[N, H, Q, K]``
    where G divides H and query head h reads key head ``h // (H / G)``, and the mask (True: may attend) broadcasts to
    ``[N, H, Q, K]``. With `causal`, query i sees keys up to i. Vaswani et al. 2017, arXiv:1706.03762.
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
        if len(args) > 3:
            scores = np.where(args[3], scores, scores + scores.dtype.type(MASKED_SCORE))
        if self.causal:
            seen = np.tri(scores.shape[2], scores.shape[3], dtype=bool)
            scores = np.where(seen, scores, scores + scores.dtype.type(MASKED_SCORE))
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        return np.matmul(weights, value).swapaxes(1, 2), weights

    def macs(self, types: Types, results: Types) -> Dim:
        pairs = results[1].size
        return dims.add(dims.mul(pairs, types[0].shape[3]), dims.mul(pairs, types[2].shape[3]))
