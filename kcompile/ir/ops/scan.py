"""A loop over the steps of sequences, whose number may be open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from kcompile.errors import GraphError
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values
from kcompile.ir.types import TensorType

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Graph, Value


@dataclass(frozen=True)
class Scan(Op, name="scan", operands=("*xs",)):
    """`body` for each step along axis 1, from the first to the last or, where `reverse`, from the last to the first.

    The operands are `constants` tensors that every step reads, the first `states`, then sequences ``T[N, L, ...]``; the
    body takes the constants, the states and one step ``T[N, ...]`` of each sequence, and gives the new states and
    outputs. The results are the last states, then the outputs of all steps ``T[N, L, ...]``, in the sequences' order.
    """

    body: "Graph"
    constants: int
    states: int
    reverse: bool = False

    def infer(self, types: Types) -> Types:
        first = self.constants + self.states
        sequences = types[first:]
        self.require(bool(sequences) and all(type.rank > 1 for type in sequences), "needs sequences [N, L, ...]", types)
        length = sequences[0].shape[1]
        self.require(all(type.shape[1] == length for type in sequences), "sequences must be equally long", types)
        steps = tuple(type.with_shape((type.shape[0], *type.shape[2:])) for type in sequences)
        expected = tuple(value.type for value in self.body.inputs)
        self.require((*types[:first], *steps) == expected, "operands must have the types of the body's inputs", types)
        results = tuple(value.type for value in self.body.outputs)
        self.require(results[: self.states] == types[self.constants : first], "states must keep their types", types)
        return (*results[: self.states], *(self._of_all_steps(type, length) for type in results[self.states :]))

    def _of_all_steps(self, type: TensorType, length: Dim) -> TensorType:
        return type.with_shape((type.shape[0], length, *type.shape[1:]))

    def kernel(self, args: Arrays) -> Arrays:
        from kcompile.ir.evaluate import run_nodes

        first = self.constants + self.states
        constants, states, sequences = args[: self.constants], args[self.constants : first], args[first:]
        length = sequences[0].shape[1]
        outputs: dict[int, Arrays] = {}
        for i in self._order(length):
            found = run_nodes(self.body, (*constants, *states, *(sequence[:, i] for sequence in sequences)))
            states, outputs[i] = found[: self.states], found[self.states :]
        stacked = (np.stack([outputs[i][n] for i in range(length)], axis=1) for n in range(len(outputs[0])))
        return (*states, *stacked)

    def _order(self, length: int) -> range:
        return range(length - 1, -1, -1) if self.reverse else range(length)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...] | None":
        from kcompile.ir.graph import inline
        from kcompile.ir.ops.shape import Concat, Reshape, Slice

        first = self.constants + self.states
        constants, states, sequences = tuple(xs[: self.constants]), tuple(xs[self.constants : first]), xs[first:]
        length = sequences[0].type.shape[1]
        if not isinstance(length, int):
            return None
        outputs: dict[int, tuple[Value, ...]] = {}
        for i in self._order(length):
            slices = [b(Slice(1, i, i + 1), sequence) for sequence in sequences]
            steps = [b(Reshape((x.type.shape[0], *x.type.shape[2:])), x) for x in slices]
            found = inline(b, self.body, (*constants, *states, *steps))
            states, outputs[i] = found[: self.states], found[self.states :]

        def stacked(values: "Sequence[Value]") -> "Value":
            shape = values[0].type.shape
            return b(Concat(1), *(b(Reshape((shape[0], 1, *shape[1:])), value) for value in values))

        count = len(self.body.outputs) - self.states
        return (*states, *(stacked([outputs[i][n] for i in range(length)]) for n in range(count)))

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.passes.grad import pullback

        results = self.decompose(b, xs)
        if results is None:
            law = "`scan` has a gradient for a known number of steps only"
            raise GraphError(f"{law}. Give the model's Input its length.")
        floats = [x for x in xs if x.type.is_float]
        found = dict(zip(floats, pullback(b, results, dys, floats), strict=True))
        return tuple(found.get(x) for x in xs)

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        from kcompile.ir.evaluate import bind_graph

        return replace(self, body=bind_graph(self.body, bindings))
