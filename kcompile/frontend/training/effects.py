"""What a traced step does beside its results: random numbers, costs beside the loss, new values of weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from kcompile.frontend.tracing import flatten
from kcompile.frontend.training import regularizers
from kcompile.frontend.training.owners import weight_penalties
from kcompile.frontend.training.state import Pack, State
from kcompile.ir import expression
from kcompile.ir.dims import Dim
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Value
from kcompile.ir.ops import RandomNormal, RandomUniform

if TYPE_CHECKING:
    from kcompile.frontend.layer import Layer


@dataclass
class Effects:
    """Shared by the traces of all layers of a step.

    Attributes:
        seed: the step's seed: ``i64[]``.
        training: whether layers act as in training; an evaluation has costs, but draws nothing.
        costs: beside the loss, numbers, with the layers that add them.
        roots: where a user wrote the step, the model that it is of, or the layers that it calls; elsewhere None.
        labels: the inputs of the step that a loss takes as labels of an output, and as their weights.
        pack: the weights that the step changes, where they are held in one vector.
        overrides: whether `training` here takes the place of what calls in a model's graph say of it, as in Keras's
            `fit`, `evaluate` and `predict`.
    """

    state: State
    seed: Value
    training: bool = True
    overrides: bool = True
    costs: list[tuple["Layer", Expression]] = field(default_factory=list[tuple["Layer", Expression]])
    roots: "list[Layer] | None" = None
    labels: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    pack: Pack | None = None
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

    def add(self, layer: "Layer", cost: Value) -> None:
        """Add a cost of a layer beside the loss."""
        self.costs.append((layer, Expression(self.state.b, cost)))

    def regularize(self, layer: "Layer", results: Any) -> None:
        """Add the cost that a layer's `activity_regularizer` puts on its results: its mean over the batch."""
        penalty = regularizers.get(getattr(layer, "activity_regularizer", None))
        if penalty is None:
            return
        for result in flatten(results):
            if isinstance(result, Value):
                cost = penalty(Expression(self.state.b, result))
                size = expression.count(self.state.b, result.type.shape[:1], cost.type.dtype)
                self.costs.append((layer, cost / size if result.type.rank else cost))

    @property
    def losses(self) -> list[Expression]:
        """All costs."""
        return [cost for _, cost in self.costs]

    def losses_of(self, layer: "Layer") -> list[Expression]:
        """The costs of a layer and of those inside, and then of their weights."""
        inside = _tree(layer)
        added = [cost for owner, cost in self.costs if id(owner) in inside]
        return [*added, *weight_penalties(layer, self.state, layer.trainable_weights)]

    def enter(self, layer: "Layer") -> None:
        """Let the step call a layer, and take back what it, and those inside, cost in an earlier call, as in Keras."""
        if self.roots is not None and not any(layer is root for root in self.roots):
            self.roots.append(layer)
        inside = _tree(layer) if self.costs else set[int]()
        self.costs = [(owner, cost) for owner, cost in self.costs if id(owner) not in inside]


def _tree(layer: "Layer") -> set[int]:
    """The identities of a layer and of those inside."""
    return {id(layer)}.union(*map(_tree, layer.sublayers.values()))
