"""Writes the corpus: small models of every family of layers, saved by real Keras in both formats, and what it computes.

    KERAS_BACKEND=jax .venv-oracle/bin/python -m tests.corpus.make [CASE…]

Each case is a function of nothing that gives a model. Of each there are `<case>.keras`, `<case>.h5`, and `<case>.npz`
with inputs (`in0`, …) and outputs (`out0`, …) in the models' order, of three rows.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import Input, Model, Sequential, ops
from keras import layers as L  # noqa: N812

HERE = Path(__file__).parent
ROWS = 3


def convolutions() -> Model:
    x, y, z = Input((None, 3)), Input((8, None, 4)), Input((4, 5, 4, 2))
    sequences = [
        L.Conv1D(3, 3, padding="causal", dilation_rate=2, activation="relu"),
        L.DepthwiseConv1D(2, strides=2, depth_multiplier=2),
        L.SeparableConv1D(3, 4, padding="same", use_bias=False),
        L.Conv1DTranspose(2, 4, strides=3, padding="same"),
    ]
    images = [
        L.Conv2D(4, (2, 3), strides=(2, 1), padding="same", groups=2, activation="gelu"),
        L.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        L.SeparableConv2D(3, 2, dilation_rate=2),
        L.Conv2DTranspose(3, (3, 2), strides=2, output_padding=1),
    ]
    volumes = [L.Conv3D(3, 2, strides=2, padding="same"), L.Conv3DTranspose(2, 2, strides=(1, 2, 1))]
    outputs = [[layer(value) for layer in group] for group, value in ((sequences, x), (images, y), (volumes, z))]
    return Model([x, y, z], [result for group in outputs for result in group])


def channels_first() -> Model:
    x = Input((4, 7, 6))
    y = L.Conv2D(6, 3, padding="same", data_format="channels_first", activation="relu")(x)
    y = L.BatchNormalization(axis=1)(y)
    pooled = L.MaxPooling2D(2, data_format="channels_first", padding="same")(y)
    return Model(x, [L.Flatten("channels_first")(pooled), L.GlobalAveragePooling2D("channels_first")(y)])


def pooling() -> Model:
    x, y, z = Input((9, 2)), Input((None, None, 3)), Input((6, 5, 4, 2))
    results = [
        *[L.MaxPooling1D(3, 2)(x), L.AveragePooling1D(2, padding="same")(x), L.GlobalMaxPooling1D()(x)],
        *[L.MaxPooling2D((3, 2), 1, "same")(y), L.AveragePooling2D(3, 2, "same")(y), L.GlobalAveragePooling2D()(y)],
        *[L.MaxPooling3D(2)(z), L.AveragePooling3D((2, 1, 3), 1)(z), L.GlobalMaxPooling3D(keepdims=True)(z)],
        *[L.AdaptiveAveragePooling1D(4)(x), L.AdaptiveMaxPooling3D((2, 3, 1))(z)],
    ]
    return Model([x, y, z], results)


def recurrent() -> Model:
    x, h, c = Input((None, 3)), Input((4,)), Input((4,))
    masked = L.Masking()(x)
    results = [
        *L.LSTM(4, return_sequences=True, return_state=True)(masked),
        *L.LSTM(4, go_backwards=True, recurrent_activation="hard_sigmoid", return_state=True)(x, initial_state=[h, c]),
        L.GRU(3, return_sequences=True, zero_output_for_mask=True)(masked),
        L.GRU(4, reset_after=False, activation="relu")(x, initial_state=h),
        L.SimpleRNN(3, activation="softsign")(masked),
        L.Bidirectional(L.GRU(2, return_sequences=True), merge_mode="mul")(masked),
        L.Bidirectional(L.LSTM(2))(x),
        L.RNN([L.LSTMCell(2), L.GRUCell(3)])(masked),
        L.TimeDistributed(Sequential([L.Dense(3, "tanh"), L.Dense(2)]))(x),
    ]
    return Model([x, h, c], results)


def recurrent_convolutions() -> Model:
    x, y = Input((3, 5, 4, 2)), Input((2, 6, 2))
    frames = L.TimeDistributed(L.Conv2D(2, 2, activation="relu"))(x)
    results = [
        L.ConvLSTM2D(2, 2, padding="same", return_sequences=True)(x),
        L.ConvLSTM1D(3, 3, strides=2)(y),
        L.GRU(2)(L.TimeDistributed(L.GlobalMaxPooling2D())(frames)),
    ]
    return Model([x, y], results)


def attention() -> Model:
    x, y, mask = Input((None, 6)), Input((5, 6)), Input((5,), dtype="bool")
    results = [
        L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True),
        *L.MultiHeadAttention(2, 2, value_dim=3, output_shape=4)(x, y, value_mask=mask, return_attention_scores=True),
        L.GroupQueryAttention(3, 4, 2, use_bias=False)(y, y),
        L.Attention(use_scale=True)([x, y], mask=[None, mask]),
        L.AdditiveAttention()([y, y]),
    ]
    return Model([x, y, mask], results)


def normalization() -> Model:
    x = Input((4, 5, 6))
    results = [
        L.BatchNormalization(epsilon=1e-2)(x),
        L.BatchNormalization(axis=1, scale=False, center=False)(x),
        L.LayerNormalization(axis=[-2, -1])(x),
        L.GroupNormalization(3)(x),
        L.UnitNormalization(axis=[1, 2])(x),
        L.RMSNormalization()(x),
        L.SpectralNormalization(L.Conv2D(3, 2))(x),
    ]
    return Model(x, results)


def reshaping() -> Model:
    x, y = Input((4, 5, 6)), Input((None, 3))
    results = [
        *[L.Flatten()(x), L.Permute((3, 1, 2))(x), L.Reshape((-1, 10))(x), L.RepeatVector(2)(L.Flatten()(x))],
        *[L.Cropping2D(((1, 0), (2, 1)))(x), L.ZeroPadding2D((2, 1))(x), L.UpSampling2D((2, 3))(x)],
        *[L.UpSampling2D(2, interpolation=kind)(x) for kind in ("bilinear", "bicubic", "lanczos3")],
        *[L.UpSampling1D(2)(y), L.ZeroPadding1D((1, 2))(y), L.Reshape((-1, 1, 3))(y)],
    ]
    return Model([x, y], results)


def merging() -> Model:
    x, y, z = Input((3, 4)), Input((3, 4)), Input((1, 4))
    binary = [L.Subtract()([x, z]), L.Dot((2, 2), normalize=True)([x, y]), L.Dot(1)([x, y])]
    kinds = (L.Add, L.Multiply, L.Average, L.Maximum, L.Minimum)
    return Model([x, y, z], [*binary, L.Concatenate(1)([x, y, z]), *(kind()([x, y, z]) for kind in kinds)])


def activations() -> Model:
    x = Input((4, 6))
    names = [
        *("relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "glu", "softplus", "softsign", "tanh"),
        *("sigmoid", "hard_sigmoid", "hard_silu", "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink"),
        *("exponential", "leaky_relu", "log_sigmoid", "log_softmax", "softmax", "sparse_plus", "sparse_sigmoid"),
        *("sparsemax", "squareplus", "linear"),
    ]
    layers = [L.PReLU(shared_axes=[1]), L.ReLU(2.0, 0.1, 0.5), L.LeakyReLU(0.3), L.ELU(0.5), L.Softmax(axis=1)]
    return Model(x, [*(L.Activation(name)(x) for name in names), *(layer(x) for layer in layers)])


def core() -> Model:
    x, ids = Input((3, 4)), Input((None,), dtype="int32")
    words = L.Embedding(9, 4, mask_zero=True)(ids)
    results = [
        L.Dense(3, activation=L.LeakyReLU(0.2))(x),
        L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e")(x),
        L.GlobalAveragePooling1D()(words),
        L.GRU(2)(L.Dropout(0.5)(L.Add()([words, L.Dense(4)(words)]))),
    ]
    return Model([x, ids], results)


def preprocessing() -> Model:
    image, numbers, classes = Input((9, 7, 3)), Input((4,)), Input((4,), dtype="int32")
    normalized = L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])
    results = [
        *[L.Rescaling(1 / 127.5, offset=-1.0)(image), normalized(image), L.CenterCrop(5, 4)(image)],
        *[L.Resizing(6, 11, kind)(image) for kind in ("nearest", "bilinear", "bicubic", "lanczos5")],
        *[L.Resizing(4, 4, crop_to_aspect_ratio=True)(image), L.Resizing(5, 5, pad_to_aspect_ratio=True)(image)],
        L.RandomRotation(0.5)(L.RandomFlip()(image)),
        L.Discretization([-1.0, 0.0, 1.0])(numbers),
        L.CategoryEncoding(6, "multi_hot")(classes),
    ]
    return Model([image, numbers, classes], results)


def spectrograms() -> Model:
    x = Input((64, 1))
    y = L.STFTSpectrogram("magnitude", frame_length=16, frame_step=8, fft_length=16)(x)
    z = L.MelSpectrogram(fft_length=16, sequence_stride=8, num_mel_bins=4, sampling_rate=64, min_freq=2)(x[..., 0])
    return Model(x, [y, z])


def functions() -> Model:
    x = Input((None, 6))
    y = ops.where(x > 0.5, x * 2.0, 1.0 - x) ** 2
    z = ops.concatenate([x[:, 1:], y[:, :1]], axis=1)
    results = [
        *[z, ops.einsum("bij,bkj->bik", x, y), ops.mean(z, axis=1), ops.softmax(x, axis=1), x[:, -1, ::2]],
        *ops.split(ops.transpose(y, (0, 2, 1)), 2, axis=1),
        ops.cast(ops.argmax(x, axis=-1), "float32") + ops.sum(ops.maximum(y, 0.0), axis=-1),
    ]
    return Model(x, results)


def graphs() -> Model:
    left, right = Input((None, 4), name="left"), Input((4,), name="right")
    step = Input((4,))
    inner = Model(step, {"a": L.Dense(4, name="d")(step), "b": step}, name="inner")
    stack = Sequential([Input((None, 4)), L.Conv1D(4, 2, name="d"), Sequential([L.ReLU(), L.Dense(4)])], name="stack")
    shared = L.Dense(4, name="d")
    first = inner(right)
    pooled = L.GlobalMaxPooling1D()(stack(left))
    total = L.Add()([shared(first["a"]), shared(pooled), inner(pooled)["b"]])
    outputs = {"total": total, "through": right, "again": [total, L.BatchNormalization()(inner(total)["a"])]}
    return Model({"left": left, "right": right}, outputs)


def half_precision() -> Model:
    x = Input((6, 4))
    policy = {"dtype": "mixed_float16"}
    y = L.LayerNormalization(**policy)(L.Conv1D(5, 3, activation="relu", **policy)(x))
    z = L.Bidirectional(L.GRU(2, return_sequences=True, **policy), **policy)(y)
    return Model(x, [L.Dense(3, **policy)(L.LSTM(3, **policy)(z)), L.Dense(2, activation="softmax")(L.Flatten()(z))])


CASES: list[Callable[[], Any]] = [
    *[convolutions, channels_first, pooling, recurrent, recurrent_convolutions, attention, normalization, reshaping],
    *[merging, activations, core, preprocessing, spectrograms, functions, graphs, half_precision],
]


def randomise(model: Model, rng: np.random.Generator) -> None:
    def drawn(weight: Any) -> np.ndarray:
        array = rng.normal(0, 0.5, weight.shape)
        return np.abs(array) + 0.5 if "variance" in weight.path else array

    model.set_weights([drawn(weight) for weight in model.weights])


def draw(tensor: Any, rng: np.random.Generator) -> np.ndarray:
    """An array for a symbolic input: an open extent is 6, and some steps of sequences are zeros."""
    shape = [ROWS, *(6 if extent is None else extent for extent in tensor.shape[1:])]
    if tensor.dtype == "bool":
        return np.concatenate([np.ones([*shape[:-1], 1], bool), rng.random([*shape[:-1], shape[-1] - 1]) < 0.6], -1)
    if tensor.dtype == "int32":
        return rng.integers(0, 6, shape).astype(np.int32)
    array = rng.normal(size=shape).astype(np.float32)
    if len(shape) == 3:
        array[0, 0] = array[1, -1] = 0
    return array


def main(names: Sequence[str]) -> None:
    for number, case in enumerate(CASES):
        if names and case.__name__ not in names:
            continue
        keras.utils.clear_session()
        rng = np.random.default_rng(number)
        model = case()
        randomise(model, rng)
        inputs = [draw(tensor, rng) for tensor in model.inputs]
        structured = keras.tree.pack_sequence_as(model.input, inputs)
        outputs = keras.tree.flatten(model.predict(structured, verbose=0))
        arrays: dict[str, Any] = {f"in{i}": x for i, x in enumerate(inputs)} | {
            f"out{i}": y for i, y in enumerate(outputs)
        }
        np.savez_compressed(HERE / f"{case.__name__}.npz", **arrays)
        for suffix in (".keras", ".h5"):
            model.save(HERE / f"{case.__name__}{suffix}")


if __name__ == "__main__":
    main(sys.argv[1:])
