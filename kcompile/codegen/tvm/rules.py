"""The table of lowerings with every family's rules entered."""

from kcompile.codegen.tvm import fusion
from kcompile.codegen.tvm.kernels import (
    attention,
    conv_transpose,
    convolution,
    copy,
    dense,
    elementwise,
    gather,
    move,
    narrow,
    norm,
    pad,
    pooling,
    reduce,
    resize,
    rnn,
    scan,
)
from kcompile.codegen.tvm.plan import TVM

__all__ = [
    "TVM",
    "attention",
    "conv_transpose",
    "convolution",
    "copy",
    "dense",
    "elementwise",
    "fusion",
    "gather",
    "move",
    "narrow",
    "norm",
    "pad",
    "pooling",
    "reduce",
    "resize",
    "rnn",
    "scan",
]
