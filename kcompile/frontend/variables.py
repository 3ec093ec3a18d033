"""Variables that users make by themselves (``keras.Variable``)."""

from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import initializers
from kcompile.frontend.training.eager import as_array
from kcompile.frontend.weight import Weight


def Variable(  # noqa: N802 - Keras's name
    initializer: Any,
    shape: Any = None,
    dtype: str | None = None,
    trainable: bool = True,
    autocast: bool = True,
    name: str | None = None,
) -> Weight:
    """A variable filled with an array, or by an initializer for a shape; it belongs to the layer that it is set on.

    Raises:
        ModelError: an initializer is given without a shape.
    """
    del autocast
    if not callable(initializer) and not isinstance(initializer, str | dict):
        value = as_array(initializer)
        return Weight(name or "variable", value.astype(dtype) if dtype else value.copy(), trainable)
    if shape is None:
        raise ModelError(f"a variable filled by an initializer needs a `shape`. Received: {initializer!r} alone.")
    filled = initializers.get(initializer)(tuple(shape), dtype or "float32")
    return Weight(name or "variable", np.asarray(filled), trainable)
