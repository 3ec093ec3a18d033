"""What weights are brought back to after each step, by Keras's names (``keras/src/constraints/constraints.py``)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from kcompile.frontend.training.eager import on_array
from kcompile.frontend.training.formulas import as_formula
from kcompile.frontend.training.losses.functions import EPSILON
from kcompile.frontend.training.named import lookup
from kcompile.frontend.training.naming import object_name
from kcompile.ir.expression import Expression

Axes = Sequence[int] | int


@dataclass(frozen=True)
class Constraint(ABC):
    """Base: a function from a weight to one that keeps the constraint."""

    @abstractmethod
    def __call__(self, w: Expression) -> Expression:
        """The nearest weight that keeps the constraint, of the same shape."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal constraint."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The one that `config` describes."""
        return cls(**config)


def _norms(w: Expression, axis: Axes) -> Expression:
    return w.square().sum((axis,) if isinstance(axis, int) else axis, keepdims=True).sqrt()


@dataclass(frozen=True)
class MaxNorm(Constraint):
    """Norms over `axis` of `max_value` at most."""

    max_value: float = 2
    axis: Axes = 0

    @on_array
    def __call__(self, w: Expression) -> Expression:
        norms = _norms(w, self.axis)
        return w * (norms.clip(0.0, float(self.max_value)) / (EPSILON + norms))


@dataclass(frozen=True)
class NonNeg(Constraint):
    """No element below 0."""

    @on_array
    def __call__(self, w: Expression) -> Expression:
        return w.maximum(0.0)


@dataclass(frozen=True)
class UnitNorm(Constraint):
    """Norms over `axis` of 1."""

    axis: Axes = 0

    @on_array
    def __call__(self, w: Expression) -> Expression:
        return w / (EPSILON + _norms(w, self.axis))


@dataclass(frozen=True)
class MinMaxNorm(Constraint):
    """Norms over `axis` moved towards `min_value` to `max_value`, all the way where `rate` is 1."""

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: Axes = 0

    @on_array
    def __call__(self, w: Expression) -> Expression:
        norms = _norms(w, self.axis)
        desired = self.rate * norms.clip(self.min_value, self.max_value) + (1 - self.rate) * norms
        return w * (desired / (EPSILON + norms))


_CLASSES: tuple[type[Constraint], ...] = (MaxNorm, MinMaxNorm, NonNeg, UnitNorm)


def get(identifier: Any) -> Callable[[Expression], Expression] | None:
    """The constraint that a name, a config or a function stands for; None for None.

    Raises:
        ModelError: there is none of that name, or it does not take these arguments.
    """
    found = lookup("a constraint", _CLASSES, identifier)
    return None if found is None else as_formula(found, f"constraint `{object_name(found)}`")
