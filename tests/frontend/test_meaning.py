"""What files of one age or policy mean where another's would mean something else."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kcompile
from kcompile.errors import ModelError
from kcompile.frontend import Input, Model, Sequential, layers, load_model
from tests.frontend.errors import error_of
from tests.frontend.old_files import dense_weights, functional, layer, sequential, write_h5


def two_masks(class_name: str, version: str, folder: Path, second_masked: bool) -> Model:
    """A merge of two sequences, one or both masked at 0, before a recurrent layer that counts the steps seen."""
    inputs = [layer("InputLayer", name=name, batch_input_shape=[None, 3], dtype="int32") for name in "ab"]
    tables = [
        layer("Embedding", [[[name, 0, 0, {}]]][0], name=f"e{name}", input_dim=3, output_dim=1, mask_zero=masked)
        for name, masked in (("a", True), ("b", second_masked))
    ]
    merge = layer(class_name, [["ea", 0, 0, {}], ["eb", 0, 0, {}]], name="m")
    rnn = layer("SimpleRNN", [["m", 0, 0, {}]], name="r", units=1, activation="linear", use_bias=False)
    spec = functional("f", [*inputs, *tables, merge, rnn], [["a", 0, 0], ["b", 0, 0]], [["r", 0, 0]])
    table = np.array([[1.0], [2.0], [4.0]], np.float32)
    ones = np.ones((1, 1), np.float32)
    groups = {
        "ea": {"ea/embeddings:0": table},
        "eb": {"eb/embeddings:0": 10 * table},
        "r": {"r/kernel:0": ones, "r/recurrent_kernel:0": ones},
    }
    return load_model(write_h5(folder / f"{version}.h5", spec, groups, version))


A, B = np.array([[0, 1, 2]], np.int32), np.array([[1, 0, 2]], np.int32)


@pytest.mark.parametrize("second_masked", [True, False])
def test_a_merge_of_keras_2_is_masked_where_any_of_its_masks_is(tmp_path: Path, second_masked: bool) -> None:
    """Keras 3 masks where all of them do, and not at all where an input has none."""
    sums = [1 + 20, 2 + 10, 4 + 40]
    seen = [False, not second_masked, True]
    found = two_masks("Add", "2.2.4", tmp_path, second_masked).predict([A, B])
    assert found.item() == sum(s for s, counts in zip(sums, seen, strict=True) if counts)


def test_masks_of_keras_2_have_no_say_in_the_values_of_a_merge(tmp_path: Path) -> None:
    found = two_masks("Maximum", "2.4.0", tmp_path, second_masked=False).predict([A, B])
    assert found.item() == 10 + 40


def test_integers_are_promoted_beside_floats_and_in_convolutions(rng: np.random.Generator) -> None:
    image, number = Input((6, 2), name="image", dtype="uint8"), Input((4, 3), name="number")
    whole = Input((6, 2), name="k", dtype="int32")
    convolution = layers.Conv1D(3, 3)
    joined = layers.Concatenate()([convolution(image), number, layers.Cropping1D((0, 2))(whole)])
    model = Model([image, number, whole], joined)
    x = rng.integers(0, 255, (2, 6, 2)).astype(np.uint8)
    y, k = rng.normal(size=(2, 4, 3)).astype(np.float32), rng.integers(-9, 9, (2, 6, 2)).astype(np.int32)
    kernel, bias = convolution.get_weights()
    expected = sum(x[:, i : i + 4].astype(np.float32) @ kernel[i] for i in range(3)) + bias
    found = model.predict({"image": x, "number": y, "k": k})
    np.testing.assert_allclose(found, np.concatenate([expected, y, k[:, :4]], axis=-1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("make", [layers.BatchNormalization, lambda **options: layers.Dropout(0.5, **options)])
def test_a_layer_that_is_to_train_while_it_predicts_is_not_compiled(tmp_path: Path, make: Any) -> None:
    x = Input((4,), name="x")
    model = Model(x, make(name="odd")(x, training=True))
    assert error_of(ModelError, lambda: kcompile.compile(model, output=tmp_path / "m.onnx")) == (
        "layer `odd` is called with training=True, as it acts in training alone. "
        "Call it without `training`, or save the model that is to be deployed."
    )


def test_in_files_of_keras_3_the_models_own_way_of_running_is_that_of_its_layers(tmp_path: Path) -> None:
    """`predict` of Keras 3 runs all layers with training=False, whatever their calls say; RandomCrop's say True."""
    x = Input((4,), name="x")
    model = Model(x, layers.Dropout(0.5)(layers.BatchNormalization()(x, training=True), training=True))
    model.save(tmp_path / "m.keras")
    array = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(load_model(tmp_path / "m.keras").predict(array), array / np.sqrt(1.001), rtol=1e-6)


def test_a_layer_that_acts_alike_may_be_told_to_train(tmp_path: Path) -> None:
    x = Input((4,), name="x")
    inner = layers.BatchNormalization()(x, training=False)
    kcompile.compile(Model(x, layers.Dense(2)(inner, training=True)), output=tmp_path / "m.onnx")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_old_hard_sigmoid_is_not_saved_under_the_name_of_the_new(tmp_path: Path, suffix: str) -> None:
    old = layers.LSTM(2, recurrent_activation="hard_sigmoid_v2", name="l")
    model = Sequential([Input((3, 2)), layers.Bidirectional(old, name="b"), layers.Dense(1)])
    text = error_of(ModelError, lambda: model.save(tmp_path / f"m{suffix}"))
    law = "a saved model must mean the same to Keras 3, which lacks Keras 2's hard_sigmoid (0.2 x + 0.5, clipped)"
    assert text == f"{law}. Received: it in `backward_l`, `forward_l`. Save the weights alone."
    assert not list(tmp_path.iterdir())
    model.save_weights(tmp_path / "m.weights.h5")


def test_bfloat16_is_computed_in_float32(tmp_path: Path, rng: np.random.Generator) -> None:
    """Keras 3 leaves the upper halves of f32 in ``.h5`` files as 2 bytes without a type."""
    policy = {"class_name": "DTypePolicy", "config": {"name": "mixed_bfloat16"}}
    spec = sequential(
        layer("InputLayer", name="x", batch_shape=[None, 4], dtype="bfloat16"),
        layer("Dense", name="d", units=3, dtype=policy),
    )
    arrays = dense_weights(rng, "d", 4, 3)
    path = write_h5(tmp_path / "m.h5", spec, {"d": arrays}, "3.8.0")
    with h5py.File(path, "a") as root:
        group: Any = root["model_weights/d"]
        for name, array in arrays.items():
            del group[name]
            halves = (array.view(np.uint32) >> 16).astype(np.uint16)
            group.create_dataset(name, data=halves.view("V2"))
            arrays[name] = (halves.astype(np.uint32) << 16).view(np.float32)
    model = load_model(path)
    x = rng.normal(size=(2, 4)).astype(np.float32)
    assert model.predict(x).dtype == np.float32
    np.testing.assert_allclose(model.predict(x), x @ arrays["d/kernel:0"] + arrays["d/bias:0"], rtol=1e-5, atol=1e-6)
