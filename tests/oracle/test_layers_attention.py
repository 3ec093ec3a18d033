"""Attention layers against Keras, with every kind of mask."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.layer_oracle import check

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(19)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def padded(*shape: int) -> np.ndarray:
    x = floats(*shape)
    x[0, -2:], x[1, -1:] = 0, 0
    return x


@settings(max_examples=40)
@given(st.data())
def test_multi_head_attention_agrees(data: st.DataObject) -> None:
    draw = data.draw
    arguments: dict[str, Any] = {
        "num_heads": draw(st.integers(1, 3)),
        "key_dim": draw(st.integers(1, 4)),
        "value_dim": draw(st.sampled_from([None, 3])),
        "dropout": draw(st.sampled_from([0.0, 0.3])),
        "use_bias": draw(st.booleans()),
        "output_shape": draw(st.sampled_from([None, 5, (2, 3)])),
        "use_gate": draw(st.booleans()),
        "sliding_window": draw(st.sampled_from([None, 2])),
    }
    causal, scores, carried = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    if arguments["dropout"] == 0 and not scores:
        # Keras's JAX kernel needs heads of one size.
        arguments["value_dim"] = None
    how = draw(st.sampled_from(["self", "cross", "key"]))
    explicit = draw(st.booleans())

    def build(L: Any, x: Any, y: Any, z: Any, m: Any) -> Any:
        layer = L.MultiHeadAttention(**arguments)
        x, y = (L.Masking()(x), L.Masking()(y)) if carried else (x, y)
        named: dict[str, Any] = {"attention_mask": m} if explicit else {}
        named |= {"use_causal_mask": True} if causal else {}
        named |= {"return_attention_scores": True} if scores else {}
        if how == "self":
            return [layer(x, x, **named), y, z, m]
        return [layer(x, y, **(named | {"key": z} if how == "key" else named)), m]

    mask = RNG.random((3, 5, 5)) > 0.3
    check(build, padded(3, 5, 4), padded(3, 5, 4), floats(3, 5, 6), mask, configs=False)


def test_masked_queries_pass_their_mask_on() -> None:
    def build(L: Any, x: Any) -> Any:
        x = L.Masking()(x)
        y = L.MultiHeadAttention(2, 3)(x, x)
        return L.GlobalAveragePooling1D()(L.LayerNormalization()(L.Add()([x, y])))

    check(build, padded(3, 5, 4), atol=1e-5, configs=False)


def test_attention_masks_of_all_shapes_agree() -> None:
    def build(L: Any, x: Any, m: Any) -> Any:
        return L.MultiHeadAttention(2, 3)(x, x, attention_mask=m)

    x = floats(3, 5, 4)
    for shape in [(3, 5, 5), (3, 1, 5), (3, 2, 5, 5), (3, 1, 1, 5)]:
        check(build, x, RNG.random(shape) > 0.3, configs=False)
    check(build, x, (RNG.random((3, 5, 5)) > 0.3).astype(np.int32), configs=False)


def test_open_lengths_agree() -> None:
    def build(L: Any, x: Any) -> Any:
        return L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)

    def masked(L: Any, x: Any) -> Any:
        x = L.Embedding(6, 4, mask_zero=True)(x)
        return L.MultiHeadAttention(2, 3, dropout=0.1)(x, x, use_causal_mask=True)

    check(build, floats(2, 5, 4), shapes=[(None, 4)], configs=False)
    check(masked, RNG.integers(0, 6, (2, 5)).astype(np.int32), shapes=[(None,)], configs=False)


@pytest.mark.parametrize("axes", [None, 1, 2, (1, 2), -2, (-3, -2)])
@pytest.mark.parametrize("scores", [False, True])
def test_attention_over_several_axes_agrees(axes: Any, scores: bool) -> None:
    def build(L: Any, x: Any) -> Any:
        layer = L.MultiHeadAttention(2, 3, attention_axes=axes)
        return layer(x, x, return_attention_scores=scores)

    check(build, floats(2, 3, 4, 5), configs=False)


@settings(max_examples=20)
@given(st.data())
def test_group_query_attention_agrees(data: st.DataObject) -> None:
    draw = data.draw
    arguments = {
        "head_dim": draw(st.integers(1, 4)),
        "num_query_heads": 4,
        "num_key_value_heads": draw(st.sampled_from([1, 2, 4])),
        "dropout": draw(st.sampled_from([0.0, 0.3])),
        "use_bias": draw(st.booleans()),
        "use_gate": draw(st.booleans()),
        "sliding_window": draw(st.sampled_from([None, 2])),
    }
    causal, scores, carried = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())

    def build(L: Any, x: Any, y: Any) -> Any:
        x, y = (L.Masking()(x), L.Masking()(y)) if carried else (x, y)
        named: dict[str, Any] = {"use_causal_mask": True} if causal else {}
        named |= {"return_attention_scores": True} if scores else {}
        return L.GroupQueryAttention(**arguments)(x, y, **named)

    check(build, padded(3, 5, 4), padded(3, 5, 4), configs=False)


@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_additive_attention_agree(use_scale: bool, masked: bool, causal: bool) -> None:
    def build(L: Any, layer: Any, x: Any, y: Any, z: Any, scores: bool) -> Any:
        x, y = (L.Masking()(x), L.Masking()(y)) if masked else (x, y)
        tensors = [x, y, z] if scores else [x, y]
        return layer(tensors, return_attention_scores=scores, use_causal_mask=causal)

    tensors = padded(3, 5, 4), padded(3, 6, 4), floats(3, 6, 4)
    for scores in (False, True):
        given = tensors if scores else tensors[:2]

        def with_layer(make: Any, scores: bool = scores, count: int = len(given)) -> Any:
            return lambda L, *ts: build(L, make(L), *ts, *[None] * (3 - count), scores=scores)

        check(with_layer(lambda L: L.Attention(use_scale)), *given)
        check(with_layer(lambda L: L.Attention(use_scale, "concat")), *given)
        check(with_layer(lambda L: L.AdditiveAttention(use_scale)), *given)
