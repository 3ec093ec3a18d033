"""Attention against loops over queries, keys and heads."""

from typing import Any

import numpy as np
import pytest

from kcompile.frontend import Input, layers
from kcompile.frontend.layers.einsum import EinsumDense
from tests.frontend.layers.support import run, run_with_mask

QUERIES, KEYS, FEATURES, HEADS, DEPTH = 4, 5, 6, 2, 3


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """One head of one sample, key by key; a query that may see nothing sees everything alike."""
    result = np.zeros((len(query), value.shape[1]))
    for i, q in enumerate(query):
        scores = np.array([q @ k for k in key])
        powers = np.exp(scores - scores.max()) * allowed[i] if allowed[i].any() else np.ones(len(key))
        result[i] = sum(p * v for p, v in zip(powers / powers.sum(), value, strict=True))
    return result


def heads_loop(x: np.ndarray, y: np.ndarray, weights: list[np.ndarray], allowed: np.ndarray) -> np.ndarray:
    wq, bq, wk, bk, wv, bv, wo, bo = (w.astype(float) for w in weights)
    result = np.zeros((*x.shape[:2], wo.shape[2]))
    for n in range(len(x)):
        for h in range(wq.shape[1]):
            query = (x[n] @ wq[:, h] + bq[h]) / np.sqrt(wq.shape[2])
            group = h * wk.shape[1] // wq.shape[1]
            key, value = y[n] @ wk[:, group] + bk[group], y[n] @ wv[:, group] + bv[group]
            result[n] += attend(query, key, value, allowed[n]) @ wo[h]
        result[n] += bo
    return result


@pytest.fixture
def tensors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shapes = ((3, QUERIES, FEATURES), (3, KEYS, FEATURES))
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, y


def built(layer: Any, rng: np.random.Generator) -> Any:
    layer(Input((QUERIES, FEATURES)), Input((KEYS, FEATURES)))
    layer.set_weights([rng.normal(size=w.shape).astype(np.float32) * 0.5 for w in layer.weights])
    return layer


EVERYTHING = np.ones((3, QUERIES, KEYS), bool)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.MultiHeadAttention(HEADS, DEPTH, value_dim=4),
        lambda: layers.GroupQueryAttention(DEPTH, 4, 2),
    ],
    ids=["multi_head", "group_query"],
)
def test_heads_attend_as_the_formula_says(make: Any, tensors: Any, rng: np.random.Generator) -> None:
    layer = built(make(), rng)
    x, y = tensors
    expected = heads_loop(x, y, layer.get_weights(), EVERYTHING)
    received, _ = run_with_mask(layer, x, y, as_list=False)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_all_masks_are_taken_together(tensors: Any, rng: np.random.Generator) -> None:
    layer = built(layers.MultiHeadAttention(HEADS, DEPTH), rng)
    x, y = tensors
    x_mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
    y_mask = np.array([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]], bool)
    causal = np.tril(np.ones((QUERIES, KEYS), bool))
    allowed = x_mask[:, :, None] & y_mask[:, None, :] & causal
    received, mask = run_with_mask(layer, x, y, masks=[x_mask, y_mask], as_list=False, use_causal_mask=True)
    np.testing.assert_allclose(received, heads_loop(x, y, layer.get_weights(), allowed), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mask, x_mask)


def test_a_window_hides_distant_keys(tensors: Any, rng: np.random.Generator) -> None:
    layer = built(layers.MultiHeadAttention(HEADS, DEPTH, sliding_window=2), rng)
    x, y = tensors
    near = np.abs(np.arange(QUERIES)[:, None] - np.arange(KEYS)) < 2
    expected = heads_loop(x, y, layer.get_weights(), np.broadcast_to(near, EVERYTHING.shape))
    np.testing.assert_allclose(run_with_mask(layer, x, y, as_list=False)[0], expected, rtol=1e-5, atol=1e-5)


def test_scores_of_masked_keys_are_zero(tensors: Any, rng: np.random.Generator) -> None:
    layer = built(layers.MultiHeadAttention(HEADS, DEPTH), rng)
    x, y = tensors
    y_mask = np.array([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    (_, scores), _ = run_with_mask(layer, x, y, masks=[None, y_mask], as_list=False, return_attention_scores=True)
    assert scores.shape == (3, HEADS, QUERIES, KEYS)
    assert (scores[:, :, :, :][~np.broadcast_to(y_mask[:, None, None], scores.shape)] == 0).all()
    np.testing.assert_allclose(scores[:2].sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("make", [layers.Attention, layers.AdditiveAttention])
def test_attention_without_heads_scores_each_pair(make: Any, tensors: Any) -> None:
    x, y = tensors
    y_mask = np.array([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]], bool)
    layer = make(use_scale=False)
    expected = np.zeros_like(x)
    for n in range(3):
        for i in range(QUERIES):
            pairs = [(q_k := x[n, i] + k, x[n, i] @ k) for k in y[n]]
            scores = np.array([dot if make is layers.Attention else np.tanh(total).sum() for total, dot in pairs])
            powers = np.exp(scores - scores.max()) * y_mask[n]
            expected[n, i] = powers / powers.sum() @ y[n]
            assert q_k.shape == (FEATURES,)
    np.testing.assert_allclose(run(layer, x, y, masks=[None, y_mask]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("equation", ["ab,bc->ac", "abc,cd->abd", "abc,cde->abde", "abcd,cde->abe", "abc,bcd->abd"])
def test_einsum_dense_is_an_einsum(equation: str, rng: np.random.Generator) -> None:
    extents = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6}
    inputs, _, result = equation.replace("->", ",").split(",")
    x = rng.normal(size=[extents[a] for a in inputs]).astype(np.float32)
    layer = EinsumDense(equation, tuple(extents[a] for a in result[1:]), bias_axes=result[-1])
    received = run(layer, x)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(received, np.einsum(equation, x, kernel) + bias, rtol=1e-5, atol=1e-6)
