"""From a traced graph to the bytes of an .onnx file."""

from collections.abc import Mapping

from kcompile.codegen.onnx.emit import emit
from kcompile.ir.graph import Graph
from kcompile.ir.passes.layout import to_channels_first
from kcompile.ir.passes.narrow import token_products
from kcompile.ir.passes.pipeline import inference


def lower_to_onnx(graph: Graph, *, metadata: Mapping[str, str], opset: int | None = None) -> bytes:
    """The bytes of a checked .onnx file that computes `graph`; the same graph and metadata give the same bytes.

    Args:
        metadata: properties that the file carries.
        opset: the version of the standard operators; by default the newest that the installed ONNX Runtime opens.

    Raises:
        TargetError: the opset is unknown or too old, or the weights exceed what one ONNX file can hold.
        UnsupportedOp: ops cannot be expressed; all are named.
    """
    return emit(to_channels_first(token_products(inference(graph))), metadata=metadata, opset=opset).content()
