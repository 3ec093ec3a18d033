"""Puts together what an emitter collected: outputs by their names, no dead node, no unused initializer."""

from collections.abc import Iterator

import onnx

from kcompile.codegen.onnx.emitter import Emitter, onnx_dtype, trimmed
from kcompile.errors import TargetError
from kcompile.ir.graph import Graph
from kcompile.ir.types import Array, TensorType

# Operators that compute only those results that have a name.
_OPTIONAL_RESULTS = frozenset({"LSTM", "GRU", "RNN"})


def assemble(graph: Graph, emitter: Emitter) -> onnx.GraphProto:
    """The ONNX graph that computes `graph`, without initializers."""
    results = _bind_outputs(graph, emitter)
    return onnx.helper.make_graph(
        live_nodes(emitter.nodes, results),
        graph.name,
        [value_info(name, type_) for name, type_ in graph.input_types.items()],
        [value_info(name, type_) for name, type_ in graph.output_types.items()],
    )


def value_info(name: str, type_: TensorType) -> onnx.ValueInfoProto:
    """The declaration of a tensor; symbolic extents are named by their text."""
    return onnx.helper.make_tensor_value_info(name, onnx_dtype(type_.dtype), type_.shape)


def _bind_outputs(graph: Graph, emitter: Emitter) -> frozenset[str]:
    """Give each output its name: its tensor is renamed where that is possible, else copied."""
    inputs = set(graph.input_types)
    made = {name for node in emitter.nodes for name in node.output}
    renamed: dict[str, str] = {}
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        tensor = emitter.name(value)
        if name == tensor:
            continue
        if name in inputs:
            raise TargetError(f"an ONNX output must not have the name of another input. Received: `{name}` for both.")
        if tensor in made and tensor not in renamed:
            renamed[tensor] = name
        else:
            source = renamed.get(tensor, tensor)
            emitter.nodes.append(onnx.helper.make_node("Identity", [source], [name], name=emitter.unique("Identity")))
    for node in emitter.nodes:
        _rename(node, renamed)
    emitter.names = {value: renamed.get(tensor, tensor) for value, tensor in emitter.names.items()}
    return frozenset(graph.output_names)


def _rename(node: onnx.NodeProto, renamed: dict[str, str]) -> None:
    for names in (node.input, node.output):
        for i, name in enumerate(names):
            names[i] = renamed.get(name, name)
    for body in _bodies(node):
        for inner in body.node:
            _rename(inner, renamed)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    return (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)


def read_names(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those that its body captures among them."""
    yield from node.input
    for body in _bodies(node):
        yield from (value.name for value in body.output)
        for inner in body.node:
            yield from read_names(inner)


def live_nodes(nodes: list[onnx.NodeProto], results: frozenset[str]) -> list[onnx.NodeProto]:
    """The nodes that `results` need, in order, without the optional results that nothing reads."""
    needed, kept = set(results), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if needed.intersection(node.output):
            _drop_unread(node, needed)
            needed.update(read_names(node))
            kept.append(node)
    return kept[::-1]


def _drop_unread(node: onnx.NodeProto, needed: set[str]) -> None:
    if node.op_type in _OPTIONAL_RESULTS:
        names = [name if name in needed else "" for name in node.output]
        del node.output[:]
        node.output.extend(trimmed(names))


def used_initializers(graph: onnx.GraphProto, emitter: Emitter) -> dict[str, Array]:
    """The initializers that `graph` reads, in the order of their first use."""
    names = dict.fromkeys(name for node in graph.node for name in read_names(node))
    return {name: emitter.initializers[name] for name in names if name in emitter.initializers}
