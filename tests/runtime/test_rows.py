"""Batches whose rows cannot be computed apart."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kcompile import layers, ops
from kcompile.codegen.backends import backend
from kcompile.codegen.parity import check_graph
from kcompile.errors import InputError
from kcompile.frontend import Functional, Input
from kcompile.runtime.reference import ReferenceSession
from kcompile.runtime.signature import Signature


def model(function: Callable[[Any], Any], *shape: int | None) -> Functional:
    x = Input(shape)
    return Functional(x, function(x))


APART: dict[str, tuple[Callable[[Any], Any], tuple[int | None, ...]]] = {
    "dense": (layers.Dense(3), (4,)),
    "time distributed": (layers.TimeDistributed(layers.Conv1D(2, 3)), (None, 6, 2)),
    "attention": (lambda x: layers.MultiHeadAttention(2, 3)(x, x), (5, 4)),
    "bidirectional": (layers.Bidirectional(layers.LSTM(3, return_sequences=True)), (None, 4)),
    "groups": (layers.GroupNormalization(2), (3, 3, 4)),
    "row by row of features": (lambda x: ops.concatenate([x[:, 1:], x[:, ::-1]], axis=1), (4,)),
}
TOGETHER: dict[str, tuple[Callable[[Any], Any], tuple[int | None, ...]]] = {
    "a maximum": (lambda x: x - ops.max(x, axis=0), (4,)),
    "the second row": (lambda x: x + x[1:2], (4,)),
    "the other way round": (lambda x: ops.flip(x, axis=0), (4,)),
    "sums of all before": (lambda x: ops.cumsum(x, axis=0), (4,)),
    "twice": (lambda x: ops.tile(x, (2, 1)), (4,)),
    "one batch behind the other": (lambda x: ops.concatenate([x, -x], axis=0), (4,)),
    "stacked": (lambda x: ops.reshape(ops.stack([x, -x]), (-1, 4)), (4,)),
    "attention among rows": (lambda x: ops.softmax(x @ ops.transpose(x)) @ x, (4,)),
    "sequences as rows": (lambda x: layers.LSTM(2)(ops.transpose(x, (1, 0, 2)))[:1] + x[:, 0, :1], (3, 4)),
}


def in_parts(name: str, rng: np.random.Generator) -> tuple[Signature, np.ndarray, np.ndarray]:
    """What the model of that name gives for five rows in calls of at most two, and in one."""
    function, shape = (APART | TOGETHER)[name]
    session = ReferenceSession(model(function, *shape).trace())
    x = rng.normal(size=(5, *(extent or 4 for extent in shape))).astype(np.float32)
    return session.signature, session.predict(x, batch_size=2), session.predict(x, batch_size=5)


@pytest.mark.parametrize("name", APART)
def test_rows_that_are_computed_apart_are_split(name: str, rng: np.random.Generator) -> None:
    signature, split, whole = in_parts(name, rng)
    assert signature.batch == "N"
    np.testing.assert_allclose(split, whole, atol=1e-6)


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_that_meet_stay_together(name: str, rng: np.random.Generator) -> None:
    signature, split, whole = in_parts(name, rng)
    assert signature.batch is None
    np.testing.assert_array_equal(split, whole)


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_models_that_need_several_rows_are_verified_on_as_many(target: str, rng: np.random.Generator) -> None:
    graph = model(lambda x: layers.Dense(3)(x) + layers.Dense(3)(x)[2:3], 4).trace()
    session = backend(target).session(graph)
    assert session.signature.minimums == {"N": 3}
    assert check_graph(graph, session).agrees
    with pytest.raises(InputError, match="must be at least 3"):
        session.predict(rng.normal(size=(2, 4)).astype(np.float32))
