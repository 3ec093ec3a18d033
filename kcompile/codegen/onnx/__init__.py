"""The ONNX back end: a graph in, one checked .onnx file out."""

from kcompile.codegen.onnx.compile import lower_to_onnx
from kcompile.codegen.onnx.emit import emit, serialize
from kcompile.codegen.onnx.lowerings import ONNX

__all__ = ["ONNX", "emit", "lower_to_onnx", "serialize"]
