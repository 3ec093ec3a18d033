"""Keras's constraints, by the names that Keras gives them."""

from kcompile.frontend.objects import deserialize_keras_object as deserialize
from kcompile.frontend.objects import serialize_keras_object as serialize
from kcompile.frontend.training.constraints import Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm, get

max_norm, min_max_norm, non_neg, unit_norm = MaxNorm, MinMaxNorm, NonNeg, UnitNorm

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "deserialize",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]
