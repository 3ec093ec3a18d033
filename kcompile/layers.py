"""Keras's layers, by the names that Keras gives them."""

from kcompile.frontend import layers as _layers
from kcompile.frontend.inputs import Input, InputLayer
from kcompile.frontend.layer import Layer
from kcompile.frontend.layers import *  # noqa: F403
from kcompile.frontend.layers import aliases as _aliases
from kcompile.frontend.layers.aliases import *  # noqa: F403
from kcompile.frontend.layers.functions import Lambda

__all__ = ["Input", "InputLayer", "Lambda", "Layer"]
__all__ += _aliases.__all__
__all__ += _layers.__all__
