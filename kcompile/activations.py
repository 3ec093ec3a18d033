"""Keras's activations as functions, by the names that Keras gives them."""

from collections.abc import Callable
from typing import Any

from kcompile.frontend.activation_functions import FUNCTIONS as _FUNCTIONS
from kcompile.frontend.activation_functions import deserialize, get, serialize

_PUBLIC = {"deserialize": deserialize, "get": get, "serialize": serialize}


def __getattr__(name: str) -> Callable[..., Any]:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    raise AttributeError(f"kcompile.activations has no activation {name!r}")


def __dir__() -> list[str]:
    return sorted([*_FUNCTIONS, *_PUBLIC])
