"""Keras's optimizers, by the names that Keras gives them."""

from kcompile.frontend.training import optimizers as _optimizers
from kcompile.frontend.training.optimizers import *  # noqa: F403
from kcompile.frontend.training.optimizers import get as deserialize

__all__ = ["deserialize"]
__all__ += _optimizers.__all__
