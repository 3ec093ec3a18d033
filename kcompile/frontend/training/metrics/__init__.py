"""Metrics by Keras's names, and `get`."""

from collections.abc import Mapping
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend import registry
from kcompile.frontend.training.losses import FUNCTIONS as LOSS_FUNCTIONS
from kcompile.frontend.training.metrics import functions
from kcompile.frontend.training.metrics.auc import AUC
from kcompile.frontend.training.metrics.base import Mean, MeanMetricWrapper, Metric, Sum
from kcompile.frontend.training.metrics.confusion import (
    FalseNegatives,
    FalsePositives,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from kcompile.frontend.training.metrics.means import (
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    ConcordanceCorrelation,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    PearsonCorrelation,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SquaredHinge,
    TopKCategoricalAccuracy,
)
from kcompile.frontend.training.metrics.scores import (
    BinaryIoU,
    F1Score,
    FBetaScore,
    IoU,
    MeanIoU,
    OneHotIoU,
    OneHotMeanIoU,
    R2Score,
)
from kcompile.frontend.training.naming import snake_case

CLASSES: tuple[type[Metric], ...] = (
    AUC,
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    BinaryIoU,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    ConcordanceCorrelation,
    CosineSimilarity,
    F1Score,
    FBetaScore,
    FalseNegatives,
    FalsePositives,
    Hinge,
    IoU,
    KLDivergence,
    LogCoshError,
    Mean,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanIoU,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    OneHotIoU,
    OneHotMeanIoU,
    PearsonCorrelation,
    Poisson,
    Precision,
    PrecisionAtRecall,
    R2Score,
    Recall,
    RecallAtPrecision,
    RootMeanSquaredError,
    SensitivityAtSpecificity,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SpecificityAtSensitivity,
    SquaredHinge,
    Sum,
    TopKCategoricalAccuracy,
    TrueNegatives,
    TruePositives,
)

_SHORT: dict[str, type[Metric]] = {
    "bce": BinaryCrossentropy,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
_BY_NAME: dict[str, type[Metric]] = {
    **{cls.__name__: cls for cls in CLASSES},
    **{snake_case(cls.__name__): cls for cls in CLASSES},
    **_SHORT,
    **{name.upper(): cls for name, cls in _SHORT.items()},
}


def get(identifier: Any) -> Metric:
    """The metric that a name, a config, a function or a metric object stands for.

    Raises:
        ModelError: there is none of that name, or it does not take these arguments.
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    parts: Any = {"class_name": identifier, "config": {}} if isinstance(identifier, str) else identifier
    name = parts.get("class_name") if isinstance(parts, Mapping) else None
    found = registry.find(parts.get("registered_name"), name) if isinstance(parts, Mapping) else None
    if found is not None:
        return found(**parts.get("config") or {}) if isinstance(found, type) else MeanMetricWrapper(found)
    if name == "function":
        return get(parts["config"])
    if name in _BY_NAME:
        config = {key: _plain(value) for key, value in dict(parts.get("config") or {}).items()}
        return _made(_BY_NAME[name], config, str(name))
    if isinstance(name, str) and name in LOSS_FUNCTIONS:
        return MeanMetricWrapper(LOSS_FUNCTIONS[name], name)
    if callable(identifier):
        return MeanMetricWrapper(identifier)
    known = ", ".join(sorted(cls.__name__ for cls in CLASSES))
    raise ModelError(f"a metric must be a function, a metric object, or one of {known}. Received: {identifier!r}.")


def _made(cls: type[Metric], config: dict[str, Any], name: str) -> Metric:
    try:
        return cls(**config)
    except TypeError:
        raise ModelError(f"metric {name} does not take these arguments: {config}.") from None


def _plain(value: Any) -> Any:
    """An argument that Keras wrote as a tensor, as a list."""
    return value["config"]["value"] if isinstance(value, Mapping) and value.get("class_name") == "__tensor__" else value  # pyright: ignore


def serialize(metric: Metric) -> dict[str, Any]:
    """`metric` as Keras 3 writes it."""
    return {
        "module": "keras.metrics",
        "class_name": type(metric).__name__,
        "config": metric.get_config(),
        "registered_name": None,
    }


__all__ = [
    "AUC",
    "CLASSES",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "BinaryIoU",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "ConcordanceCorrelation",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "IoU",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanIoU",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "OneHotIoU",
    "OneHotMeanIoU",
    "PearsonCorrelation",
    "Poisson",
    "Precision",
    "PrecisionAtRecall",
    "R2Score",
    "Recall",
    "RecallAtPrecision",
    "RootMeanSquaredError",
    "SensitivityAtSpecificity",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SpecificityAtSensitivity",
    "SquaredHinge",
    "Sum",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "functions",
    "get",
    "serialize",
]
