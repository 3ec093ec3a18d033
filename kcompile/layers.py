"""Keras's layers, by the names that Keras gives them."""

from kcompile.frontend.layers import *  # noqa: F403
from kcompile.frontend.layers import __all__ as __all__
