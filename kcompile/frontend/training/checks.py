"""What `fit` and its kin refuse before they begin, and what they warn of."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from kcompile.errors import InputError
from kcompile.frontend.training.callbacks.base import Callback
from kcompile.frontend.training.data import Batch

_COUNTS = ("batch_size", "steps_per_epoch", "validation_steps", "validation_batch_size", "steps")


def check_arguments(**given: Any) -> None:
    """Refuse arguments that are of another kind than Keras's, all at once.

    Raises:
        InputError: there are some.
    """
    problems = [
        f"`{name}` must be {law}. Received: {name}={value!r}."
        for name, value in given.items()
        if (law := _broken_law(name, value))
    ]
    if problems:
        raise InputError("\n".join(problems))


def _broken_law(name: str, value: Any) -> str:
    """What an argument must be, where it is not."""
    if name in _COUNTS:
        return "" if value is None or (_is_integer(value) and value > 0) else "an integer above 0"
    match name:
        case "epochs" | "initial_epoch":
            return "" if _is_integer(value) and value >= 0 else "an integer from 0 on"
        case "validation_split":
            fits = isinstance(value, int | float | np.number) and 0 <= float(value) < 1
            return "" if fits else "a number from 0 to below 1"
        case "class_weight":
            return "" if value is None or isinstance(value, Mapping) else "a dict of weights by class"
        case "callbacks":
            listed: list[Any] = list(value) if isinstance(value, list | tuple) else [value]  # pyright: ignore
            fits = value is None or all(isinstance(each, Callback) for each in listed)
            return "" if fits else "a callback or a list of callbacks"
        case _:
            return ""


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def warn_of_nan(batch: Batch, epoch: int, step: int) -> None:
    """Say that the loss is no number any more, and what may be the cause."""
    parts = {"x": batch.x, "y": batch.y, "sample_weight": batch.weights}
    holding = [
        f"`{argument}` ({name}) holds NaN or infinity"
        for argument, arrays in parts.items()
        for name, array in arrays.items()
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    ]
    cause = ", ".join(holding) if holding else "all data is finite; the learning rate may be too large"
    law = f"the loss is NaN from step {step + 1} of epoch {epoch + 1} on"
    advice = "kcompile.callbacks.TerminateOnNaN() ends the training there, with raise_error=True as an error"
    warnings.warn(f"{law}. Received: {cause}. {advice}.", stacklevel=2)
