"""Dense, embedding and masking layers, activations and regularization against Keras."""

from typing import Any

import numpy as np
import pytest

from kcompile.frontend import activations
from tests.oracle.layer_oracle import check

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (2, 3, 2, 4)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_agrees_on_any_rank(shape: tuple[int, ...], use_bias: bool) -> None:
    check(lambda L, x: L.Dense(6, "relu", use_bias)(x), floats(*shape))


def test_dense_takes_integers() -> None:
    check(lambda L, x: L.Dense(3)(x), RNG.integers(0, 5, (4, 3)).astype(np.int32))


NAMES = sorted(activations.NAMES - {"hard_sigmoid_v2"})


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_agrees_in_an_activation_layer(name: str) -> None:
    x = np.concatenate([floats(3, 6) * 3, [[-1.0, 0.0, 1.0, 6.0, -3.0, 3.0]]]).astype(np.float32)
    check(lambda L, x: L.Activation(name)(x), x)


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_agrees_inside_dense(name: str) -> None:
    check(lambda L, x: L.Dense(4, activation=name)(x), floats(3, 5))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_value": 1.0},
        {"max_value": 6},
        {"negative_slope": 0.2},
        {"negative_slope": 0.2, "max_value": 0.7},
        {"threshold": 0.5},
        {"threshold": 0.5, "max_value": 1.0, "negative_slope": 0.3},
    ],
)
def test_relu_agrees_with_all_its_arguments(arguments: dict) -> None:
    check(lambda L, x: L.ReLU(**arguments)(x), floats(4, 9))


def test_other_activation_layers_agree() -> None:
    x = floats(4, 3, 5)
    check(lambda L, x: L.LeakyReLU()(x), x)
    check(lambda L, x: L.LeakyReLU(0.05)(x), x)
    check(lambda L, x: L.ELU(0.7)(x), x)
    check(lambda L, x: L.PReLU()(x), x)
    check(lambda L, x: L.PReLU(shared_axes=[1])(x), x)
    check(lambda L, x: L.PReLU(shared_axes=2)(x), x)
    check(lambda L, x: L.Dense(3, activation=L.LeakyReLU(0.1))(x), x)


@pytest.mark.parametrize("axis", [-1, 1, 2, [1, 2], [-1, 1], [2]])
def test_softmax_agrees_along_any_axes(axis: object) -> None:
    check(lambda L, x: L.Softmax(axis)(x), floats(2, 3, 4))


def test_softmax_zeroes_masked_elements() -> None:
    mask = np.array([[True, False, True], [False, False, False]])
    check(lambda L, x, m: L.Softmax()(x, mask=m), floats(2, 3), mask)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "uint8"])
def test_embedding_agrees_for_indices_of_any_dtype(dtype: str) -> None:
    check(lambda L, x: L.Embedding(10, 4)(x), RNG.integers(0, 10, (3, 5)).astype(dtype))


def test_masks_of_embedding_and_masking_reach_what_reads_them() -> None:
    tokens = np.array([[1, 2, 0, 3], [0, 0, 4, 0]], np.int32)
    check(lambda L, x: L.GlobalAveragePooling1D()(L.Embedding(5, 3, mask_zero=True)(x)), tokens)
    x = floats(2, 4, 3)
    x[0, 2] = 0
    x[1, :2] = 0
    check(lambda L, x: L.GlobalAveragePooling1D()(L.Masking()(x)), x)
    x[x == 0] = -1
    check(lambda L, x: L.GlobalAveragePooling1D()(L.Dense(2)(L.Dropout(0.5)(L.Masking(-1.0)(x)))), x)


def test_layers_of_training_do_nothing_at_inference() -> None:
    x = floats(2, 4, 4, 3)
    check(lambda L, x: L.Dropout(0.3, noise_shape=(None, 1, 1, 3), seed=1)(x), x)
    check(lambda L, x: L.GaussianNoise(0.3)(x), x)
    check(lambda L, x: L.GaussianDropout(0.3)(x), x)
    check(lambda L, x: L.AlphaDropout(0.3)(x), x)
    check(lambda L, x: L.ActivityRegularization(0.1, 0.2)(x), x, configs=False)
    check(lambda L, x: L.SpatialDropout2D(0.3)(x), x)
    check(lambda L, x: L.SpatialDropout3D(0.3)(x), floats(1, 2, 2, 2, 3))
    check(lambda L, x: L.SpatialDropout1D(0.3)(x), floats(1, 2, 3))
    check(lambda L, x: L.Identity()(x), x)


@pytest.mark.parametrize(
    ("equation", "output_shape", "bias_axes", "shape"),
    [
        ("ab,bc->ac", 6, "c", (3, 4)),
        ("abc,cd->abd", (None, 6), "d", (3, 5, 4)),
        ("abc,cde->abde", (None, 2, 3), "de", (3, 5, 4)),
        ("abcd,cde->abe", (None, 6), "e", (3, 5, 2, 4)),
        ("abc,cd->abd", (5, 6), "bd", (3, 5, 4)),
        ("...x,xy->...y", 6, "y", (3, 5, 4)),
        ("ab...,bc->ac...", 6, "c", (3, 4, 5)),
        ("abc,bcd->abd", (5, 6), None, (3, 5, 4)),
        ("abc,cd->adb", (6, 5), "d", (3, 5, 4)),
        ("abc,bde->abcde", (5, 4, 2, 3), "e", (3, 5, 4)),
        ("abc,dc->abd", (None, 6), "d", (3, 5, 4)),
    ],
)
def test_einsum_dense_agrees(
    equation: str, output_shape: object, bias_axes: str | None, shape: tuple[int, ...]
) -> None:
    check(lambda L, x: L.EinsumDense(equation, output_shape, "tanh", bias_axes)(x), floats(*shape), configs=False)


def test_scaling_layers_agree() -> None:
    x = floats(3, 4, 5)
    check(lambda L, x: L.Rescaling(1 / 255.0, -0.5)(x), RNG.integers(0, 255, (2, 3, 3, 3)).astype(np.uint8))
    check(lambda L, x: L.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0, 4.0])(x), x)
    check(lambda L, x: L.Normalization()(x), x, configs=False)
    check(lambda L, x: L.Normalization(axis=(1, 2))(x), x, configs=False)
    check(lambda L, x: L.Normalization(axis=1)(x), x, configs=False)
    check(lambda L, x: L.Normalization(axis=None)(x), x, configs=False)
    check(lambda L, x: L.Normalization(mean=2.0, variance=3.0)(x), x)
    check(lambda L, x: L.Normalization(axis=1, mean=[1.0, 2, 3, 4], variance=[3.0, 2, 0, 4])(x), x)
    check(lambda L, x: L.Normalization(mean=[1.0] * 5, variance=[3.0] * 5, invert=True)(x), x)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"tie_weights": False}, {"logit_soft_cap": 2.0, "mask_zero": True}, {"reverse_dtype": "float32"}],
    ids=str,
)
def test_reversible_embeddings_agree(arguments: dict[str, Any]) -> None:
    def build(L: Any, x: Any) -> Any:
        layer = L.ReversibleEmbedding(7, 4, **arguments)
        return layer(L.GRU(4, return_sequences=True)(layer(x)), reverse=True)

    check(build, RNG.integers(0, 7, (3, 5)).astype(np.int32))
