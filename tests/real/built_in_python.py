"""Models whose files hold weights alone: the architectures that the packages' own code states, in kcompile's layers."""

from collections.abc import Callable

import numpy as np

from kcompile.frontend import Input, Model, Sequential, layers
from kcompile.frontend.tracing import KerasTensor
from tests.real.corpus import RealModel


def deepcut(real: RealModel) -> Model:
    """``deepcut/model.py``, `get_convo_nn2`."""
    characters, kinds = Input((21,), name="input_1"), Input((21,), name="input_2")
    a = layers.BatchNormalization()(layers.SpatialDropout1D(0.15)(layers.Embedding(178, 32)(characters)))
    b = layers.SpatialDropout1D(0.15)(layers.Embedding(12, 12)(kinds))
    windows = [*((window, 200) for window in range(1, 9)), *((window, 150) for window in range(9, 12)), (12, 100)]
    convolved = [layers.Conv1D(filters, window, activation="relu")(a) for window, filters in windows]
    mixed = [layers.TimeDistributed(layers.Dense(5))(y) for y in convolved]
    padded = [layers.ZeroPadding1D((0, window - 1))(y) for y, (window, _) in zip(mixed, windows, strict=True)]
    joined = layers.Concatenate()([a, layers.Maximum()(padded), b])
    hidden = layers.Dense(100, activation="relu")(layers.Flatten()(layers.BatchNormalization()(joined)))
    model = Model([characters, kinds], layers.Dense(1, activation="sigmoid")(hidden))
    model.load_weights(real.path)
    return model


def mhcnuggets_lstm(real: RealModel) -> Model:
    """``mhcnuggets/src/models.py``, `mhcnuggets_lstm`; its Keras 2.2.2 had "hard_sigmoid" as the default of gates."""
    model = Sequential(
        [
            Input((15, 21), name="masking_input"),
            layers.Masking(-4200000.0),
            layers.LSTM(64, recurrent_activation="hard_sigmoid_v2"),
            layers.Dense(64),
            layers.Activation("tanh"),
            layers.Dense(1),
            layers.Activation("sigmoid"),
        ]
    )
    model.load_weights(real.path)
    return model


def _convolved(x: KerasTensor, filters: int, window: int) -> KerasTensor:
    return layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(filters, window)(x))


def mtcnn_pnet(real: RealModel) -> Model:
    """``mtcnn/network/factory.py``, `build_pnet`."""
    image = Input((None, None, 3), name="input_1")
    x = layers.MaxPooling2D(2, padding="same")(_convolved(image, 10, 3))
    x = _convolved(_convolved(x, 16, 3), 32, 3)
    scores = layers.Softmax(axis=3)(layers.Conv2D(2, 1)(x))
    model = Model(image, [layers.Conv2D(4, 1)(x), scores])
    return _with(model, real, "pnet")


def mtcnn_onet(real: RealModel) -> Model:
    """``mtcnn/network/factory.py``, `build_onet`."""
    image = Input((48, 48, 3), name="input_1")
    x = layers.MaxPooling2D(3, 2, padding="same")(_convolved(image, 32, 3))
    x = layers.MaxPooling2D(3, 2)(_convolved(x, 64, 3))
    x = layers.MaxPooling2D(2, 2, padding="same")(_convolved(x, 64, 3))
    x = layers.PReLU()(layers.Dense(256)(layers.Flatten()(_convolved(x, 128, 2))))
    scores = layers.Softmax(axis=1)(layers.Dense(2)(x))
    model = Model(image, [layers.Dense(4)(x), layers.Dense(10)(x), scores])
    return _with(model, real, "onet")


def _with(model: Model, real: RealModel, network: str) -> Model:
    """The model with the arrays of a network, which one file keeps for all three, in the order of `get_weights`."""
    model.set_weights(np.load(real.path, allow_pickle=True).item()[network])
    return model


BUILDERS: dict[str, Callable[[RealModel], Model]] = {
    "deepcut": deepcut,
    "mhcnuggets_lstm": mhcnuggets_lstm,
    "mtcnn_onet": mtcnn_onet,
    "mtcnn_pnet": mtcnn_pnet,
}
