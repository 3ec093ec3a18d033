"""One lowering per op, in the families of `kcompile.ir.ops`; importing this package fills the table."""

from kcompile.codegen.onnx.lowerings import (
    activation,
    arithmetic,
    attention,
    conv,
    image,
    linear,
    normalization,
    quantization,
    recurrent,
    reduction,
    shape,
    text,
)
from kcompile.codegen.onnx.table import ONNX

__all__ = [
    "ONNX",
    "activation",
    "arithmetic",
    "attention",
    "conv",
    "image",
    "linear",
    "normalization",
    "quantization",
    "recurrent",
    "reduction",
    "shape",
    "text",
]
