"""Graphs: immutable values and nodes in single assignment, and the Builder that makes them.

A `Value` is defined once, by a graph input or by one node. A `Graph` holds what its outputs need, in topological order,
so dead code cannot exist in one. A pass makes a new graph from old and new values with `substitute`.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from kcompile.errors import GraphError
from kcompile.ir.op import Op, Tensor
from kcompile.ir.ops.constant import Constant
from kcompile.ir.types import Array, TensorType


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of a graph. `producer` is None for a graph input, and `name` is set for one."""

    type: TensorType
    producer: "Node | None" = None
    index: int = 0
    name: str = ""

    @property
    def op(self) -> Op | None:
        """The op that computes the value; None for an input."""
        return self.producer.op if self.producer else None

    @property
    def constant(self) -> Array | None:
        """The array, where the value is a constant."""
        op = self.op
        return op.value.array if isinstance(op, Constant) else None

    def __repr__(self) -> str:
        return f"Value({self.type}, {self.op.op_name if self.op else self.name!r})"


@dataclass(frozen=True, eq=False)
class Node:
    """One application of an op. `source` is the path of the Keras layer that it comes from (``"encoder/conv1"``)."""

    op: Op
    inputs: tuple[Value, ...]
    source: str = ""
    outputs: tuple[Value, ...] = field(init=False)

    def __post_init__(self) -> None:
        types = self.op.result_types(tuple(value.type for value in self.inputs))
        outputs = tuple(Value(t, self, i) for i, t in enumerate(types))
        object.__setattr__(self, "outputs", outputs)

    def __repr__(self) -> str:
        return f"Node({self.op.op_name}, {self.source!r})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A function from named inputs to named outputs.

    `notes` name the passes that made the graph what it is.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [value.name for value in self.inputs]
        repeated = sorted({n for n in names if names.count(n) > 1 or not n})
        repeated += sorted({n for n in self.output_names if self.output_names.count(n) > 1})
        if repeated or len(self.outputs) != len(self.output_names) or any(v.producer for v in self.inputs):
            raise GraphError(f"names of a graph's inputs and of its outputs must be unique. Received: {repeated}.")

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that the outputs need, each after its operands."""
        return tuple(_topological(self.outputs, frozenset(self.inputs)))

    @cached_property
    def uses(self) -> Mapping[Value, int]:
        """How often each value is read, by nodes and as an output."""
        counts: dict[Value, int] = {}
        for value in (*(v for node in self.nodes for v in node.inputs), *self.outputs):
            counts[value] = counts.get(value, 0) + 1
        return counts

    @property
    def input_types(self) -> dict[str, TensorType]:
        """The inputs' types by name, in order."""
        return {value.name: value.type for value in self.inputs}

    @property
    def output_types(self) -> dict[str, TensorType]:
        """The outputs' types by name, in order."""
        return {name: value.type for name, value in zip(self.output_names, self.outputs, strict=True)}

    def with_note(self, note: str) -> "Graph":
        """The graph with one more note."""
        return replace(self, notes=(*self.notes, note))

    def __str__(self) -> str:
        from kcompile.ir.text import to_text

        return to_text(self)


class Builder:
    """Makes a graph node by node; types are inferred at once, so a bad graph fails on the line that built it."""

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self._inputs: list[Value] = []
        self._source = ""

    def input(self, name: str, type: TensorType) -> Value:
        """A new graph input."""
        value = Value(type, name=name)
        self._inputs.append(value)
        return value

    def constant(self, array: Array, name: str = "") -> Value:
        """A constant; `name` is its weight path (``"conv1/kernel"``)."""
        return self(Constant(Tensor(array), name))

    def __call__(self, op: Op, *inputs: Value) -> Value:
        """The result of `op`, which must have exactly one.

        Raises:
            TypeRuleError: the op does not accept the operands.
        """
        (result,) = self.multi(op, *inputs)
        return result

    def multi(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """All results of `op`."""
        return Node(op, inputs, self._source).outputs

    @contextmanager
    def source(self, path: str) -> Generator[None]:
        """Nodes made inside come from the Keras layer at `path` below the present one."""
        outer = self._source
        self._source = f"{outer}/{path}" if outer and path else outer or path
        try:
            yield
        finally:
            self._source = outer

    @contextmanager
    def at(self, source: str) -> Generator[None]:
        """Nodes made inside carry exactly this source, as a rewrite of a node of that source does."""
        outer, self._source = self._source, source
        try:
            yield
        finally:
            self._source = outer

    def build(self, outputs: Mapping[str, Value] | Sequence[Value]) -> Graph:
        """The graph that computes `outputs`; unnamed outputs are ``output_0``, ``output_1`` and so on."""
        named = outputs if isinstance(outputs, Mapping) else {f"output_{i}": v for i, v in enumerate(outputs)}
        return Graph(self.name, tuple(self._inputs), tuple(named.values()), tuple(named))


def substitute(graph: Graph, replacements: Mapping[Value, Value]) -> Graph:
    """`graph` with values replaced wherever they are read, in replacements too; the same object if nothing changes.

    Raises:
        GraphError: a replacement has another type than the value that it stands for.
    """
    for old, new in replacements.items():
        if old.type != new.type:
            raise GraphError(f"a value must be replaced by one of its type {old.type}. Received: {new.type}.")
    mapped: dict[Value, Value] = {value: value for value in graph.inputs}

    def resolve(value: Value) -> Value:
        while value in replacements:
            value = replacements[value]
        return value

    def final(value: Value) -> Value:
        return mapped[resolve(value)]

    for node in _topological([resolve(v) for v in graph.outputs], frozenset(graph.inputs), resolve):
        inputs = tuple(final(value) for value in node.inputs)
        same = all(new is old for new, old in zip(inputs, node.inputs, strict=True))
        made = node if same else Node(node.op, inputs, node.source)
        mapped.update(zip(node.outputs, made.outputs, strict=True))
    outputs = tuple(final(value) for value in graph.outputs)
    if all(new is old for new, old in zip(outputs, graph.outputs, strict=True)):
        return graph
    return replace(graph, outputs=outputs)


def inline(b: Builder, body: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
    """The outputs of `body` computed by `b` from `arguments`, one per input of the body."""
    values: dict[Value, Value] = dict(zip(body.inputs, arguments, strict=True))
    for node in body.nodes:
        with b.at(node.source):
            results = b.multi(node.op, *(values[v] for v in node.inputs))
        values.update(zip(node.outputs, results, strict=True))
    return tuple(values[v] for v in body.outputs)


def nodes_of(values: Sequence[Value]) -> tuple[Node, ...]:
    """The nodes that `values` need, each after its operands."""
    return tuple(_topological(values, None))


def _unchanged(value: Value) -> Value:
    return value


def _topological(
    outputs: Sequence[Value], inputs: frozenset[Value] | None, resolve: Callable[[Value], Value] = _unchanged
) -> Iterator[Node]:
    """Nodes that `outputs` need, operands first, without recursion; `resolve` says which value is really read.

    Where `inputs` are given, nothing else may be read that no node computes.
    """
    done: set[Node] = set()
    open_nodes: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(v.producer, False) for v in reversed(outputs) if v.producer]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            open_nodes.discard(node)
            done.add(node)
            yield node
            continue
        if node in open_nodes:
            raise GraphError(f"a graph must not have cycles. Received: one through {node!r}.")
        open_nodes.add(node)
        stack.append((node, True))
        for value in reversed(node.inputs):
            read = resolve(value)
            if read.producer is None and inputs is not None and read not in inputs:
                raise GraphError(f"`{read.name}` is read but is no input of the graph ({node!r}).")
            if read.producer and read.producer not in done:
                stack.append((read.producer, False))
