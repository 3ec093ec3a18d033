"""Functions that stand in a graph by themselves: those of ``keras.ops``, and TensorFlow's in files of Keras 2."""

from kcompile.frontend.operations import (
    arranging,
    bits,
    elementary,
    network,
    pictures,
    products,
    rules,
    segments,
    shaping,
    statistics,
    windows,
)
from kcompile.frontend.operations.operation import OPERATIONS, Operation
from kcompile.frontend.operations.tensorflow import TensorFlowFunction, tensorflow_rule

__all__ = [
    "OPERATIONS",
    "Operation",
    "TensorFlowFunction",
    "arranging",
    "bits",
    "elementary",
    "network",
    "pictures",
    "products",
    "rules",
    "segments",
    "shaping",
    "statistics",
    "tensorflow_rule",
    "windows",
]
