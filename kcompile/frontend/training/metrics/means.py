"""Metrics that are means over samples, by Keras's names and arguments."""

from collections.abc import Callable
from typing import Any, ClassVar

from kcompile.frontend.training.losses import functions as losses
from kcompile.frontend.training.metrics import functions
from kcompile.frontend.training.metrics.base import Mean, MeanMetricWrapper
from kcompile.frontend.training.state import State
from kcompile.ir.expression import Expression


class _Function(MeanMetricWrapper):
    """Base of means of one function, whose arguments are the metric's."""

    function: ClassVar[Callable[..., Any]]
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str | None = None, dtype: str | None = None, **keywords: Any) -> None:
        unknown = keywords.keys() - self.defaults.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} does not take {', '.join(sorted(unknown))}")
        super().__init__(type(self).function, name or self.default_name or None, dtype, **{**self.defaults, **keywords})

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, **self.keywords}


class Accuracy(_Function):
    """How often the prediction is the label."""

    function = staticmethod(functions.accuracy)


class BinaryAccuracy(_Function):
    """How often the prediction is on the label's side of `threshold`."""

    function, defaults = staticmethod(functions.binary_accuracy), {"threshold": 0.5}


class CategoricalAccuracy(_Function):
    """How often the largest prediction is at the place of the one in the label."""

    function = staticmethod(functions.categorical_accuracy)


class SparseCategoricalAccuracy(_Function):
    """How often the largest prediction is at the place that the label names."""

    function = staticmethod(functions.sparse_categorical_accuracy)


class TopKCategoricalAccuracy(_Function):
    """How often the prediction of the label's class is among the `k` largest, for one-hot labels."""

    function, defaults = staticmethod(functions.top_k_categorical_accuracy), {"k": 5}

    def __init__(self, k: int = 5, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name, dtype, k=k)


class SparseTopKCategoricalAccuracy(_Function):
    """How often the prediction of the label's class is among the `k` largest, for labels that are numbers."""

    function, defaults = staticmethod(functions.sparse_top_k_categorical_accuracy), {"k": 5}

    def __init__(self, k: int = 5, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name, dtype, k=k)


class MeanSquaredError(_Function):
    """The mean squared difference."""

    function = staticmethod(losses.mean_squared_error)


class MeanAbsoluteError(_Function):
    """The mean absolute difference."""

    function = staticmethod(losses.mean_absolute_error)


class MeanAbsolutePercentageError(_Function):
    """The mean absolute difference in percent of the label."""

    function = staticmethod(losses.mean_absolute_percentage_error)


class MeanSquaredLogarithmicError(_Function):
    """The mean squared difference of logarithms."""

    function = staticmethod(losses.mean_squared_logarithmic_error)


class LogCoshError(_Function):
    """The mean logarithm of the hyperbolic cosine of the difference."""

    function, default_name = staticmethod(losses.log_cosh), "logcosh"


class CosineSimilarity(_Function):
    """The mean cosine of the angle between label and prediction."""

    function, defaults = staticmethod(functions.cosine_similarity), {"axis": -1}


class Hinge(_Function):
    """The mean hinge loss."""

    function = staticmethod(losses.hinge)


class SquaredHinge(_Function):
    """The mean squared hinge loss."""

    function = staticmethod(losses.squared_hinge)


class CategoricalHinge(_Function):
    """The mean hinge loss of classes."""

    function = staticmethod(losses.categorical_hinge)


class KLDivergence(_Function):
    """The mean Kullback-Leibler divergence."""

    function, default_name = staticmethod(losses.kl_divergence), "kl_divergence"


class Poisson(_Function):
    """The mean Poisson loss."""

    function = staticmethod(losses.poisson)


class BinaryCrossentropy(_Function):
    """The mean cross-entropy of yes and no."""

    function = staticmethod(losses.binary_crossentropy)
    defaults: ClassVar[dict[str, Any]] = {"from_logits": False, "label_smoothing": 0}


class CategoricalCrossentropy(_Function):
    """The mean cross-entropy of classes, for one-hot labels."""

    function = staticmethod(losses.categorical_crossentropy)
    defaults: ClassVar[dict[str, Any]] = {"from_logits": False, "label_smoothing": 0, "axis": -1}


class SparseCategoricalCrossentropy(_Function):
    """The mean cross-entropy of classes, for labels that are numbers."""

    function = staticmethod(losses.sparse_categorical_crossentropy)
    defaults: ClassVar[dict[str, Any]] = {"from_logits": False, "ignore_class": None, "axis": -1}


class PearsonCorrelation(_Function):
    """The mean correlation along `axis`."""

    function, defaults = staticmethod(functions.pearson_correlation), {"axis": -1}


class ConcordanceCorrelation(_Function):
    """The mean agreement along `axis`."""

    function, defaults = staticmethod(functions.concordance_correlation), {"axis": -1}


class RootMeanSquaredError(Mean):
    """The root of the mean squared difference."""

    takes = 2

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        y_true, y_pred = (value.cast(self.dtype) for value in values)
        super().update(state, functions.squared_error(y_true, y_pred), weights=weights)

    def outcome(self, state: State) -> Expression:
        return super().outcome(state).sqrt()
