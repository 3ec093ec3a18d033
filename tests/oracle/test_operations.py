"""Functions of keras.ops by family: Keras builds and saves one model of all, kcompile reads it and gives the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kcompile import frontend

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(41)
Function = Callable[[Any], Any]


def tensor(*shape: int) -> Any:
    return ops.convert_to_tensor(RNG.normal(size=shape).astype(np.float32))


def named(names: str, change: Function = lambda x: x) -> list[Function]:
    """Functions of one tensor, by their names."""
    return [lambda x, name=name: getattr(ops, name)(change(x)) for name in names.split()]


def paired(names: str) -> list[Function]:
    """Functions of two tensors, by their names."""
    return [lambda x, name=name: getattr(ops, name)(x, x[:, ::-1]) for name in names.split()]


def holes(x: Any) -> Any:
    """`x` with some NaN and infinities."""
    return ops.where(x > 1, ops.log(-ops.relu(x)), ops.where(x < -1, 1 / ops.relu(x), x))


def whole(x: Any) -> Any:
    return ops.cast(x * 9, "int32")


# Of a tensor f32[N, 4, 6].
FAMILIES: dict[str, list[Function]] = {
    "elementary": [
        *named(
            "arcsinh arctan cosh deg2rad exp2 expm1 rad2deg sinh tan trunc signbit squareplus soft_shrink celu erfc"
        ),
        *named("log10 log2 log1p", lambda x: ops.abs(x) + 1e-3),
        *named("arccos arcsin arctanh", lambda x: ops.clip(x, -0.9, 0.9)),
        lambda x: ops.arccosh(ops.abs(x) + 1),
        lambda x: ops.log1p(x * 1e-6) * 1e6 + ops.expm1(x * 1e-6) * 1e6 + ops.sinh(x * 1e-5) * 1e5,
        lambda x: ops.hard_shrink(x, threshold=0.3) + ops.threshold(x, 0.3, 0.1),
        lambda x: ops.glu(x, axis=1),
        lambda x: ops.sparsemax(x, axis=1),
    ],
    "elementary of two": [
        *paired("arctan2 hypot logaddexp heaviside logical_xor divide_no_nan isclose"),
        lambda x: ops.divide_no_nan(x, ops.relu(x)),
    ],
    "what is no number": [
        *named("isnan isinf isfinite nan_to_num", holes),
        lambda x: ops.nan_to_num(holes(x), nan=1.0, posinf=2.0, neginf=3.0),
        lambda x: ops.isclose(holes(x), holes(x), equal_nan=True),
    ],
    "statistics": [
        lambda x: ops.logsumexp(x, axis=(1, 2), keepdims=True),
        lambda x: ops.average(x, axis=1) + ops.average(x, axis=1, weights=tensor(4)),
        lambda x: ops.count_nonzero(ops.relu(x), axis=1),
        lambda x: ops.moments(x, axes=[1])[1],
        lambda x: ops.cumprod(x, axis=1),
        lambda x: ops.norm(x, ord="fro", axis=(1, 2)) + ops.norm(x, ord=1, axis=(1, 2)),
        lambda x: ops.median(x, axis=1),
    ],
    "arrangements": [
        lambda x: ops.moveaxis(x, [1, 2], [2, 1]),
        lambda x: ops.rot90(x, 3, (1, 2)) + ops.rot90(x, 1, (1, 2)),
        lambda x: ops.append(x, x * 2, axis=1),
        lambda x: ops.hstack([x, x]),
        lambda x: ops.array_split(x, 4, axis=2)[1],
        lambda x: ops.repeat(x, 3, axis=1),
        lambda x: ops.roll(x, (-1, 2), axis=(1, 2)),
        lambda x: ops.diff(x, n=2),
        lambda x: ops.tril(x, k=1) + ops.triu(x, k=-1),
        lambda x: ops.diagonal(x, offset=-2, axis1=1, axis2=2),
        lambda x: ops.diag(ops.sum(x, (0, 1)), k=-2),
        lambda x: ops.full_like(x, 2.5),
        lambda x: ops.select([x > 1, x > 0], [x, x * 2], 3.0),
    ],
    "orders": [
        lambda x: ops.sort(x, axis=1),
        lambda x: ops.argsort(ops.floor(ops.abs(x) * 2), axis=1),
        lambda x: ops.top_k(ops.floor(ops.abs(x) * 2), 3)[1],
        lambda x: ops.top_k(x, 3)[0],
        lambda x: ops.take_along_axis(x, ops.argsort(x, axis=1), axis=1),
        lambda x: ops.searchsorted(ops.sort(ops.sum(x, (0, 1))), ops.sum(x, (0, 2)), side="right"),
        lambda x: ops.digitize(x, np.array([-1.0, 0.0, 0.5])),
        lambda x: ops.one_hot(ops.cast(ops.abs(x), "int32"), 4, axis=1),
        lambda x: ops.multi_hot(ops.cast(ops.abs(x[:, 0]), "int32"), 4),
        lambda x: ops.in_top_k(ops.cast(ops.abs(x[:, 0, 0]), "int32"), x[:, 1], 2),
    ],
    "bits": [
        lambda x: ops.bitwise_xor(whole(x), whole(x[:, ::-1])) + ops.bitwise_and(whole(x), whole(x[:, :1])),
        lambda x: ops.bitwise_or(whole(x), whole(x[:, ::-1])) + ops.bitwise_not(whole(x)),
        lambda x: ops.left_shift(whole(x), ops.abs(whole(x[:, ::-1]))),
        lambda x: ops.right_shift(whole(x), 1) + ops.bitwise_right_shift(whole(x), 40),
    ],
    "segments": [
        lambda x: ops.segment_sum(ops.transpose(x, (1, 0, 2)), np.array([2, 0, -1, 2]), num_segments=4),
        lambda x: ops.segment_max(ops.transpose(x, (1, 0, 2)), np.array([2, 0, 1, 2]), num_segments=3),
    ],
    "products": [
        lambda x: ops.einsum("...ij,...kj->...ik", x, x),
        lambda x: ops.einsum("bij,bik,bkl->bjl", x, x[:, :, :4], x),
        lambda x: ops.einsum("bii->bi", x[:, :, :4]),
        lambda x: ops.einsum("bi,bj->bij", x[:, 0], x[:, 1]),
        lambda x: ops.matmul(x, tensor(6)) + ops.dot(x, tensor(6)),
        lambda x: ops.tensordot(x, tensor(6, 5), axes=[[2], [0]]),
        lambda x: ops.outer(x[0], x[1]),
        lambda x: ops.inner(x, tensor(5, 6)),
        lambda x: ops.cross(x[:, :, :3], x[:, :, 3:]),
        lambda x: ops.trace(x, axis1=1, axis2=2),
        lambda x: ops.extract_sequences(x, 3, 2),
    ],
    "normalization and losses": [
        lambda x: ops.batch_normalization(x, tensor(6), tensor(6) ** 2, axis=-1, offset=tensor(6), scale=tensor(6)),
        lambda x: ops.layer_normalization(x, tensor(6), tensor(6)) + ops.rms_normalization(x, tensor(6)),
        lambda x: ops.normalize(x, axis=1) + ops.normalize(x, axis=-1, order=1),
        lambda x: ops.binary_crossentropy(ops.sigmoid(x + 1), ops.sigmoid(x)),
        lambda x: ops.categorical_crossentropy(ops.softmax(x + 1), x, from_logits=True),
        lambda x: ops.sparse_categorical_crossentropy(ops.argmax(x, axis=-1), ops.softmax(x)),
    ],
}
# Of images f32[N, 8, 10, 3] with values from 0 to 1.
IMAGES: dict[str, list[Function]] = {
    "windows": [
        lambda x: ops.max_pool(x, 3, 2, "same"),
        lambda x: ops.average_pool(x, (2, 3), 1, "same"),
        lambda x: ops.adaptive_average_pool(x, (3, 3)),
        lambda x: ops.conv(x, tensor(3, 3, 3, 4), 2, "same"),
        lambda x: ops.depthwise_conv(x, tensor(3, 3, 3, 2), 1, "same"),
        lambda x: ops.separable_conv(x, tensor(3, 3, 3, 2), tensor(1, 1, 6, 5), 2, "valid"),
        lambda x: ops.unfold(ops.transpose(x, (0, 3, 1, 2)), 3, padding=1, stride=2),
        lambda x: ops.depth_to_space(ops.space_to_depth(x, 2)[..., :8], 2),
        lambda x: ops.dot_product_attention(x, x, x, is_causal=True),
        lambda x: ops.dot_product_attention(x, x, x, bias=tensor(1, 10, 8, 8), mask=np.tri(8, dtype=bool)[None, None]),
    ],
    "pictures": [
        ops.image.rgb_to_grayscale,
        ops.image.rgb_to_hsv,
        ops.image.hsv_to_rgb,
        lambda x: ops.image.resize(x, (5, 13), interpolation="bicubic"),
        lambda x: ops.image.resize(x, (5, 5), crop_to_aspect_ratio=True),
        lambda x: ops.image.extract_patches(x, 3, strides=1, padding="same"),
        lambda x: ops.image.pad_images(x, top_padding=1, left_padding=2, target_height=12, target_width=20),
        lambda x: ops.image.crop_images(x, top_cropping=1, left_cropping=2, target_height=4, target_width=3),
        lambda x: ops.image.gaussian_blur(x, (3, 5), (1.0, 2.0)),
        ops.image.sobel_edges,
        lambda x: ops.slice_update(x, (0, 1, 2, 0), ops.slice(x, (0, 1, 2, 0), (2, 3, 4, 2)) * 2),
        lambda x: ops.saturate_cast(x * 500 - 100, "uint8"),
    ],
}


def agree(functions: list[Function], array: np.ndarray, path: Path) -> None:
    keras.backend.clear_session()
    x = keras.Input(array.shape[1:])
    theirs = keras.Model(x, [function(x) for function in functions])
    theirs.save(path)
    expected = theirs(array, training=False)
    received = frontend.load_model(path).predict(array)
    for number, (got, wanted) in enumerate(zip(received, map(np.asarray, expected), strict=True)):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), number
        size = np.abs(wanted[np.isfinite(wanted)].astype(float)).max(initial=1)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * size, err_msg=str(number))


@pytest.mark.parametrize("family", FAMILIES)
def test_functions_of_sequences_do_as_in_keras(family: str, tmp_path: Path) -> None:
    agree(FAMILIES[family], RNG.normal(size=(3, 4, 6)).astype(np.float32), tmp_path / "m.keras")


@pytest.mark.parametrize("family", IMAGES)
def test_functions_of_images_do_as_in_keras(family: str, tmp_path: Path) -> None:
    agree(IMAGES[family], RNG.uniform(size=(2, 8, 10, 3)).astype(np.float32), tmp_path / "m.keras")
