"""``kcompile.ops``: one function on arrays, on symbolic tensors and in what is traced."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import Input, Model, layers, ops
from kcompile.errors import ModelError

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")

FUNCTIONS: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = [
    ("mean", lambda x: ops.mean(x, axis=-1, keepdims=True), lambda x: x.mean(-1, keepdims=True)),
    ("sum", lambda x: ops.sum(x, axis=(1, 2)), lambda x: x.sum((1, 2))),
    ("matmul", lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), lambda x: x @ x.transpose(0, 2, 1)),
    ("softmax", lambda x: ops.softmax(x), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    ("where", lambda x: ops.where(x > 0, x, 0.0), lambda x: np.maximum(x, 0)),
    ("concatenate", lambda x: ops.concatenate([x, x * 2], axis=1), lambda x: np.concatenate([x, x * 2], 1)),
    ("stack", lambda x: ops.stack([x, -x], axis=1), lambda x: np.stack([x, -x], 1)),
    ("reshape", lambda x: ops.reshape(x, (-1, 12)), lambda x: x.reshape(-1, 12)),
    ("clip", lambda x: ops.clip(x, -0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5)),
    ("index", lambda x: x[:, 1:, -1], lambda x: x[:, 1:, -1]),
    ("new axis", lambda x: x[..., None], lambda x: x[..., None]),
    ("arithmetic", lambda x: (1 - x) * 2 / 4 + x**2 - (-x), lambda x: (1 - x) * 2 / 4 + x**2 + x),
    ("division", lambda x: x // 0.5 + x % 0.5, lambda x: x // 0.5 + x % 0.5),
    ("array", lambda x: np.arange(4) + x @ np.eye(4), lambda x: np.arange(4) + x),
    ("logic", lambda x: ops.cast((x > 0) & (x < 1) | ~(x >= -1), "float32"), lambda x: ((x > 0) & (x < 1)) | (x < -1)),
    ("comparison", lambda x: ops.cast((x == x[:1]) != (x <= 0), "int32"), lambda x: (x == x[:1]) != (x <= 0)),
    ("log", lambda x: ops.log(ops.abs(x) + 1.0), lambda x: np.log(np.abs(x) + 1)),
    ("std", lambda x: ops.std(x, axis=1), lambda x: x.std(1)),
    ("unstack", lambda x: ops.unstack(x, axis=1)[2], lambda x: x[:, 2]),
    ("split", lambda x: ops.split(x, 2, axis=-1)[1], lambda x: x[..., 2:]),
    ("argmax", lambda x: ops.argmax(x, axis=-1), lambda x: x.argmax(-1)),
    ("rectified", lambda x: ops.relu(x) + ops.sigmoid(x) * 0, lambda x: np.maximum(x, 0)),
]


class Traced(layers.Layer):
    """Calls a function in its `call`."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


@pytest.mark.parametrize(("name", "function", "expected"), FUNCTIONS, ids=[case[0] for case in FUNCTIONS])
def test_a_function_gives_the_same_on_arrays_symbols_and_in_layers(
    name: str, function: Callable[[Any], Any], expected: Callable[[Any], Any]
) -> None:
    del name
    result = expected(X)
    inputs = Input((3, 4), batch_size=2)
    assert np.allclose(function(X), result, atol=1e-6)
    assert np.allclose(Model(inputs, function(inputs)).predict(X), result, atol=1e-6)
    assert np.allclose(Traced(function)(X), result, atol=1e-6)
    assert np.allclose(Model(inputs, Traced(function)(inputs)).predict(X), result, atol=1e-6)


def test_calls_on_symbols_stand_in_configs_as_those_of_keras() -> None:
    inputs = Input((3,), name="x")
    model = Model(inputs, ops.mean(inputs * 2.0, axis=-1, keepdims=True))
    times, mean = json.loads(model.to_json())["config"]["layers"][1:]
    assert (times["module"], times["class_name"]) == ("keras.src.ops.numpy", "Multiply")
    assert times["inbound_nodes"][0]["args"][1] == 2.0
    assert mean["config"] == {"name": mean["name"], "axis": -1, "keepdims": True}
    again = kcompile.model_from_json(model.to_json())
    assert np.array_equal(again.predict(X[:, 0, :3]), model.predict(X[:, 0, :3]))


def test_numbers_take_the_kind_of_the_tensor_beside_them() -> None:
    assert ops.add(np.array([1, 2], "int32"), 1).dtype == np.int32
    assert ops.add(np.array([1, 2], "int32"), 1.5).dtype == np.float32
    assert ops.add(np.array([1.0], "float16"), 1.5).dtype == np.float16
    assert ops.divide(np.array([1, 2]), 2).tolist() == [0.5, 1.0]
    assert ops.mean([1, 2, 4]) == np.float32(7 / 3)
    assert ops.sqrt(4.0) == 2.0


def test_tensors_are_made_from_numbers() -> None:
    assert ops.arange(3).tolist() == [0, 1, 2]
    assert ops.arange(1, 2, 0.5).tolist() == [1.0, 1.5]
    assert ops.ones((2, 3)).shape == (2, 3)
    assert ops.full((2,), 7, "int32").tolist() == [7, 7]
    assert np.array_equal(ops.eye(2), np.eye(2))
    assert ops.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert ops.convert_to_tensor([1.0, 2.0]).dtype == np.float32
    assert ops.shape(np.zeros((2, 3))) == (2, 3)
    assert ops.is_tensor(Input((3,)))
    assert not ops.is_tensor([1])


def test_loops_over_known_ranges_are_written_out() -> None:
    class Looping(layers.Layer):
        def call(self, x: Any) -> Any:
            total = ops.fori_loop(0, 3, lambda i, value: value + x * i, ops.zeros_like(x))
            chosen = ops.cond(ops.sum(x) > 1e9, lambda: total, lambda: total * 2)
            last, sums = ops.scan(lambda carry, row: (carry + row, carry + row), ops.zeros((2,)), chosen)
            return last + sums[-1]

    x = np.ones((4, 2), "float32")
    assert np.allclose(Looping()(x), np.full(2, 2 * 4 * 3 * 2))


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ModelError, match=r"kcompile.ops.mean\(x, axis=None, keepdims=False\): .*sideways"):
        ops.mean(X, sideways=1)
    with pytest.raises(ModelError, match=r"kcompile.ops.matmul does not take x1=f32\[2, 3, 4\], x2=f32\[2, 3, 4\]"):
        ops.matmul(X, X)
    with pytest.raises(AttributeError, match=r"kcompile.ops has no function 'qrst'"):
        _ = ops.qrst
    with pytest.raises(ModelError, match=r"layer `matmul.* does not accept its inputs"):
        layers.Dense(2)(Input((3,)) @ np.ones((4, 5)))


def test_functions_look_like_functions() -> None:
    assert ops.mean.__name__ == "mean"
    assert ops.mean.__doc__ == "The mean, of integers too."
    assert {"add", "matmul", "softmax", "where"} <= set(dir(ops))


def test_the_inverse_of_erf_is_inverse() -> None:
    x = np.linspace(-0.9999, 0.9999, 101).astype("float32")
    assert np.allclose(ops.erf(ops.erfinv(x)), x, atol=1e-6)


def test_random_numbers_have_their_distributions() -> None:
    kcompile.utils.set_random_seed(0)
    normal = kcompile.random.truncated_normal((20000,), stddev=2.0)
    assert np.abs(normal).max() <= 4.0
    assert np.isclose(normal.std(), 2 * 0.8796, atol=0.03)
    integers = kcompile.random.randint((20000,), 2, 5)
    assert sorted(set(integers.tolist())) == [2, 3, 4]
    drawn = kcompile.random.categorical(np.log([[0.2, 0.8]]), 5000)
    assert np.isclose(drawn.mean(), 0.8, atol=0.03)
    kept = kcompile.random.dropout(np.ones(20000, "float32"), 0.25)
    assert np.isclose((kept == 0).mean(), 0.25, atol=0.02)
    assert np.allclose(kept[kept > 0], 4 / 3)
    seeds = kcompile.random.SeedGenerator(3)
    again = kcompile.random.SeedGenerator(3)
    first = kcompile.random.uniform((3,), seed=seeds)
    assert np.array_equal(first, kcompile.random.uniform((3,), seed=again))
    assert not np.array_equal(first, kcompile.random.uniform((3,), seed=seeds))
