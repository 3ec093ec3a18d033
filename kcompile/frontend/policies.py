"""The dtype policy of layers that state none, as ``keras.config.set_dtype_policy`` sets it."""

from typing import Any

from kcompile.errors import ModelError

_POLICIES = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")
_current = ["float32"]


def dtype_policy() -> str:
    """The name of the policy of layers that state none."""
    return _current[0]


def set_dtype_policy(policy: Any) -> None:
    """Give layers and models that are made from now on, and state no `dtype`, a policy.

    Raises:
        ModelError: there is none of that name.
    """
    name = getattr(policy, "name", policy)
    if name not in _POLICIES:
        raise ModelError(f"a dtype policy must be one of {', '.join(_POLICIES)}. Received: {policy!r}.")
    _current[0] = name


def reset_dtype_policy() -> None:
    """Go back to "float32"."""
    _current[0] = "float32"
