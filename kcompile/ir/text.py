"""The text form of a graph (``.kir``): one line per node, types on definitions, the Keras layer as trailing comment.

    graph @model(%image: f32[N, 28, 28, 1]) -> (probabilities: f32[N, 10]) {
      %conv1/kernel = constant {value=#3fa9c1d2e4b5a601} : f32[3, 3, 1, 8]
      %0 = conv(%image, %conv1/kernel) {strides=[1, 1], padding="same"} : f32[N, 28, 28, 8]  // conv1
      ...
      return %7
    }

A constant of more than `INLINE_LIMIT` elements stands there by the first digits of its content's SHA-256; its array is
in `constants_of`. `kcompile.ir.parse` reads the form back.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from kcompile.errors import GraphError
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.op import Op, Tensor
from kcompile.ir.ops.constant import Constant
from kcompile.ir.ops.fused import Fused
from kcompile.ir.ops.scan import Scan
from kcompile.ir.types import Array

INLINE_LIMIT = 8
DIGEST_DIGITS = 16

# Names and comments of other characters stand in quotes, with JSON's escapes.
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
PLAIN_COMMENT = re.compile(r"[!#-~](?:[ -~]*[!-~])?")


def to_text(graph: Graph, marked: Collection[Node] = (), nodes: Sequence[Node] | None = None) -> str:
    """`graph` as text; lines of `marked` nodes begin with ``>>``.

    Args:
        nodes: the nodes to print, for a graph so broken that it cannot order its own.
    """
    return "\n".join(_graph_lines(graph, graph.nodes if nodes is None else nodes, marked)) + "\n"


def constants_of(graph: Graph) -> dict[str, Array]:
    """The arrays that the text of `graph` names by digest, nested graphs included."""
    return {tensor.digest[:DIGEST_DIGITS]: tensor.array for tensor in _tensors(graph) if not is_inline(tensor)}


def is_inline(tensor: Tensor) -> bool:
    """Whether a constant's elements stand in the text. NaNs never do: their bits would be lost."""
    array = tensor.array
    return array.size <= INLINE_LIMIT and not (array.dtype.kind == "f" and bool(np.isnan(array).any()))


def _tensors(graph: Graph) -> Iterator[Tensor]:
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            yield node.op.value
        elif isinstance(node.op, Fused | Scan):
            yield from _tensors(node.op.body)


def _graph_lines(graph: Graph, nodes: Sequence[Node], marked: Collection[Node]) -> Iterator[str]:
    names = _value_names(graph, nodes)
    inputs = ", ".join(f"{names[value]}: {value.type}" for value in graph.inputs)
    outputs = ", ".join(f"{quoted(name)}: {type}" for name, type in graph.output_types.items())
    yield f"graph @{quoted(graph.name)}({inputs}) -> ({outputs}) {{"
    for note in graph.notes:
        yield f"  // note: {_comment(note)}"
    for node in nodes:
        first, *rest = _node_text(node, names).split("\n")
        yield f"{'>>' if node in marked else '  '}{first}"
        yield from (f"  {line}" for line in rest)
    yield f"  return {_listed(_reference(names, value) for value in graph.outputs)}"
    yield "}"


def _value_names(graph: Graph, nodes: Sequence[Node]) -> dict[Value, str]:
    """Inputs and named constants go by their names, all other values by number."""
    names = {value: f"%{quoted(value.name)}" for value in graph.inputs}
    taken = set(names.values())
    count = 0
    for node in nodes:
        own = f"%{quoted(node.op.name)}" if isinstance(node.op, Constant) and node.op.name else ""
        if own and own not in taken:
            names[node.outputs[0]] = own
            taken.add(own)
            continue
        for value in node.outputs:
            names[value] = f"%{count}"
            count += 1
    return names


def _reference(names: dict[Value, str], value: Value) -> str:
    return names.get(value, f"%?{quoted(value.name)}")


def _node_text(node: Node, names: dict[Value, str]) -> str:
    results = _listed(names[value] for value in node.outputs)
    operands = f"({_listed(_reference(names, value) for value in node.inputs)})" if node.inputs else ""
    attributes = node.op.attributes()
    if isinstance(node.op, Constant) and results == f"%{quoted(node.op.name)}":
        del attributes["name"]
    braces = f" {{{_attribute_list(attributes)}}}" if attributes else ""
    types = _listed(str(value.type) for value in node.outputs)
    source = f"  // {_comment(node.source)}" if node.source else ""
    return f"{results} = {node.op.op_name}{operands}{braces} : {types}{source}"


def _attribute_list(attributes: dict[str, object]) -> str:
    return _listed(f"{name}={_attribute(value)}" for name, value in attributes.items())


def _attribute(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value)
        case tuple():
            items: tuple[object, ...] = value
            return f"[{_listed(map(_attribute, items))}]"
        case Tensor():
            return _tensor(value)
        case Op():
            return f"{value.op_name}({_attribute_list(value.attributes())})"
        case Graph():
            return "\n".join(_graph_lines(value, value.nodes, ()))
        case _:
            raise GraphError(f"an attribute must be of a kind that has a text. Received: {value!r}.")


def _tensor(tensor: Tensor) -> str:
    if not is_inline(tensor):
        return f"#{tensor.digest[:DIGEST_DIGITS]}"
    # numpy's str is the shortest text that reads back as the same number of that dtype.
    items = [_element(item) for item in tensor.array.reshape(-1)]
    return f"[{_listed(items)}]" if tensor.array.ndim else items[0]


def _element(item: object) -> str:
    if isinstance(item, np.str_):
        return json.dumps(item)
    return str(item).lower() if isinstance(item, np.bool_) else str(item)


def quoted(name: str) -> str:
    """`name` as the text form spells it: plain where that is unambiguous, else in JSON's quotes."""
    return name if PLAIN_NAME.fullmatch(name) else json.dumps(name)


def _comment(text: str) -> str:
    return text if PLAIN_COMMENT.fullmatch(text) else json.dumps(text)


def _listed(items: Iterable[str]) -> str:
    return ", ".join(items)
