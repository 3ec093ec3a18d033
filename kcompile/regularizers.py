"""Keras's regularizers, by the names that Keras gives them."""

from kcompile.frontend.objects import deserialize_keras_object as deserialize
from kcompile.frontend.objects import serialize_keras_object as serialize
from kcompile.frontend.training.regularizers import L1, L1L2, L2, OrthogonalRegularizer, Regularizer, get

l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "OrthogonalRegularizer",
    "Regularizer",
    "deserialize",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "orthogonal_regularizer",
    "serialize",
]
