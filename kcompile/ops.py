"""The functions of ``keras.ops``, by the names that Keras gives them.

On symbolic tensors they record calls in a functional graph; in the `call` of a layer, a loss or a metric they write its
graph; on arrays and numbers they compute arrays. What Keras has and kcompile lacks is an AttributeError.
"""

import sys
from collections.abc import Callable
from typing import Any

from kcompile.frontend.operations.functions import FUNCTIONS as _FUNCTIONS

# Keras has its functions in these too: `keras.ops.image.resize`.
_SECTIONS = ("core", "image", "linalg", "math", "nn", "numpy")


def __getattr__(name: str) -> Callable[..., Any]:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if name in _SECTIONS:
        return sys.modules[__name__]  # pyright: ignore[reportReturnType]
    raise AttributeError(f"kcompile.ops has no function {name!r}")


def __dir__() -> list[str]:
    return sorted(_FUNCTIONS)
