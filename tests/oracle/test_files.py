"""Files between Keras and kcompile, both ways, and the same program in both."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from kcompile import frontend
from kcompile.frontend.naming import reset_names

pytestmark = pytest.mark.oracle

OURS = SimpleNamespace(
    Input=frontend.Input, Model=frontend.Model, Sequential=frontend.Sequential, layers=frontend.layers
)
Inputs = dict[str, np.ndarray]
TOLERANCE = 1e-5
"""Of the largest output: f32 in another order of sums."""


def multilayer_perceptron(k: Any) -> Any:
    layers = [k.layers.Dense(16, activation="relu"), k.layers.Dropout(0.3), k.layers.Dense(3, activation="softmax")]
    return k.Sequential([k.Input((5,), name="x"), *layers], name="mlp")


def shared_and_nested(k: Any) -> Any:
    steps, flat = k.Input((None, 3), name="steps"), k.Input((4,), name="flat")
    layers = [k.layers.Conv1D(2, 3, padding="same"), k.layers.BatchNormalization(), k.layers.Activation("relu")]
    inner = k.Sequential([k.Input((None, 3)), *layers], name="inner")
    x = k.Input((None, 2))
    block = k.Model(x, [k.layers.Dense(2)(x), x], name="block")
    first, second = block(inner(steps))
    pooled = [k.layers.GlobalMaxPooling1D()(y) for y in (first, second, block(first)[0])]
    shared = k.layers.Dense(2, name="shared")
    total = k.layers.Add()([shared(flat), *pooled, k.layers.Dense(2)(shared(flat))])
    return k.Model([steps, flat], [k.layers.Dense(2, name="head")(total), total], name="nested")


def dicts_all_round(k: Any) -> Any:
    inputs = {name: k.Input((3,), name=name) for name in ("zeta", "alpha")}
    merged = k.layers.Concatenate()([inputs["zeta"], inputs["alpha"]])
    return k.Model(inputs, {"sum": k.layers.Dense(2)(merged), "all": merged}, name="dicts")


def masked_recurrence(k: Any) -> Any:
    ids = k.Input((None,), dtype="int32", name="ids")
    x = k.layers.Embedding(20, 6, mask_zero=True)(ids)
    x = k.layers.Bidirectional(k.layers.LSTM(4, return_sequences=True))(x)
    x, state = k.layers.GRU(5, return_sequences=True, return_state=True)(x)
    x = k.layers.TimeDistributed(k.layers.Dense(3))(x)
    return k.Model(ids, [x, state], name="masked")


def small_image_net(k: Any) -> Any:
    image = k.Input((12, 12, 3), name="image")
    x = k.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = skip = k.layers.ReLU(max_value=6.0)(k.layers.BatchNormalization(momentum=0.9)(x))
    x = k.layers.DepthwiseConv2D(3, padding="same")(x)
    x = k.layers.Add()([k.layers.SeparableConv2D(8, 3, padding="same", activation="gelu")(x), skip])
    x = k.layers.LayerNormalization()(k.layers.AveragePooling2D(2)(k.layers.ZeroPadding2D(1)(x)))
    return k.Model(image, k.layers.Dense(4)(k.layers.Flatten()(x)), name="image_net")


def attention_block(k: Any) -> Any:
    x = k.Input((7, 8), name="x")
    y = k.layers.MultiHeadAttention(2, 4)(x, x)
    y = k.layers.LayerNormalization()(k.layers.Add()([x, y]))
    return k.Model(x, k.layers.GlobalAveragePooling1D()(y), name="attention")


BUILDERS: list[Callable[[Any], Any]] = [
    multilayer_perceptron,
    shared_and_nested,
    dicts_all_round,
    masked_recurrence,
    small_image_net,
    attention_block,
]


@pytest.fixture(params=BUILDERS, ids=lambda builder: builder.__name__)
def builder(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    keras.backend.clear_session()
    reset_names()
    return request.param


def randomised(model: Any, rng: np.random.Generator) -> Any:
    model.set_weights([rng.uniform(0.1, 1.0, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def inputs_for(model: Any, rng: np.random.Generator) -> Any:
    """Arrays in the structure that the model takes; open extents are 6, numbers of words below 20."""

    def array(tensor: Any) -> np.ndarray:
        shape = [4, *(6 if extent is None else extent for extent in tensor.shape[1:])]
        drawn = (
            rng.integers(0, 20, shape) * (rng.random(shape) < 0.7) if "int" in tensor.dtype else rng.normal(size=shape)
        )
        return drawn.astype(tensor.dtype)

    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(array, structure)


def assert_same(got: Any, expected: Any) -> None:
    keras.tree.assert_same_structure(got, expected)
    for y, wanted in zip(keras.tree.flatten(got), keras.tree.flatten(expected), strict=True):
        assert y.shape == wanted.shape
        assert np.abs(y - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_keras_saves_we_read(
    builder: Callable[[Any], Any], suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    theirs = randomised(builder(keras), rng)
    theirs.save(tmp_path / f"m{suffix}")
    ours = frontend.load_model(tmp_path / f"m{suffix}")
    x = inputs_for(theirs, rng)
    assert ours.input_names == [tensor.name for tensor in theirs.inputs]
    if not isinstance(ours.output, dict):
        assert ours.output_names == getattr(theirs, "output_names", ours.output_names)
    assert_same(ours.predict(x), theirs.predict(x, verbose=0))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_we_save_keras_reads(
    builder: Callable[[Any], Any], suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    ours = randomised(builder(OURS), rng)
    ours.save(tmp_path / f"m{suffix}")
    theirs = keras.models.load_model(tmp_path / f"m{suffix}")
    x = inputs_for(theirs, rng)
    assert_same(ours.predict(x), theirs.predict(x, verbose=0))
    theirs.save(tmp_path / f"again{suffix}")
    assert_same(frontend.load_model(tmp_path / f"again{suffix}").predict(x), ours.predict(x))


def test_the_same_program_makes_the_same_model(builder: Callable[[Any], Any]) -> None:
    theirs, ours = builder(keras), builder(OURS)
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    if builder is masked_recurrence:
        return  # Keras shows the functions that compute masks as if they were layers
    for line_length in (60, 78):
        assert summary_of(ours, line_length) == summary_of(theirs, line_length)


def summary_of(model: Any, line_length: int) -> str:
    texts: list[str] = []
    model.summary(line_length=line_length, print_fn=lambda text, **_: texts.append(text.rstrip()))
    return "\n".join(texts)


def test_weights_alone_go_both_ways(builder: Callable[[Any], Any], tmp_path: Path, rng: np.random.Generator) -> None:
    theirs, ours = randomised(builder(keras), rng), builder(OURS)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.load_weights(tmp_path / "theirs.weights.h5")
    x = inputs_for(theirs, rng)
    assert_same(ours.predict(x), theirs.predict(x, verbose=0))

    randomised(ours, rng).save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
    assert_same(ours.predict(x), theirs.predict(x, verbose=0))


def test_json_goes_both_ways(builder: Callable[[Any], Any]) -> None:
    theirs, ours = builder(keras), builder(OURS)
    assert frontend.model_from_json(theirs.to_json()).count_params() == theirs.count_params()
    assert keras.models.model_from_json(ours.to_json()).count_params() == ours.count_params()


def test_frozen_layers_inside_a_model_are_read_from_h5(tmp_path: Path, rng: np.random.Generator) -> None:
    """What is frozen stands last in the list of a model's arrays."""
    keras.backend.clear_session()
    names = ["a", "b", "c"]
    norms = [keras.layers.BatchNormalization(name=name) for name in names]
    inner = keras.Sequential([keras.Input((4,)), *norms], name="inner")
    norms[0].trainable = False
    theirs = randomised(keras.Sequential([keras.Input((4,)), inner]), rng)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    for freeze_all in (False, True):
        inner.trainable = not freeze_all
        theirs.save(tmp_path / "m.h5")
        assert_same(frontend.load_model(tmp_path / "m.h5").predict(x), theirs.predict(x, verbose=0))


def test_a_layer_that_is_used_inside_and_outside_a_model_stays_one(tmp_path: Path, rng: np.random.Generator) -> None:
    keras.backend.clear_session()
    shared = keras.layers.Dense(4, name="shared")
    x = keras.Input((4,))
    inner = keras.Model(x, shared(x), name="inner")
    y = keras.Input((4,))
    theirs = randomised(keras.Model(y, shared(inner(y))), rng)
    theirs.save(tmp_path / "m.keras")  # Keras itself cannot read it
    ours = frontend.load_model(tmp_path / "m.keras")
    assert len(ours.weights) == 2
    array = rng.normal(size=(3, 4)).astype(np.float32)
    assert_same(ours.predict(array), theirs.predict(array, verbose=0))


def test_keras_reads_a_layer_that_we_share_between_models_as_two(tmp_path: Path, rng: np.random.Generator) -> None:
    shared = frontend.layers.Dense(4, name="shared")
    x, y = frontend.Input((4,)), frontend.Input((4,))
    ours = frontend.Model(y, shared(frontend.Model(x, shared(x), name="inner")(y)))
    ours.save(tmp_path / "m.keras")
    theirs = keras.models.load_model(tmp_path / "m.keras")
    array = rng.normal(size=(3, 4)).astype(np.float32)
    assert_same(ours.predict(array), theirs.predict(array, verbose=0))


def test_calls_that_were_not_kept_do_not_shift_the_others(tmp_path: Path, rng: np.random.Generator) -> None:
    keras.backend.clear_session()
    shared = keras.layers.Dense(4, name="shared")
    x, other = keras.Input((4,)), keras.Input((4,))
    shared(other)
    theirs = randomised(keras.Model(x, [shared(shared(x)), shared(x)]), rng)
    array = rng.normal(size=(3, 4)).astype(np.float32)
    for suffix in (".keras", ".h5"):
        theirs.save(tmp_path / f"m{suffix}")
        assert_same(frontend.load_model(tmp_path / f"m{suffix}").predict(array), theirs.predict(array, verbose=0))
