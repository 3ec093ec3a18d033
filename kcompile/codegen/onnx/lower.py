"""Lowers every node of a graph, and collects all refusals into one error."""

from collections.abc import Sequence
from contextlib import suppress

from kcompile.codegen.lowering import in_single
from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX
from kcompile.errors import UnsupportedOp
from kcompile.ir.graph import Builder, Graph, Node
from kcompile.ir.ops import Constant


def lower_graph(emitter: Emitter, graph: Graph, arguments: Sequence[str] = ()) -> tuple[str, ...]:
    """The tensors that hold the outputs of `graph`, whose inputs are the tensors `arguments`.

    An op that the engine has no kernel for is decomposed where it can be; of float64, else, computed in float32.

    Raises:
        UnsupportedOp: ops cannot be expressed; all are named.
    """
    names = arguments or tuple(value.name for value in graph.inputs)
    emitter.names.update(zip(graph.inputs, names, strict=True))
    emitter.note_readers(graph)
    refusals: list[str] = []
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            continue
        with emitter.at(node.source):
            try:
                results = _lower(emitter, node)
            except UnsupportedOp as refusal:
                refusals.append(f"  `{node.op.op_name}` at {node.source or 'the graph itself'}: {refusal}")
                results = tuple(emitter.unique("refused") for _ in node.outputs)
        emitter.names.update(zip(node.outputs, results, strict=True))
    if refusals:
        raise UnsupportedOp(
            f'target "onnx" cannot express {len(refusals)} op(s) of this model:\n' + "\n".join(refusals)
        )
    return tuple(emitter.name(value) for value in graph.outputs)


def _lower(emitter: Emitter, node: Node) -> tuple[str, ...]:
    try:
        results = ONNX[node.op](emitter, node.op, node)
    except UnsupportedOp as refusal:
        for instead in (lower_decomposed, _lower_in_single):
            with suppress(UnsupportedOp):
                return instead(emitter, node)
        raise refusal from None
    return (results,) if isinstance(results, str) else tuple(results)


def lower_decomposed(emitter: Emitter, node: Node) -> tuple[str, ...]:
    """The results of a node from the simpler ops that it decomposes into.

    Raises:
        UnsupportedOp: it has no decomposition, or those ops cannot be expressed either.
    """
    b = Builder(node.op.op_name)
    inputs = [b.input(f"x{i}", value.type) for i, value in enumerate(node.inputs)]
    with b.at(node.source):
        results = node.op.decompose(b, inputs)
    if results is None:
        raise UnsupportedOp("it has no decomposition")
    return lower_graph(emitter, b.build(results), emitter.inputs(node))


def _lower_in_single(emitter: Emitter, node: Node) -> tuple[str, ...]:
    """The results of a node of float64, computed in float32.

    Raises:
        UnsupportedOp: it is of another dtype, or cannot be expressed in float32 either.
    """
    if node.outputs[0].type.dtype != "float64":
        raise UnsupportedOp("it is not of float64")
    b = Builder(node.op.op_name)
    inputs = [b.input(f"x{i}", value.type) for i, value in enumerate(node.inputs)]
    with b.at(node.source):
        results = in_single(b, node.op, inputs)
    return lower_graph(emitter, b.build(results), emitter.inputs(node))
