"""The table of lowerings with every family's rules entered."""

from kcompile.codegen.tvm import fusion
from kcompile.codegen.tvm.kernels import (
    conv,
    copy,
    dense,
    elementwise,
    gather,
    move,
    norm,
    pad,
    pooling,
    reduce,
    resize,
)
from kcompile.codegen.tvm.plan import TVM

__all__ = [
    "TVM",
    "conv",
    "copy",
    "dense",
    "elementwise",
    "fusion",
    "gather",
    "move",
    "norm",
    "pad",
    "pooling",
    "reduce",
    "resize",
]
