"""The names of layers that are given none."""

import re
from collections import Counter

from kcompile.frontend.policies import reset_dtype_policy

_names: Counter[str] = Counter()


def unique_name(class_name: str) -> str:
    """``Conv2D`` -> ``conv2d``, then ``conv2d_1``, as Keras names layers."""
    snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", class_name)
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
    count = _names[snake]
    _names[snake] += 1
    return f"{snake}_{count}" if count else snake


def reset_names() -> None:
    """Start automatic names afresh."""
    _names.clear()


def clear_session() -> None:
    """Start automatic names and the dtype policy afresh, as `keras.utils.clear_session` does."""
    reset_names()
    reset_dtype_policy()
