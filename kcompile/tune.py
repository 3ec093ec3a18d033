"""Searches for hyper-parameters, by the names that Keras Tuner gives them."""

from kcompile.frontend import tuning as _tuning
from kcompile.frontend.tuning import *  # noqa: F403

__all__: list[str] = []
__all__ += _tuning.__all__
