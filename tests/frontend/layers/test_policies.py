"""Dtype policies: which dtype weights, computations and results have."""

from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import Input, layers
from tests.frontend.errors import error_of
from tests.frontend.layers.support import run


@pytest.mark.parametrize(
    ("policy", "variables", "results"),
    [
        ("float32", "float32", "float32"),
        ("mixed_float16", "float32", "float16"),
        ("float16", "float16", "float16"),
        ("float64", "float64", "float64"),
    ],
)
def test_a_policy_says_the_dtype_of_weights_and_results(policy: str, variables: str, results: str) -> None:
    for layer in (
        layers.Dense(3, dtype=policy),
        layers.BatchNormalization(dtype=policy),
        layers.LayerNormalization(dtype=policy),
        layers.LSTM(3, dtype=policy),
        layers.Bidirectional(layers.GRU(3, dtype=policy), dtype=policy),
    ):
        assert layer(Input((5, 4))).dtype == results
        assert {str(w.value.dtype) for w in layer.weights} == {variables}


def test_normalizations_compute_in_single_precision() -> None:
    x = np.array([[60000.0, -60000.0, 1.0, 2.0]], np.float32)
    y = run(layers.LayerNormalization(dtype="mixed_float16"), x)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, [[np.sqrt(2), -np.sqrt(2), 0, 0]], atol=2e-3)


def test_a_policy_may_be_a_config() -> None:
    spec: Any = {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": "mixed_float16"},
        "registered_name": None,
    }
    assert layers.Dense(3, dtype=spec).dtype == "mixed_float16"


def test_dtypes_that_do_not_exist_here_are_refused() -> None:
    text = error_of(ModelError, lambda: layers.Dense(3, dtype="mixed_bfloat16", name="d"))
    law = '`dtype` of layer `d` must be a dtype, or the policy "mixed_float16"'
    assert text == f"{law}. Received: dtype='mixed_bfloat16'."
