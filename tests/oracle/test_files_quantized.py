"""Models that real Keras quantised to 4 bits, float8, GPTQ and AWQ, in both of its formats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.quantizers import AbsMaxQuantizer, Int4QuantizationConfig

import kcompile

pytestmark = pytest.mark.oracle

IDS = np.random.default_rng(1).integers(0, 10, (3, 6)).astype(np.int32)


def ids_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    ids = keras.Input((6,), dtype="int32")
    table = keras.layers.ReversibleEmbedding(10, 7, tie_weights=False, logit_soft_cap=0.5)
    x = keras.layers.Dense(5, activation="relu")(keras.layers.Embedding(10, 7)(ids))
    x = keras.layers.EinsumDense("abc,cde->abde", output_shape=(None, 3, 5), bias_axes="de")(x)
    x = keras.layers.EinsumDense("abde,def->abf", output_shape=(None, 7))(x)
    return keras.Model(ids, table(keras.layers.Add()([x, table(ids)]), reverse=True))


def agrees(model: keras.Model, x: np.ndarray, path: Path) -> None:
    expected = np.asarray(model(x))
    model.save(path)
    got = kcompile.load_model(path).predict(x)
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


INT4: dict[str, dict[str, Any]] = {
    "groups of 128": {"block_size": 128},
    "small groups": {"block_size": 2},
    "no groups": {"block_size": -1},
    "inputs too": {"block_size": -1, "activation_quantizer": AbsMaxQuantizer(axis=-1)},
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", INT4)
def test_models_of_4_bits_agree(name: str, suffix: str, tmp_path: Path) -> None:
    model = ids_model()
    model.quantize(config=Int4QuantizationConfig(**INT4[name]))
    agrees(model, IDS, tmp_path / f"m{suffix}")


def test_both_ways_of_an_embedding_of_8_bits_agree(tmp_path: Path) -> None:
    model = ids_model()
    model.quantize("int8")
    agrees(model, IDS, tmp_path / "m.keras")


def test_attention_with_8_bits_inside_agrees(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    x = keras.Input((6, 8))
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 4)(x, x))
    model.quantize("int8")
    agrees(model, np.random.default_rng(2).normal(size=(3, 6, 8)).astype(np.float32), tmp_path / "m.keras")


def layers_with(policy: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input((6, 7))
    y = keras.layers.Dense(5, activation="relu", dtype=policy)(x)
    y = keras.layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 5), bias_axes="de", dtype=policy)(y)
    return keras.Model(x, keras.layers.EinsumDense("abde,def->abf", output_shape=(None, 16), dtype=policy)(y))


def float8(layer: Any, rng: np.random.Generator) -> None:
    layer.inputs_scale.assign(0.003)
    layer.kernel_scale.assign(0.002)


def packed(layer: Any, rng: np.random.Generator) -> None:
    layer.quantized_kernel.assign(rng.integers(0, 256, layer.quantized_kernel.shape).astype(np.uint8))
    layer.kernel_scale.assign(rng.uniform(0.01, 0.02, layer.kernel_scale.shape))
    layer.kernel_zero.assign(rng.integers(0, 15, layer.kernel_zero.shape))
    layer.g_idx.assign(np.sort(rng.integers(0, layer.kernel_scale.shape[1], layer.g_idx.shape)).astype(np.float32))
    if hasattr(layer, "awq_scales"):
        layer.awq_scales.assign(rng.uniform(0.5, 2, layer.awq_scales.shape))
    layer.is_gptq_calibrated = layer.is_awq_calibrated = True


# Keras 3.15 leaves the zero points out of `.keras` files of GPTQ and AWQ, and does not read them itself.
POLICIES: list[tuple[str, Callable[..., None], str]] = [
    ("float8_from_float32", float8, ".keras"),
    ("float8_from_float32", float8, ".h5"),
    *(
        (policy, packed, ".h5")
        for policy in ("gptq/4/4_from_float32", "gptq/8/-1_from_float32", "awq/4/3_from_float32")
    ),
]


@pytest.mark.parametrize(("policy", "fill", "suffix"), POLICIES, ids=lambda v: v if isinstance(v, str) else "")
def test_layers_of_other_quantisations_agree(
    policy: str, fill: Callable[..., None], suffix: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    model = layers_with(policy)
    for layer in model.layers[1:]:
        fill(layer, rng)
    agrees(model, rng.normal(size=(2, 6, 7)).astype(np.float32), tmp_path / f"m{suffix}")
