"""A group of nodes that a back end may run as one kernel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Graph, Value


@dataclass(frozen=True)
class Fused(Op, name="fused", operands=("*xs",)):
    """Means its `body`; `label` (``"conv+bias+relu"``) tells back ends which kernel fits. Others inline it.

    The operands are the body's inputs in order, and the results its outputs.
    """

    label: str
    body: "Graph"

    def infer(self, types: Types) -> Types:
        expected = tuple(value.type for value in self.body.inputs)
        self.require(types == expected, "operands must have the types of the body's inputs", types)
        return tuple(value.type for value in self.body.outputs)

    def kernel(self, args: Arrays) -> Arrays:
        from kcompile.ir.evaluate import run_nodes

        return run_nodes(self.body, args)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        from kcompile.ir.graph import inline

        return inline(b, self.body, xs)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        from kcompile.ir.evaluate import bind_graph

        return replace(self, body=bind_graph(self.body, bindings))

    def macs(self, types: Types, results: Types) -> Dim:
        nodes: Any = self.body.nodes
        return dims.add(*(n.op.macs(tuple(v.type for v in n.inputs), tuple(v.type for v in n.outputs)) for n in nodes))

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.graph import inline
        from kcompile.ir.passes.grad import pullback

        floats = [x for x in xs if x.type.is_float]
        found = dict(zip(floats, pullback(b, inline(b, self.body, xs), dys, floats), strict=True))
        return tuple(found.get(x) for x in xs)
