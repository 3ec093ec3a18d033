"""Lookups and codes against dictionaries and counters."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import layers
from tests.frontend.errors import error_of
from tests.frontend.layers.support import run

VOCABULARIES = {"dense": [12, 36, 5, 20], "sparse": [12, 3_000_000_000, -7, 20]}


@pytest.mark.parametrize("kind", list(VOCABULARIES))
@pytest.mark.parametrize("mask_token", [None, 0])
@pytest.mark.parametrize("unknown", [1, 3])
def test_integer_lookup_is_a_dictionary(kind: str, mask_token: int | None, unknown: int) -> None:
    vocabulary = VOCABULARIES[kind]
    layer = layers.IntegerLookup(num_oov_indices=unknown, mask_token=mask_token, vocabulary=vocabulary)
    shift = 0 if mask_token is None else 1
    places = {token: place for place, token in enumerate(vocabulary, shift + unknown)}
    x = np.array([[12, 20, 5, 0], [37, -7, -1, 36], [3_000_000_000, 7, 8, 1]], np.int64)
    expected = [[0 if v == mask_token else places.get(v, shift + v % unknown) for v in map(int, row)] for row in x]
    np.testing.assert_array_equal(run(layer, x), expected)


def test_integer_lookup_codes_count_places() -> None:
    x = np.array([[12, 20, 12], [99, 5, 36]], np.int64)
    counts = run(layers.IntegerLookup(vocabulary=VOCABULARIES["dense"], output_mode="count"), x)
    np.testing.assert_array_equal(counts, [[0, 2, 0, 0, 1], [1, 0, 1, 1, 0]])
    hot = run(layers.IntegerLookup(vocabulary=VOCABULARIES["dense"], output_mode="multi_hot"), x)
    np.testing.assert_array_equal(hot, counts > 0)
    weighted = layers.IntegerLookup(
        vocabulary=VOCABULARIES["dense"], output_mode="tf_idf", idf_weights=[1.0, 2.0, 3.0, 6.0]
    )
    np.testing.assert_allclose(run(weighted, x), counts * [3.0, 1.0, 2.0, 3.0, 6.0])


def test_integer_lookup_runs_the_other_way_round() -> None:
    layer = layers.IntegerLookup(vocabulary=[12, 36], mask_token=0, invert=True)
    np.testing.assert_array_equal(run(layer, np.array([[0, 1, 2, 3, 4, -1]], np.int64)), [[0, -1, 12, 36, -1, -1]])


def test_a_vocabulary_may_begin_with_the_special_tokens() -> None:
    layer = layers.IntegerLookup(vocabulary=[0, -1, 12, 36], mask_token=0)
    np.testing.assert_array_equal(run(layer, np.array([[0, 5, 12, 36]], np.int64)), [[0, 1, 2, 3]])


@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count"])
def test_category_encoding_counts(mode: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 4, (3, 1 if mode == "one_hot" else 5)).astype(np.int32)
    expected = np.zeros((3, 4))
    for row, tokens in enumerate(x):
        for token, count in Counter(tokens.tolist()).items():
            expected[row, token] = count if mode == "count" else 1
    np.testing.assert_array_equal(run(layers.CategoryEncoding(4, mode), x), expected)


def test_discretization_counts_the_boundaries_below() -> None:
    x = np.array([[-2.0, -1.0, 0.4, 0.5, 9.0]], np.float32)
    np.testing.assert_array_equal(run(layers.Discretization([-1.0, 0.5, 2.0]), x), [[0, 1, 1, 2, 3]])


def test_scaling_follows_its_formula(rng: np.random.Generator) -> None:
    x = rng.integers(0, 255, (2, 3, 3)).astype(np.uint8)
    np.testing.assert_allclose(run(layers.Rescaling(1 / 127.5, -1.0), x), x / 127.5 - 1, rtol=1e-6, atol=1e-6)
    array = {"class_name": "__numpy__", "config": {"value": [1.0, 2.0, 3.0], "dtype": "float64"}}
    np.testing.assert_allclose(run(layers.Rescaling(array), x), x * np.array([1.0, 2.0, 3.0]), rtol=1e-6)
    mean, variance = [1.0, 2.0, 3.0], [4.0, 0.0, 9.0]
    expected = (x - np.array(mean)) / np.maximum(np.sqrt(variance), 1e-7)
    np.testing.assert_allclose(run(layers.Normalization(mean=mean, variance=variance), x), expected, rtol=1e-6)


REFUSED: list[tuple[Any, str]] = [
    (
        lambda: layers.CategoryEncoding(4, "int", name="c"),
        '`output_mode` of layer `c` must be "multi_hot", "one_hot", "count". Received: output_mode=\'int\'.',
    ),
    (
        lambda: layers.CategoryEncoding(4, sparse=True, name="c"),
        "`sparse` of layer `c` must be False: kcompile has dense tensors only. Received: sparse=True.",
    ),
    (
        lambda: layers.Discretization(num_bins=3, name="d"),
        "`bin_boundaries` of layer `d` must be given: the layer was never adapted. Received: bin_boundaries=None.",
    ),
    (
        lambda: layers.Rescaling("big", name="r"),
        "`scale` of layer `r` must be a number or an array of numbers. Received: scale='big'.",
    ),
]


@pytest.mark.parametrize(("make", "text"), REFUSED)
def test_what_has_no_meaning_here_is_refused(make: Any, text: str) -> None:
    assert error_of(ModelError, make) == text
