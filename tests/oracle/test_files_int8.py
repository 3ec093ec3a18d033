"""Models that real Keras quantised to int8, in both of its formats."""

from pathlib import Path

import keras
import numpy as np
import pytest

import kcompile

pytestmark = pytest.mark.oracle


def quantized(inputs: bool) -> keras.Model:
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(50, 16)(ids)
    x = keras.layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 8), bias_axes="de")(x)
    x = keras.layers.EinsumDense("abde,def->abf", output_shape=(None, 12), activation="relu")(x)
    x = keras.layers.Dense(10, activation="tanh")(x)
    model = keras.Model(ids, keras.layers.Dense(4, use_bias=False)(x))
    if inputs:
        model.quantize("int8")
    else:
        model.quantize(config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
    return model


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("inputs", [True, False])
def test_quantised_models_agree_with_keras(tmp_path: Path, suffix: str, inputs: bool) -> None:
    model = quantized(inputs)
    model.save(tmp_path / f"m{suffix}")
    x = np.random.default_rng(1).integers(0, 50, (5, 6)).astype(np.int32)
    expected = np.asarray(model(x))
    read = kcompile.load_model(tmp_path / f"m{suffix}")
    assert np.abs(read.predict(x) - expected).max() < 1e-5 * np.abs(expected).max()
