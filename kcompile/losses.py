"""Keras's losses, by the names that Keras gives them."""

from kcompile.frontend.training import losses as _losses
from kcompile.frontend.training.losses import *  # noqa: F403

__all__: list[str] = []
__all__ += _losses.__all__
