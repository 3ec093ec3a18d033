"""Keras's metrics, by the names that Keras gives them."""

from kcompile.frontend.training import metrics as _metrics
from kcompile.frontend.training.metrics import *  # noqa: F403

__all__: list[str] = []
__all__ += _metrics.__all__
