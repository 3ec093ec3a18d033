"""The table of ONNX lowerings. Each takes the emitter, the op and its node, and gives the names of the results."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from kcompile.codegen.lowering import LoweringTable
from kcompile.codegen.onnx.emitter import Emitter
from kcompile.ir.graph import Node
from kcompile.ir.ops import TRAINING, Fused, HashCross, HashText

# The op is the class that the lowering is registered for; a table of all of them can't say so.
Lowering: TypeAlias = Callable[[Emitter, Any, Node], str | Sequence[str]]

# The domain of ONNX's tables, and the version that is used.
ML_DOMAIN, ML_OPSET = "ai.onnx.ml", 4

ONNX = LoweringTable[Lowering]("onnx")
ONNX.exclude(Fused, "its body is inlined: ONNX Runtime fuses by itself")
for _op in (HashCross, HashText):
    ONNX.exclude(_op, "ONNX has no hashes of texts")
for _op in TRAINING:
    ONNX.exclude(_op, "it appears only in training graphs")
