"""Keras's callbacks, by the names that Keras gives them."""

from kcompile.frontend.training import callbacks as _callbacks
from kcompile.frontend.training.callbacks import *  # noqa: F403

__all__: list[str] = []
__all__ += _callbacks.__all__
