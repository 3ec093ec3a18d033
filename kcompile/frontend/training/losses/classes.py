"""The losses of https://keras.io/api/losses/ as objects that keep their arguments; formulas stand in `functions`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.training.formulas import as_formula
from kcompile.frontend.training.losses import alignment, functions
from kcompile.frontend.training.losses.base import Loss
from kcompile.frontend.training.losses.functions import Masked, same_rank
from kcompile.frontend.training.naming import object_name
from kcompile.ir.expression import Expression


class LossFunctionWrapper(Loss):
    """A loss of a function ``(y_true, y_pred, **arguments) -> values per sample``."""

    def __init__(self, fn: Callable[..., Any], reduction: str | None = "sum_over_batch_size", **arguments: Any) -> None:
        name = arguments.pop("name", None)
        super().__init__(name=name or object_name(fn), reduction=reduction)
        self.fn, self.arguments = fn, arguments

    def formula(self, y_true: Expression, y_pred: Expression) -> Expression | Masked:
        y_true, y_pred = same_rank(y_true, y_pred)
        return as_formula(self.fn)(y_true, y_pred, **self.arguments)

    def classes(self, y_pred: Expression) -> int | None:
        is_sparse = self.fn is functions.sparse_categorical_crossentropy
        return _extent(y_pred, self.arguments.get("axis", -1)) if is_sparse else None


def _extent(y_pred: Expression, axis: int) -> int | None:
    extent = y_pred.shape[axis]
    return extent if isinstance(extent, int) else None


class _Function(Loss):
    """Base of losses whose fields are the arguments of a function."""

    function: Callable[..., Any]

    def formula(self, y_true: Expression, y_pred: Expression) -> Expression | Masked:
        y_true, y_pred = same_rank(y_true, y_pred)
        config = {k: v for k, v in self.get_config().items() if k not in ("name", "reduction")}
        return type(self).function(y_true, y_pred, **config)


@dataclass(eq=False)
class MeanSquaredError(_Function):
    """The mean squared difference."""

    function = staticmethod(functions.mean_squared_error)


@dataclass(eq=False)
class MeanAbsoluteError(_Function):
    """The mean absolute difference."""

    function = staticmethod(functions.mean_absolute_error)


@dataclass(eq=False)
class MeanAbsolutePercentageError(_Function):
    """The mean absolute difference in percent of the true value."""

    function = staticmethod(functions.mean_absolute_percentage_error)


@dataclass(eq=False)
class MeanSquaredLogarithmicError(_Function):
    """The mean squared difference of logarithms."""

    function = staticmethod(functions.mean_squared_logarithmic_error)


@dataclass(eq=False)
class CosineSimilarity(_Function):
    """Minus the cosine of the angle between the two."""

    axis: int = -1
    function = staticmethod(functions.cosine_similarity)


@dataclass(eq=False)
class Huber(_Function):
    """Quadratic up to `delta`, linear beyond."""

    delta: float = 1.0
    function = staticmethod(functions.huber)

    def __post_init__(self) -> None:
        self.name = self.name or "huber_loss"
        super().__post_init__()


@dataclass(eq=False)
class LogCosh(_Function):
    """The logarithm of the hyperbolic cosine of the difference."""

    function = staticmethod(functions.log_cosh)


@dataclass(eq=False)
class Hinge(_Function):
    """The hinge loss, for labels -1 and 1, or 0 and 1."""

    function = staticmethod(functions.hinge)


@dataclass(eq=False)
class SquaredHinge(_Function):
    """The squared hinge loss, for labels -1 and 1, or 0 and 1."""

    function = staticmethod(functions.squared_hinge)


@dataclass(eq=False)
class CategoricalHinge(_Function):
    """The hinge loss of classes, for one-hot labels."""

    function = staticmethod(functions.categorical_hinge)


@dataclass(eq=False)
class KLDivergence(_Function):
    """The Kullback-Leibler divergence."""

    function = staticmethod(functions.kl_divergence)

    def __post_init__(self) -> None:
        self.name = self.name or "kl_divergence"
        super().__post_init__()


@dataclass(eq=False)
class Poisson(_Function):
    """The negative log-likelihood of Poisson counts, without its constant."""

    function = staticmethod(functions.poisson)


@dataclass(eq=False)
class BinaryCrossentropy(_Function):
    """The cross-entropy of yes and no."""

    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    function = staticmethod(functions.binary_crossentropy)


@dataclass(eq=False)
class BinaryFocalCrossentropy(_Function):
    """The cross-entropy of yes and no, with less weight on what is easy."""

    apply_class_balancing: bool = False
    alpha: float = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    function = staticmethod(functions.binary_focal_crossentropy)


@dataclass(eq=False)
class CategoricalCrossentropy(_Function):
    """The cross-entropy of classes, for one-hot labels."""

    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    function = staticmethod(functions.categorical_crossentropy)


@dataclass(eq=False)
class CategoricalFocalCrossentropy(_Function):
    """The cross-entropy of classes, with less weight on what is easy, for one-hot labels."""

    alpha: float = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    function = staticmethod(functions.categorical_focal_crossentropy)


@dataclass(eq=False)
class SparseCategoricalCrossentropy(_Function):
    """The cross-entropy of classes, for labels that are their numbers."""

    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1
    function = staticmethod(functions.sparse_categorical_crossentropy)

    def classes(self, y_pred: Expression) -> int | None:
        return _extent(y_pred, self.axis)


@dataclass(eq=False)
class Dice(_Function):
    """One minus twice the overlap over the sum of both."""

    axis: Sequence[int] | int | None = None
    function = staticmethod(functions.dice)


@dataclass(eq=False)
class Tversky(_Function):
    """One minus the overlap over itself and weighted errors."""

    alpha: float = 0.5
    beta: float = 0.5
    axis: Sequence[int] | int | None = None
    function = staticmethod(functions.tversky)


@dataclass(eq=False)
class Circle(_Function):
    """The circle loss over the pairs of a batch of unit embeddings."""

    gamma: float = 80.0
    margin: float = 0.4
    remove_diagonal: bool = True
    function = staticmethod(functions.circle)


@dataclass(eq=False)
class CategoricalGeneralizedCrossEntropy(_Function):
    """The generalized cross-entropy, for labels that may be wrong; 0 < q < 1."""

    q: float = 0.5
    function = staticmethod(functions.categorical_generalized_cross_entropy)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.q < 1:
            raise ModelError(f"`q` of a loss must be between 0 and 1. Received: q={self.q}.")


@dataclass(eq=False)
class CTC(_Function):
    """Connectionist temporal classification of logits; label 0 is the blank and ends the labels."""

    function = staticmethod(alignment.ctc)


CLASSES: tuple[type[Loss], ...] = (
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
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
    Tversky,
)
