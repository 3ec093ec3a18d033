"""A graph in the dtypes of the native kernels.

Half precision is computed in single: what is read and given keeps its dtype, and everything between has more digits
than the graph asks for. Ops whose kernels are for float32 alone compute double precision in single, too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from kcompile.codegen.lowering import in_single
from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph, Node, Value
from kcompile.ir.op import Op, Tensor
from kcompile.ir.passes.pipeline import inference

_SINGLE_ONLY = (ops.Lstm, ops.Gru, ops.SimpleRnn, ops.Attention, ops.Softmax, ops.LogSoftmax)


def native_dtypes(graph: Graph) -> Graph:
    """`graph` without float16 between its inputs and outputs, and with float64 only where there are kernels for it."""
    if not any(_is_half(node) or _is_narrowed(node) for node in _flat(graph)):
        return graph
    b = Builder(graph.name)
    wide = {value: _cast(b, value, "float32") if value.type.dtype == "float16" else value for value in graph.inputs}
    _walk(b, graph, wide)
    outputs = tuple(_cast(b, wide[value], value.type.dtype) for value in graph.outputs)
    return inference(replace(graph, outputs=outputs))


def _flat(graph: Graph) -> Iterable[Node]:
    for node in graph.nodes:
        yield from _flat(node.op.body) if isinstance(node.op, ops.Fused) else [node]


def _is_half(node: Node) -> bool:
    return any(value.type.dtype == "float16" for value in (*node.inputs, *node.outputs))


def _is_narrowed(node: Node) -> bool:
    return isinstance(node.op, _SINGLE_ONLY) and node.outputs[0].type.dtype == "float64"


def _walk(b: Builder, graph: Graph, wide: dict[Value, Value]) -> None:
    """Enter into `wide` what stands for every value of `graph`, of which its inputs are entered."""
    for node in graph.nodes:
        with b.at(node.source):
            if isinstance(node.op, ops.Fused):
                inner = dict(zip(node.op.body.inputs, (wide[value] for value in node.inputs), strict=True))
                _walk(b, node.op.body, inner)
                results = tuple(inner[value] for value in node.op.body.outputs)
            else:
                results = _results(b, node, wide)
        wide.update(zip(node.outputs, results, strict=True))


def _results(b: Builder, node: Node, wide: Mapping[Value, Value]) -> tuple[Value, ...]:
    inputs = [wide[value] for value in node.inputs]
    return in_single(b, node.op, inputs) if _is_narrowed(node) else b.multi(_without_half(node.op), *inputs)


def _without_half(op: Op) -> Op:
    """`op`, with float32 for a float16 that it states."""
    match op:
        case ops.Constant() if op.value.array.dtype == np.float16:
            return ops.Constant(Tensor(op.value.array.astype(np.float32)), op.name)
        case ops.Cast(dtype="float16") | ops.Full(dtype="float16"):
            return replace(op, dtype="float32")
        case _:
            return op


def _cast(b: Builder, value: Value, dtype: str) -> Value:
    return value if value.type.dtype == dtype else b(ops.Cast(dtype), value)
