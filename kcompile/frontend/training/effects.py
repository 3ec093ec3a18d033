"""What a traced step does beside its results: random numbers, costs beside the loss, new values of weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from kcompile.frontend.layer import Layer
from kcompile.frontend.tracing import flatten
from kcompile.frontend.training import regularizers
from kcompile.frontend.training.state import State
from kcompile.ir import expression
from kcompile.ir.dims import Dim
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Value
from kcompile.ir.ops import RandomNormal, RandomUniform


@dataclass
class Effects:
    """Shared by the traces of all layers of a step.

    Attributes:
        seed: the step's seed: ``i64[]``.
        training: whether layers act as in training; an evaluation has costs, but draws nothing.
        losses: costs beside the loss, numbers.
    """

    state: State
    seed: Value
    training: bool = True
    losses: list[Expression] = field(default_factory=list[Expression])
    _streams: "count[int]" = field(default_factory=count)

    def uniform(self, shape: Sequence[Dim], dtype: str) -> Expression:
        """Random numbers from 0 to 1, others than those of every other call."""
        return self._drawn(RandomUniform, shape, dtype)

    def normal(self, shape: Sequence[Dim], dtype: str) -> Expression:
        """Normally distributed random numbers, others than those of every other call."""
        return self._drawn(RandomNormal, shape, dtype)

    def _drawn(self, op: Any, shape: Sequence[Dim], dtype: str) -> Expression:
        b = self.state.b
        return Expression(b, b(op(tuple(shape), next(self._streams), dtype), self.seed))

    def add(self, cost: Value) -> None:
        """Add a cost beside the loss."""
        self.losses.append(Expression(self.state.b, cost))

    def regularize(self, layer: Layer, results: Any) -> None:
        """Add the cost that a layer's `activity_regularizer` puts on its results: its mean over the batch."""
        penalty = regularizers.get(getattr(layer, "activity_regularizer", None))
        if penalty is None:
            return
        for result in flatten(results):
            if isinstance(result, Value):
                cost = penalty(Expression(self.state.b, result))
                size = expression.count(self.state.b, result.type.shape[:1], cost.type.dtype)
                self.losses.append(cost / size if result.type.rank else cost)
