"""Keras's constraints, by the names that Keras gives them."""

from kcompile.frontend.training.constraints import Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm, get

max_norm, min_max_norm, non_neg, unit_norm = MaxNorm, MinMaxNorm, NonNeg, UnitNorm

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "unit_norm",
]
