"""Functions of keras.ops in graphs: Keras builds and saves, kcompile reads and gives the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kcompile import frontend

pytestmark = pytest.mark.oracle

# Functions of a tensor f32[N, 4, 6].
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "scalars": lambda x: 2 - (x * 3 + 1) / 4.0 - (-x) ** 2,
    "integers and floats": lambda x: ops.cast(x * 4, "int32") / 3 + ops.cast(x, "int32") * 0.5,
    "comparisons": lambda x: ops.where(x > 0.5, x, ops.where(x <= -0.5, 0.0, -x)),
    "logic": lambda x: ops.cast(ops.logical_or(ops.logical_and(x > 0, x < 1), ops.logical_not(x > -1)), "float32"),
    "bounds": lambda x: ops.minimum(ops.maximum(x, -0.3), 0.8) + ops.clip(x, -0.2, 0.4),
    "unary": lambda x: ops.exp(ops.sin(x)) + ops.cos(x) * ops.tanh(x) + ops.sqrt(ops.abs(x)) + ops.log(x * x + 1),
    "rounding": lambda x: ops.floor(x * 3) + ops.ceil(x * 5) + ops.sign(x) + ops.round(x * 2),
    "roots": lambda x: ops.rsqrt(ops.square(x) + 1) + ops.reciprocal(ops.abs(x) + 1) + ops.erf(x),
    "activations": lambda x: ops.relu(x) + ops.sigmoid(x) + ops.gelu(x) + ops.silu(x) + ops.leaky_relu(x, 0.1),
    "softmaxes": lambda x: ops.softmax(x, axis=1) + ops.log_softmax(x) + ops.softplus(x) + ops.elu(x, 0.5),
    "sums": lambda x: ops.sum(x, axis=1) + ops.mean(x, axis=-2) + ops.max(x, axis=1) * ops.min(x, axis=1),
    "all axes kept": lambda x: ops.sum(x, axis=(1, 2), keepdims=True) * ops.prod(x, axis=2, keepdims=True),
    "spread": lambda x: ops.std(x, axis=-1) + ops.var(x, axis=2),
    "any and all": lambda x: ops.cast(ops.any(x > 1, axis=1), "int32") + ops.cast(ops.all(x > -1, axis=1), "int32"),
    "positions": lambda x: ops.argmax(x, axis=-1) + ops.argmin(x, axis=2),
    "running sum": lambda x: ops.cumsum(x, axis=1),
    "shapes": lambda x: ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, 3, 8)),
    "new axes": lambda x: ops.squeeze(ops.expand_dims(ops.swapaxes(x, 1, 2), axis=2), axis=2),
    "joining": lambda x: ops.concatenate([x, x * 2, ops.stack([x[:, 0], x[:, -1]], axis=1)], axis=1),
    "cutting": lambda x: ops.concatenate(ops.split(x, 3, axis=-1)[::-1], axis=1),
    "cutting at places": lambda x: ops.concatenate(ops.split(x, [1, 4], axis=-1)[::-1], axis=-1),
    "indices": lambda x: x[:, -1, 2:5] + x[:, 1, ::-2],
    "ellipsis and new axis": lambda x: x[..., None, 1:] * x[:, :, :1][:, :, None],
    "matrix product": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
    "tiles and borders": lambda x: ops.pad(ops.tile(x, (1, 2, 1)), ((0, 0), (1, 0), (0, 2))) + 1,
    "taking": lambda x: ops.take(x, [3, 0, 0], axis=1) + ops.flip(x, axis=1)[:, :3],
    "like": lambda x: ops.ones_like(x) * 3 + ops.zeros_like(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_in_a_graph_do_as_in_keras(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    keras.backend.clear_session()
    x = keras.Input((4, 6))
    theirs = keras.Model(x, FUNCTIONS[name](x))
    theirs.save(tmp_path / "m.keras")
    ours = frontend.load_model(tmp_path / "m.keras")
    array = rng.normal(size=(3, 4, 6)).astype(np.float32)
    expected = theirs.predict(array, verbose=0)
    got = ours.predict(array)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=5e-6 * np.abs(expected).max())


def test_functions_among_layers_are_saved_for_keras(tmp_path: Path, rng: np.random.Generator) -> None:
    keras.backend.clear_session()
    x = keras.Input((4, 6))
    y = keras.layers.Dense(6)(x[:, 1:] * 2.0)
    theirs = keras.Model(x, keras.layers.Add()([ops.relu(y), y + 1]))
    theirs.save(tmp_path / "theirs.keras")
    frontend.load_model(tmp_path / "theirs.keras").save(tmp_path / "ours.keras")
    array = rng.normal(size=(3, 4, 6)).astype(np.float32)
    again = keras.models.load_model(tmp_path / "ours.keras")
    np.testing.assert_allclose(again.predict(array, verbose=0), theirs.predict(array, verbose=0), rtol=1e-6)
