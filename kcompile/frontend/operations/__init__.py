"""Functions that stand in a graph by themselves: those of ``keras.ops``, and TensorFlow's in files of Keras 2."""

from kcompile.frontend.operations import rules, shaping
from kcompile.frontend.operations.operation import OPERATIONS, Operation
from kcompile.frontend.operations.tensorflow import TENSORFLOW_FUNCTIONS, TensorFlowFunction

__all__ = ["OPERATIONS", "TENSORFLOW_FUNCTIONS", "Operation", "TensorFlowFunction", "rules", "shaping"]
