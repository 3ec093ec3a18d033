"""Keras's optimizers, by the names that Keras gives them."""

from kcompile.frontend.training import optimizers as _optimizers
from kcompile.frontend.training.optimizers import *  # noqa: F403

__all__: list[str] = []
__all__ += _optimizers.__all__
