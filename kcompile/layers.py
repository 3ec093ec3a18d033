"""Keras's layers, by the names that Keras gives them."""

from kcompile.frontend import layers as _layers
from kcompile.frontend.inputs import Input, InputLayer
from kcompile.frontend.layer import Layer
from kcompile.frontend.layers import *  # noqa: F403

__all__ = ["Input", "InputLayer", "Layer"]
__all__ += _layers.__all__
