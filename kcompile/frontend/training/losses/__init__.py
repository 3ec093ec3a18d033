"""Losses by Keras's names: classes, functions, and `get`."""

from collections.abc import Callable, Mapping
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend import registry
from kcompile.frontend.training.losses.alignment import ctc
from kcompile.frontend.training.losses.base import Loss
from kcompile.frontend.training.losses.classes import (
    CLASSES,
    CTC,
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    CategoricalHinge,
    Circle,
    CosineSimilarity,
    Dice,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    LossFunctionWrapper,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
    Tversky,
)
from kcompile.frontend.training.losses.functions import (
    Masked,
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    categorical_hinge,
    circle,
    cosine_similarity,
    dice,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
    tversky,
)

_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    categorical_hinge,
    circle,
    cosine_similarity,
    ctc,
    dice,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
    tversky,
)
_SHORT = {
    "bce": binary_crossentropy,
    "kld": kl_divergence,
    "mae": mean_absolute_error,
    "mape": mean_absolute_percentage_error,
    "mse": mean_squared_error,
    "msle": mean_squared_logarithmic_error,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{function.__name__: function for function in _FUNCTIONS},
    **_SHORT,
    **{name.upper(): function for name, function in _SHORT.items()},
}

_BY_NAME: dict[str, type[Loss]] = {cls.__name__: cls for cls in CLASSES}


def get(identifier: Any) -> Loss:
    """The loss that a name, a config, a function or a loss object stands for.

    Raises:
        ModelError: there is none of that name, or it does not take these arguments.
    """
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if isinstance(identifier, str) and (found := registry.find(identifier)) is not None:
        return get(found)
    if isinstance(identifier, str) and identifier in FUNCTIONS:
        return LossFunctionWrapper(FUNCTIONS[identifier], name=identifier)
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    if isinstance(identifier, Mapping):
        return _from_config(identifier)  # pyright: ignore[reportUnknownArgumentType]
    if callable(identifier):
        return LossFunctionWrapper(identifier)
    raise _unknown(identifier)


def _from_config(parts: Mapping[str, Any]) -> Loss:
    name, config = parts.get("class_name"), parts.get("config")
    if name == "function" and isinstance(config, str):
        return get(config)
    cls = registry.find(parts.get("registered_name"), name) or _BY_NAME.get(str(name))
    if cls is None or not isinstance(config, Mapping):
        raise _unknown(parts)
    arguments: dict[str, Any] = dict(config)  # pyright: ignore[reportUnknownArgumentType]
    try:
        return cls.from_config(arguments)
    except TypeError:
        raise ModelError(f"loss {name} does not take these arguments: {arguments}.") from None


def _unknown(identifier: Any) -> ModelError:
    known = ", ".join(sorted([*_BY_NAME, *FUNCTIONS]))
    return ModelError(f"a loss must be a function, a loss object, or one of {known}. Received: {identifier!r}.")


def serialize(loss: Loss) -> Any:
    """`loss` as Keras 3 writes it; of a function, its name."""
    if isinstance(loss, LossFunctionWrapper):
        return getattr(loss.fn, "__name__", loss.name)
    return {
        "module": "keras.losses",
        "class_name": type(loss).__name__,
        "config": loss.get_config(),
        "registered_name": None,
    }


__all__ = [
    "CTC",
    "FUNCTIONS",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CategoricalHinge",
    "Circle",
    "CosineSimilarity",
    "Dice",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossFunctionWrapper",
    "Masked",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "Tversky",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "categorical_hinge",
    "circle",
    "cosine_similarity",
    "ctc",
    "dice",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "serialize",
    "sparse_categorical_crossentropy",
    "squared_hinge",
    "tversky",
]
