"""Costs on weights and activations by Keras's names, as IR (``keras/src/regularizers/regularizers.py``)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.eager import on_array
from kcompile.frontend.training.formulas import as_formula
from kcompile.frontend.training.losses.functions import unit
from kcompile.frontend.training.named import lookup
from kcompile.frontend.training.naming import object_name
from kcompile.ir.expression import Expression
from kcompile.ir.ops import MatMul

Penalty = Callable[[Expression], Expression]


@dataclass(frozen=True)
class Regularizer(ABC):
    """Base: a function from a tensor to its cost, a number."""

    @abstractmethod
    def __call__(self, x: Expression) -> Expression:
        """The cost of ``x``: ``T[...] -> T[]``."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal regularizer."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The one that `config` describes."""
        return cls(**config)


@dataclass(frozen=True)
class L1L2(Regularizer):
    """``l1 * sum(|x|) + l2 * sum(x ** 2)``."""

    l1: float = 0.0
    l2: float = 0.0

    @on_array
    def __call__(self, x: Expression) -> Expression:
        cost = x.like(0.0)
        if self.l1:
            cost = cost + self.l1 * x.abs().sum()
        return cost + self.l2 * x.square().sum() if self.l2 else cost


@dataclass(frozen=True)
class L1(Regularizer):
    """``l1 * sum(|x|)``."""

    l1: float = 0.01

    @on_array
    def __call__(self, x: Expression) -> Expression:
        return self.l1 * x.abs().sum()


@dataclass(frozen=True)
class L2(Regularizer):
    """``l2 * sum(x ** 2)``."""

    l2: float = 0.01

    @on_array
    def __call__(self, x: Expression) -> Expression:
        return self.l2 * x.square().sum()


@dataclass(frozen=True)
class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean size of the cosines between the rows, or the columns, of a matrix."""

    factor: float = 0.01
    mode: Literal["rows", "columns"] = "rows"

    @on_array
    def __call__(self, x: Expression) -> Expression:
        if x.type.rank != 2:
            raise ModelError(f"OrthogonalRegularizer takes matrices. Received: {x.type}.")
        rows = unit(x if self.mode == "rows" else x.swap_last(), (1,))
        size = rows.type.static_shape()[0]
        apart = rows.like(0.0) + Expression(x.b, x.b.constant(1 - np.eye(size, dtype=x.type.dtype)))
        cosines = rows.apply(MatMul(), rows.swap_last()) * apart
        return self.factor * 0.5 * cosines.abs().sum() / (size * (size - 1.0) / 2.0)


_CLASSES: tuple[type[Regularizer], ...] = (L1, L2, L1L2, OrthogonalRegularizer)


def get(identifier: Any) -> Penalty | None:
    """The regularizer that a name, a config or a function stands for; None for None.

    Raises:
        ModelError: there is none of that name, or it does not take these arguments.
    """
    found = lookup("a regularizer", _CLASSES, identifier)
    return None if found is None else as_formula(found, f"regularizer `{object_name(found)}`")
