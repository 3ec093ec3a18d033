"""Dtype policies against Keras: what is computed in half precision, what is not, and what comes out."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from tests.oracle.layer_oracle import check

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(29)

CASES: dict[str, Callable[..., Any]] = {
    "dense": lambda L, x, d: L.Dense(4, "relu", dtype=d)(x),
    "conv": lambda L, x, d: L.Conv1D(4, 2, dtype=d)(x),
    "batch": lambda L, x, d: L.BatchNormalization(dtype=d)(x),
    "layer": lambda L, x, d: L.LayerNormalization(dtype=d)(x),
    "group": lambda L, x, d: L.GroupNormalization(2, dtype=d)(x),
    "rms": lambda L, x, d: L.RMSNormalization(dtype=d)(x),
    "softmax": lambda L, x, d: L.Softmax(dtype=d)(x),
    "lstm": lambda L, x, d: L.LSTM(3, dtype=d)(x),
    "gru": lambda L, x, d: L.Bidirectional(L.GRU(3, dtype=d), dtype=d)(x),
    "heads": lambda L, x, d: L.MultiHeadAttention(2, 3, dtype=d)(x, x),
    "pool": lambda L, x, d: L.GlobalAveragePooling1D(dtype=d)(x),
    "add": lambda L, x, d: L.Add(dtype=d)([x, x]),
    "chain": lambda L, x, d: L.Dense(3)(L.Dense(4, dtype=d)(x)),
}


PAIRS = [(name, policy) for name in CASES for policy in ("mixed_float16", "float16", "float64")]


# Keras's JAX backend draws no orthogonal matrices in half precision.
@pytest.mark.parametrize(("name", "policy"), [p for p in PAIRS if p not in (("lstm", "float16"), ("gru", "float16"))])
def test_policies_agree(name: str, policy: str) -> None:
    x = RNG.normal(size=(2, 5, 4)).astype(np.float32)
    # Sums of half-precision numbers in another order differ in their last digits.
    rtol, atol = (1e-5, 1e-5) if policy == "float64" else (2e-2, 4e-3)
    with jax.enable_x64(policy == "float64"):
        check(lambda L, x: CASES[name](L, x, policy), x, rtol=rtol, atol=atol, configs=False)
