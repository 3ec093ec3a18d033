"""Rewrite rules and the driver that applies them.

    @rule(Relu)
    def relu_of_relu(c: Context, node: Node, op: Relu) -> Result:
        \"\"\"``relu(relu(x))`` is ``relu(x)``.\"\"\"
        return node.inputs[0] if isinstance(node.inputs[0].op, Relu) else None

A rule is rooted on an op class, guards first. It returns the values that stand for the node's results, or a `Skip` that
says why a node that looks right stays as it is, or None where it plainly does not match. New nodes are made with
``c.b`` from the node's operands and what these are computed from, never from what reads the node.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from kcompile.errors import GraphError
from kcompile.ir.graph import Builder, Graph, Node, Value, substitute
from kcompile.ir.op import Op

O = TypeVar("O", bound=Op)  # noqa: E741

# A sweep applies every rule once to every node; chains of any sensible length end long before this.
_MAX_SWEEPS = 50


@dataclass(frozen=True)
class Skip:
    """Why a rule left a node alone. `rule` and `node` are filled in by the driver."""

    reason: str
    rule: str = ""
    node: Node | None = None

    @property
    def source(self) -> str:
        """The path of the Keras layer that the node comes from."""
        return self.node.source if self.node else ""

    def __str__(self) -> str:
        what = self.node.op.op_name if self.node else ""
        return f"{self.source or 'the graph itself'}: {self.rule} left `{what}` as it is: {self.reason}"


Result: TypeAlias = Value | tuple[Value, ...] | Skip | None


@dataclass(frozen=True)
class Context:
    """What a rule may ask, and the builder that makes its nodes."""

    graph: Graph
    b: Builder

    def only_use(self, value: Value) -> bool:
        """Whether `value` is read exactly once."""
        return self.graph.uses[value] == 1


@dataclass(frozen=True)
class Rule:
    """A named function for nodes of the op classes `roots`."""

    name: str
    roots: tuple[type[Op], ...]
    apply: Callable[[Context, Node, Any], Result]


def rule(*roots: type[O]) -> Callable[[Callable[[Context, Node, O], Result]], Rule]:
    """Make the decorated function a `Rule` for nodes whose op is of one of `roots`, which are leaf classes."""

    def make(function: Callable[[Context, Node, O], Result]) -> Rule:
        return Rule(function.__name__, roots, function)

    return make


def rewrite(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """`graph` with `rules` applied until none changes it; the same object where none does."""
    by_root = _by_root(rules)
    for _ in range(_MAX_SWEEPS):
        replacements: dict[Value, Value] = {}
        for applied, node, result in _matches(graph, by_root):
            if not isinstance(result, Skip):
                replacements.update(_checked(applied, node, result))
        changed = substitute(graph, replacements)
        if changed is graph:
            break
        graph = changed
    return graph


def skips(graph: Graph, rules: Sequence[Rule]) -> list[Skip]:
    """Why `rules` leave nodes of `graph` as they are."""
    found = _matches(graph, _by_root(rules))
    return [replace(result, rule=r.name, node=node) for r, node, result in found if isinstance(result, Skip)]


def _by_root(rules: Iterable[Rule]) -> dict[type[Op], list[Rule]]:
    table: dict[type[Op], list[Rule]] = {}
    for each in rules:
        for root in each.roots:
            table.setdefault(root, []).append(each)
    return table


def _matches(
    graph: Graph, by_root: dict[type[Op], list[Rule]]
) -> Iterator[tuple[Rule, Node, Value | tuple[Value, ...] | Skip]]:
    """Every Skip, and the first replacement for each node."""
    context = Context(graph, Builder(graph.name))
    for node in graph.nodes:
        for each in by_root.get(type(node.op), ()):
            with context.b.at(node.source):
                result = each.apply(context, node, node.op)
            if result is not None:
                yield each, node, result
            if result is not None and not isinstance(result, Skip):
                break


def _checked(applied: Rule, node: Node, result: Value | tuple[Value, ...]) -> Iterator[tuple[Value, Value]]:
    new = (result,) if isinstance(result, Value) else result
    for old, made in zip(node.outputs, new, strict=True):
        if old.type != made.type:
            raise GraphError(f"rule {applied.name} must keep the type {old.type} of {node!r}. Received: {made.type}.")
        yield old, made
