"""From a graph to a checked ONNX model."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from kcompile.codegen.onnx import engine
from kcompile.codegen.onnx.assemble import assemble, used_initializers
from kcompile.codegen.onnx.check import check
from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.encode import encode
from kcompile.codegen.onnx.lower import lower_graph
from kcompile.codegen.onnx.lowerings import ONNX
from kcompile.codegen.onnx.table import ML_DOMAIN, ML_OPSET
from kcompile.errors import TargetError
from kcompile.ir.graph import Graph
from kcompile.ir.types import Array

# The oldest opset that has all operators used: Gelu, and the reductions' axes as operands, came by 20.
OLDEST_OPSET = 20

# A protobuf message holds less than 2 GiB (https://protobuf.dev/programming-guides/proto-limits/).
_MESSAGE_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Emitted:
    """A checked model without its initializers, and these."""

    model: onnx.ModelProto
    initializers: Mapping[str, Array]

    def message(self) -> onnx.ModelProto:
        """The model as onnx's tools take it."""
        return onnx.ModelProto.FromString(self.content())

    def content(self) -> bytes:
        """The bytes of an .onnx file, the same for the same graph."""
        return encode(self.model, self.initializers)


def emit(graph: Graph, *, metadata: Mapping[str, str], opset: int | None = None) -> Emitted:
    """The checked ONNX model that computes `graph`, with its names, and `metadata` as properties.

    Args:
        opset: the version of the standard operators; by default the newest that the installed ONNX Runtime opens.

    Raises:
        TargetError: the opset is unknown or too old, or the weights exceed what one ONNX file can hold.
        UnsupportedOp: ops cannot be expressed; all are named.
    """
    newest, ir_version = engine.versions()
    chosen = newest if opset is None else opset
    if not OLDEST_OPSET <= chosen <= newest:
        law = f"`opset` must be from {OLDEST_OPSET} to {newest}, the newest that the installed ONNX Runtime opens"
        raise TargetError(f"{law}. Received: {opset}.")
    emitter = Emitter(chosen, graph.input_types, graph.output_names)
    expanded = ONNX.expand(graph)
    lower_graph(emitter, expanded)
    body = assemble(expanded, emitter)
    imports = [onnx.helper.make_opsetid("", chosen)]
    if any(node.domain == ML_DOMAIN for node in body.node):
        imports.append(onnx.helper.make_opsetid(ML_DOMAIN, ML_OPSET))
    model = onnx.helper.make_model(body, opset_imports=imports, ir_version=ir_version, producer_name="kcompile")
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    initializers = used_initializers(model.graph, emitter)
    _require_one_message(sum(array.nbytes for array in initializers.values()) + model.ByteSize())
    check(model, initializers, {name: value.type for value, name in emitter.names.items()})
    return Emitted(model, initializers)


def _require_one_message(size: int) -> None:
    if size > _MESSAGE_BYTES:
        law = "one ONNX file holds less than 2 GiB"
        raise TargetError(f'{law}. Received: a model of {size / 2**30:.1f} GiB. Compile it with target "tvm".')
