"""Keras's losses, by the names that Keras gives them."""

from kcompile.frontend.training import losses as _losses
from kcompile.frontend.training.losses import *  # noqa: F403
from kcompile.frontend.training.losses import get as deserialize

__all__ = ["deserialize"]
__all__ += _losses.__all__
