"""The models that engines are compared on, built with kcompile's own layers, so that one file feeds every engine."""

from collections.abc import Callable

import kcompile
from benchmarks import resnet50
from benchmarks.models.images import efficientnet_b0, mobilenet_v2, mobilenet_v3_small
from benchmarks.models.small import cifar_cnn, encoder, gru, lstm, mlp

MODELS: dict[str, Callable[[], kcompile.Model]] = {
    "mlp": mlp,
    "cifar_cnn": cifar_cnn,
    "lstm": lstm,
    "gru": gru,
    "encoder": encoder,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_b0": efficientnet_b0,
    "resnet50": resnet50.build,
}
