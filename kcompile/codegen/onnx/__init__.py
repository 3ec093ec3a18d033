"""The ONNX back end: a graph in, one checked .onnx file out."""

from kcompile.codegen.onnx.compile import lower_to_onnx
from kcompile.codegen.onnx.emit import Emitted, emit
from kcompile.codegen.onnx.lowerings import ONNX

__all__ = ["ONNX", "Emitted", "emit", "lower_to_onnx"]
