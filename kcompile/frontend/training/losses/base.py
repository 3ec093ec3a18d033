"""What a loss is: values per sample, weighted and brought to one number."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from kcompile.errors import ModelError
from kcompile.frontend.training.eager import compute
from kcompile.frontend.training.formulas import as_formula, holds_tensors, through_expressions
from kcompile.frontend.training.losses.functions import Masked, same_rank
from kcompile.frontend.training.naming import snake_case
from kcompile.ir import expression
from kcompile.ir.expression import Expression

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None)


@dataclass(kw_only=True, eq=False, init=False)
class Loss:
    """Base of losses; a subclass says in `call` what one sample costs.

    Args:
        reduction: how the samples' values become one number: their mean ("sum_over_batch_size", "mean"), their sum over
            the sum of the weights ("mean_with_sample_weight"), their "sum", or not at all ("none", None).
        name: by default that of the class in snake case.
        dtype: in which the loss is computed.

    Raises:
        ModelError: the reduction is another.
    """

    name: str | None = None
    reduction: str | None = "sum_over_batch_size"
    dtype: str | None = field(default=None, repr=False)

    def __init__(
        self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: str | None = None
    ) -> None:
        self.name, self.reduction, self.dtype = name, reduction, dtype
        self.__post_init__()

    def __post_init__(self) -> None:
        self.name = self.name or snake_case(type(self).__name__)
        if self.reduction not in REDUCTIONS:
            allowed = ", ".join(map(repr, REDUCTIONS))
            raise ModelError(f"`reduction` of a loss must be one of {allowed}. Received: {self.reduction!r}.")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The value of each sample, of tensors: ``T[N, ...]``; what a loss of a user's own defines."""
        return through_expressions(self.formula, y_true, y_pred)

    def formula(self, y_true: Expression, y_pred: Expression) -> Expression | Masked:
        """The value of each sample: ``T[N, ...]``; what kcompile's own losses define."""
        return as_formula(self.call, f"loss `{self.name}`")(y_true, y_pred)

    def classes(self, y_pred: Expression) -> int | None:
        """How many classes there are for labels that are their numbers; None for labels of other kinds."""
        del y_pred
        return None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Expression | None = None) -> Any:
        """The loss of a batch; of arrays, computed at once.

        Args:
            sample_weight: a weight for each sample, or for each of its values.
            mask: which values count.
        """
        if holds_tensors(y_true, y_pred):
            return through_expressions(self, y_true, y_pred, sample_weight)
        if not isinstance(y_pred, Expression):
            return compute(self, y_true, y_pred, sample_weight)
        dtype = self.dtype or "float32"
        formula = self.formula if type(self).call is Loss.call else as_formula(self.call, f"loss `{self.name}`")
        found = formula(y_true.cast(dtype), y_pred.cast(dtype))
        values = found
        if isinstance(found, Masked):
            values, mask = found.values, found.mask if mask is None else mask & found.mask
        assert isinstance(values, Expression)
        weights = None if sample_weight is None else sample_weight.cast(values.type.dtype)
        return self._reduced(values, self._weights(values, weights, mask))

    def _weights(self, values: Expression, weights: Expression | None, mask: Expression | None) -> Expression | None:
        """The weights with the mask among them; for means, scaled so that only what counts is counted.

        As `apply_mask` in ``keras/src/losses/loss.py``.
        """
        if mask is None:
            return weights
        seen = mask.cast(values.type.dtype)
        if self.reduction in ("mean", "sum_over_batch_size"):
            total, valid = expression.count(mask.b, mask.shape, seen.type.dtype), seen.sum()
            seen = seen * (total / valid.maximum(1.0))
        if weights is None:
            return seen
        seen, weights = same_rank(seen, weights)
        return weights * seen

    def _reduced(self, values: Expression, weights: Expression | None) -> Expression:
        if weights is not None:
            values, weights = same_rank(values, weights)
            values = values * weights
        if self.reduction in (None, "none") or not values.type.rank:
            return values
        if self.reduction == "sum":
            return values.sum()
        if self.reduction != "mean_with_sample_weight" or weights is None:
            return values.mean()
        total = weights.sum()
        return (values.sum() / total.where(total.differs(0.0), 1.0)).where(total.differs(0.0), 0.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal loss."""
        config = {f.name: getattr(self, f.name) for f in fields(self)}
        return {key: value for key, value in config.items() if key != "dtype"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The loss that `config` describes."""
        return cls(**config)
