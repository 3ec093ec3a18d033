"""Models that are valid but unusual, in both formats: what they nest, share, name and pass on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

from kcompile.frontend import load_model

pytestmark = pytest.mark.oracle


def functional_in_sequential_in_functional() -> Any:
    x = Input((4,))
    inner = Model(x, layers.Dense(3, name="d")(x), name="inner")
    seq = keras.Sequential([Input((4,)), layers.Dense(4, name="d"), inner, layers.Dense(2, name="e")], name="seq")
    a = Input((4,), name="a")
    return Model(a, [seq(a), inner(a)])


def states_out_of_a_dict_of_a_model() -> Any:
    x = Input((5, 3))
    y, *states = layers.LSTM(4, return_sequences=True, return_state=True)(x)
    encoder = Model(x, {"seq": y, "state": states}, name="encoder")
    a = Input((5, 3))
    found = encoder(a)
    return Model(a, {"y": layers.LSTM(4)(found["seq"], initial_state=found["state"]), "seq": found["seq"]})


def dicts_and_lists_in_a_model_inside() -> Any:
    p, q = Input((3,), name="p"), Input((2,), name="q")
    inner = Model({"x": p, "y": q}, {"o": layers.Dense(4)(p), "n": [q, q * 2]}, name="inner")
    a, b = Input((2,), name="a"), Input((3,), name="b")
    found = inner({"x": b, "y": a})
    return Model((a, b), (found["o"], [found["n"][1], a]))


def names_of_all_kinds() -> Any:
    a = Input((4,), name="eingäbe")
    x = a
    for name in ("ö dense.1", "a-b c", "Dense", "dense", "1", "vars", "layers", "kernel", "_x"):
        x = layers.Dense(4, name=name)(x)
    return Model(a, x, name="mödel 1")


def names_that_collide_in_models_inside() -> Any:
    def block(name: str) -> Any:
        x = Input((4,))
        return Model(x, layers.Dense(4, name="dense")(layers.BatchNormalization(name="bn")(x)), name=name)

    a = Input((4,))
    return Model(a, layers.Dense(2, name="dense")(block("b")(block("a")(a))))


def masks_through_models() -> Any:
    x = Input((None,), dtype="int32")
    embedding = Model(x, layers.Embedding(20, 4, mask_zero=True)(x), name="embedding")
    steps = Input((None, 4))
    recurrent = Model(steps, layers.LSTM(3, return_sequences=True)(steps), name="recurrent")
    a = Input((None,), dtype="int32")
    return Model(a, [layers.GlobalAveragePooling1D()(embedding(a)), layers.GRU(2)(recurrent(embedding(a)))])


def one_layer_with_several_arguments() -> Any:
    a, mask, h = Input((5, 4)), Input((5,), dtype="bool"), Input((3,))
    shared = layers.LSTM(3, return_sequences=True)
    return Model([a, mask, h], [shared(a), shared(a, mask=mask), shared(a * 2, initial_state=[h, h])])


def one_layer_inside_and_outside() -> Any:
    shared = layers.Dense(4, name="shared")
    x, y, a = Input((4,)), Input((4,)), Input((4,))
    once = Model(x, shared(x), name="once")
    twice = Model(y, shared(shared(y)), name="twice")
    return Model(a, [once(a), twice(a), shared(a), a, a])


def a_part_of_a_model() -> Any:
    a = Input((4,))
    whole = Model(a, layers.Dense(2, name="y")(layers.Dense(3, name="x")(a)))
    return Model(whole.get_layer("x").output, whole.output)


def low_rank_updates() -> Any:
    dense, conv = layers.Dense(4), layers.Conv1D(5, 2)
    x, a = Input((6, 4)), Input((6, 4))
    inner = Model(x, dense(x), name="inner")
    model = Model(a, conv(inner(a)))
    dense.enable_lora(2, lora_alpha=3)
    conv.enable_lora(2)
    return model


def operations_with_and_without_keywords() -> Any:
    a, b = Input((4, 6)), Input((4, 6))
    total = ops.where(a > b, ops.maximum(a, 0.3), x2=b)
    joined = ops.concatenate([a[..., :2], b[:, :, -2:]], axis=-1)
    return Model([a, b], [total, joined, ops.reshape(a, (-1, 12)), 2 / (a * a + 1), ops.einsum("nij,nkj->nik", a, b)])


BUILDERS = [
    functional_in_sequential_in_functional,
    states_out_of_a_dict_of_a_model,
    dicts_and_lists_in_a_model_inside,
    names_of_all_kinds,
    names_that_collide_in_models_inside,
    masks_through_models,
    one_layer_with_several_arguments,
    one_layer_inside_and_outside,
    a_part_of_a_model,
    low_rank_updates,
    operations_with_and_without_keywords,
]


def array_for(tensor: Any, rng: np.random.Generator) -> np.ndarray:
    shape = [3, *(6 if extent is None else extent for extent in tensor.shape[1:])]
    if "int" in tensor.dtype:
        return rng.integers(0, 9, shape).astype(tensor.dtype)
    return rng.random(shape) > 0.4 if tensor.dtype == "bool" else rng.normal(size=shape).astype(tensor.dtype)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_unusual_models_give_what_keras_gives(
    builder: Callable[[], Any], suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    keras.backend.clear_session()
    theirs = builder()
    theirs.set_weights([rng.uniform(0.1, 1.0, w.shape).astype(w.dtype) for w in theirs.get_weights()])
    theirs.save(tmp_path / f"m{suffix}")
    x = keras.tree.map_structure(lambda tensor: array_for(tensor, rng), theirs.input)
    expected, received = theirs(x), load_model(tmp_path / f"m{suffix}").predict(x)
    for wanted, y in zip(keras.tree.flatten(expected), keras.tree.flatten(received), strict=True):
        wanted = np.asarray(wanted)
        assert y.shape == wanted.shape
        np.testing.assert_allclose(y, wanted, atol=1e-5 * np.abs(wanted).max())
