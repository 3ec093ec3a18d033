"""Checks that a graph keeps the rules of the IR, whoever made it."""

from collections.abc import Iterator, Sequence

from kcompile.errors import GraphError
from kcompile.ir import dims
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.ops.fused import Fused
from kcompile.ir.ops.scan import Scan
from kcompile.ir.text import to_text

# What a message prints at most before and after the faulty line.
_NEIGHBOURS = 12


def verify(graph: Graph) -> None:
    """Nothing, for a graph in which every value is defined before it is read and has the type that its op infers.

    Raises:
        GraphError: a rule is broken; the text shows the graph around the faulty lines, which are marked ``>>``.
    """
    _verify(graph, frozenset())


def _verify(graph: Graph, outer_symbols: frozenset[str]) -> None:
    nodes = _reachable(graph)
    problems = list(_problems(graph, nodes, outer_symbols))
    if problems:
        text = to_text(graph, {node for node, _ in problems if node}, nodes)
        laws = "\n".join(dict.fromkeys(law for _, law in problems))
        raise GraphError(f"{laws}\n{_neighbourhood(text)}")


def _problems(graph: Graph, nodes: Sequence[Node], outer_symbols: frozenset[str]) -> Iterator[tuple[Node | None, str]]:
    known = outer_symbols | dims.symbols(*(dim for value in graph.inputs for dim in value.type.shape))
    defined: set[Value] = set(graph.inputs)
    for node in nodes:
        yield from ((node, law) for law in _node_problems(node, defined, known))
        defined.update(node.outputs)
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        if value not in defined:
            yield value.producer, f"output `{name}` must be an input of the graph or the result of a node."
    if not all(graph.output_names):
        yield None, f"names of outputs must not be empty. Received: {graph.output_names}."


def _node_problems(node: Node, defined: set[Value], known: frozenset[str]) -> Iterator[str]:
    name = f"`{node.op.op_name}`"
    if any(value not in defined for value in node.inputs):
        yield f"{name} reads a value that is defined nowhere before it."
    try:
        inferred = node.op.result_types(tuple(value.type for value in node.inputs))
    except GraphError as error:
        yield str(error)
        return
    found = tuple(value.type for value in node.outputs)
    if inferred != found:
        yield f"{name} must have the results {', '.join(map(str, inferred))}. Received: {', '.join(map(str, found))}."
    if any(value.producer is not node or value.index != i for i, value in enumerate(node.outputs)):
        yield f"{name} must be the producer of its own results."
    read = dims.symbols(*(dim for value in node.inputs for dim in value.type.shape))
    for value in node.outputs:
        yield from _unknown_symbols(f"the result of {name}", value, known | read)
    if isinstance(node.op, Fused | Scan):
        try:
            _verify(node.op.body, known)
        except GraphError as error:
            yield f"the body of {name} is wrong: {error}"


def _unknown_symbols(what: str, value: Value, known: frozenset[str]) -> Iterator[str]:
    unknown = sorted(dims.symbols(*value.type.shape) - known)
    if unknown:
        yield f"{what} has the symbols {', '.join(unknown)}, which no input has. Received: {value.type}."


def _reachable(graph: Graph) -> tuple[Node, ...]:
    """The nodes that the outputs need, operands first, in broken graphs too."""
    try:
        return graph.nodes
    except GraphError:
        pass
    order: dict[Node, None] = {}
    entered: set[Node] = set()
    stack = [(value.producer, False) for value in reversed(graph.outputs) if value.producer]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order[node] = None
        elif node not in entered:
            entered.add(node)
            stack.append((node, True))
            stack.extend((value.producer, False) for value in reversed(node.inputs) if value.producer)
    return tuple(order)


def _neighbourhood(text: str) -> str:
    lines = text.rstrip("\n").split("\n")
    marked = [i for i, line in enumerate(lines) if line.startswith(">>")]
    if not marked:
        return "\n".join(lines[: 2 * _NEIGHBOURS] + ["..."] * (len(lines) > 2 * _NEIGHBOURS))
    first, last = max(marked[0] - _NEIGHBOURS, 0), marked[0] + _NEIGHBOURS + 1
    return "\n".join(["..."] * (first > 0) + lines[first:last] + ["..."] * (last < len(lines)))
