"""Names as Keras makes them."""

import re


def snake_case(name: str) -> str:
    """``MeanSquaredError`` -> ``mean_squared_error``, ``AUC`` -> ``auc``, as `to_snake_case` in Keras."""
    apart = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", apart).lower()


def object_name(value: object) -> str:
    """The name of a function, or of an object, that is shown for it."""
    name = getattr(value, "name", None) or getattr(value, "__name__", None)
    return str(name) if name else snake_case(type(value).__name__)
