"""What a metric is: state that batches update, and a result; and the means and sums of values.

As ``keras/src/metrics/metric.py`` and ``reduction_metrics.py`` have them. A metric is written as IR twice: `update` and
`outcome` take part in the graph of a step; `update_state` and `result` compute the same at once from arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from kcompile.frontend import initializers
from kcompile.frontend.tensor import current
from kcompile.frontend.training.eager import as_array
from kcompile.frontend.training.formulas import as_expression, as_formula, call_users, tensors, writing_with
from kcompile.frontend.training.losses.functions import Masked, same_rank
from kcompile.frontend.training.naming import object_name, snake_case
from kcompile.frontend.training.state import State, assign
from kcompile.frontend.weight import Weight
from kcompile.ir import expression
from kcompile.ir.evaluate import evaluate
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Builder
from kcompile.ir.types import Array, type_of


class Metric:
    """Base of metrics.

    Args:
        name: in logs; by default that of the class in snake case.
        dtype: of the state.
    """

    # Arguments of a subclass, for its config.
    arguments: ClassVar[tuple[str, ...]] = ()
    default_name: ClassVar[str] = ""
    # How many arrays `update_state` takes, but for sample weights.
    takes: ClassVar[int] = 2

    def __init__(self, name: str | None = None, dtype: str | None = None) -> None:
        self.name = name or self.default_name or snake_case(type(self).__name__)
        self.dtype = dtype or "float32"
        self.variables: list[Weight] = []
        self._initial: list[Array] = []
        self.built = False

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        """Write the new state after one batch of labels and predictions; what kcompile's own metrics define."""
        raise NotImplementedError

    def outcome(self, state: State) -> Expression:
        """The result so far; what kcompile's own metrics define."""
        raise NotImplementedError

    def write_update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        """Write the new state, as `update` says, or as `update_state` of a user's own metric does."""
        if type(self).update_state is Metric.update_state:
            self.update(state, *values, weights=weights)
            return
        given = {} if weights is None else {"sample_weight": weights}
        with writing_with(state.b):
            call_users(self.update_state, f"metric `{self.name}`", *tensors(values), **tensors(given))

    def write_outcome(self, state: State) -> Expression:
        """The result so far, as `outcome` says, or `result` of a user's own metric."""
        if type(self).result is Metric.result:
            return self.outcome(state)
        with writing_with(state.b):
            what = f"metric `{self.name}`"
            return as_expression(state.b, call_users(self.result, what), what)

    def build(self, *values: Expression) -> None:
        """Create variables whose shapes depend on those of the values; called once."""
        del values

    def ensure_built(self, *values: Expression) -> None:
        """Call `build` the first time."""
        if not self.built:
            self.build(*values)
            self.built = True

    def add_variable(
        self, *order: Any, name: str = "variable", shape: Sequence[int] = (), initializer: Any = None, dtype: Any = None
    ) -> Weight:
        """Create a variable, filled with zeros or by an initializer, to whose values `reset_state` returns.

        Args:
            order: name, shape and a number that fills; or, as in Keras, shape, initializer and dtype.
        """
        by_name = bool(order) and isinstance(order[0], str)
        names = ("name", "shape", "initializer") if by_name else ("shape", "initializer", "dtype")
        given: dict[str, Any] = {"name": name, "shape": shape, "initializer": initializer, "dtype": dtype}
        given |= zip(names, order, strict=False)
        fill, dtype = given["initializer"] or 0.0, given["dtype"] or self.dtype
        if isinstance(fill, int | float):
            value = np.full(tuple(given["shape"]), fill, dtype)
        else:
            value = np.asarray(initializers.get(fill)(tuple(given["shape"]), dtype), dtype)
        weight = Weight(given["name"], value, trainable=False)
        self.variables.append(weight)
        self._initial.append(weight.array)
        return weight

    add_weight = add_variable

    def reset_state(self) -> None:
        """Forget all batches."""
        for weight, value in zip(self.variables, self._initial, strict=True):
            weight.array = value

    def update_state(self, *values: Any, sample_weight: Any = None) -> None:
        """Take in one batch of arrays: labels and predictions, or values; sample weights may come after them."""
        if len(values) > self.takes:
            values, sample_weight = values[:-1], values[-1]
        t = current()
        if t is not None and t.effects is not None:
            given = [as_expression(t.b, value, f"metric `{self.name}`") for value in values]
            weights = None if sample_weight is None else as_expression(t.b, sample_weight, "`sample_weight`")
            self.ensure_built(*given)
            self.update(t.effects.state, *given, weights=weights)
            return
        b = Builder(self.name)
        arrays = {f"x{i}": as_array(value) for i, value in enumerate(values)}
        if sample_weight is not None:
            arrays["weights"] = as_array(sample_weight)
        given = {name: Expression(b, b.input(name, type_of(array))) for name, array in arrays.items()}
        weights = given.pop("weights", None)
        state = State(b)
        self.ensure_built(*given.values())
        self.update(state, *given.values(), weights=weights)
        graph = b.build(list(state.written.values()))
        found = evaluate(graph, {**arrays, **state.arrays()})
        assign(list(state.written), list(found.values()))

    def result(self) -> Any:
        """The result so far, as an array."""
        t = current()
        if t is not None and t.effects is not None:
            return tensors(self.outcome(t.effects.state))
        b = Builder(self.name)
        state = State(b)
        outcome = self.outcome(state)
        return evaluate(b.build([outcome.value]), state.arrays())["output_0"]

    def __call__(self, *values: Any, sample_weight: Any = None) -> Any:
        """Take in one batch; the result so far."""
        self.update_state(*values, **({} if sample_weight is None else {"sample_weight": sample_weight}))
        return self.result()

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal metric."""
        return {"name": self.name, "dtype": self.dtype, **{name: getattr(self, name) for name in self.arguments}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The metric that `config` describes."""
        return cls(**config)


def no_nan(x: Expression, y: Expression) -> Expression:
    """``x / y``, and 0 where ``y`` is 0."""
    zero = y.equals(0.0)
    return (x / y.like(1.0).where(zero, y)).where(~zero, 0.0)


def samplewise(
    values: Expression, weights: Expression | None, reduce: Callable[[Expression, Sequence[int]], Expression]
) -> tuple[Expression, Expression | None]:
    """One weighted value for each sample and its weight, as `reduce_to_samplewise_values` in Keras."""
    if weights is not None:
        values, weights = same_rank(values, weights.cast(values.type.dtype))
        rank = weights.type.rank
        values = reduce(values, range(rank, values.type.rank))
        weights = weights.broadcast_to(values.shape)
        values = values * weights
        weights = reduce(weights, range(1, weights.type.rank))
    return reduce(values, range(1, values.type.rank)), weights


class Sum(Metric):
    """The sum of all values."""

    takes = 1

    def __init__(self, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name, dtype)
        self.total = self.add_variable("total")

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        found, _ = samplewise(values[0].cast(self.dtype), weights, lambda x, axes: x.sum(axes))
        state.write(self.total, (state.expression(self.total) + found.sum()).value)

    def outcome(self, state: State) -> Expression:
        return state.expression(self.total)


class Mean(Metric):
    """The mean of all values, or their weighted mean."""

    takes = 1

    def __init__(self, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name, dtype)
        self.total, self.count = self.add_variable("total"), self.add_variable("count")

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        found, weights = samplewise(values[0].cast(self.dtype), weights, lambda x, axes: x.mean(axes))
        if weights is not None:
            number = weights.sum()
        else:
            number = expression.count(state.b, found.shape[:1], self.dtype)
        state.write(self.total, (state.expression(self.total) + found.sum()).value)
        state.write(self.count, (state.expression(self.count) + number).value)

    def outcome(self, state: State) -> Expression:
        return no_nan(state.expression(self.total), state.expression(self.count))


class MeanMetricWrapper(Mean):
    """The mean of a function ``(y_true, y_pred, **arguments) -> values per sample``."""

    takes = 2

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: str | None = None, **keywords: Any
    ) -> None:
        super().__init__(name or object_name(fn), dtype)
        self.fn, self.keywords = fn, keywords

    def update(self, state: State, *values: Expression, weights: Expression | None = None) -> None:
        found = as_formula(self.fn)(*values, **self.keywords)
        if isinstance(found, Masked):
            if weights is not None:
                seen, weights = same_rank(found.mask.cast(weights.type.dtype), weights)
                weights = weights * seen
            found = found.values
        super().update(state, found, weights=weights)
