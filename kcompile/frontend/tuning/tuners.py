"""The kinds of tuners that Keras Tuner has."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.tuning.hyperparameters import Entry
from kcompile.frontend.tuning.objective import Objective
from kcompile.frontend.tuning.store import optuna_or_error
from kcompile.frontend.tuning.tuner import Tuner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

# Of a range in which every value is possible, a grid has so many.
_POINTS = 10


class RandomSearch(Tuner):
    """Draws every trial at random; the arguments are those of `Tuner`."""

    def __init__(
        self, hypermodel: Any = None, objective: str | Objective = "val_loss", max_trials: int = 10, **options: Any
    ) -> None:
        options.setdefault("sampler", "random")
        super().__init__(hypermodel, objective, max_trials, **options)


class BayesianOptimization(Tuner):
    """Draws trials where those before were good, by tree-structured Parzen estimators.

    Args:
        num_initial_points: how many trials are drawn at random first.
        alpha: of no effect, as is `beta`: they are for Gaussian processes.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: str | Objective = "val_loss",
        max_trials: int = 10,
        num_initial_points: int | None = None,
        alpha: float = 1e-4,
        beta: float = 2.6,
        **options: Any,
    ) -> None:
        del alpha, beta
        self._initial = 10 if num_initial_points is None else num_initial_points
        super().__init__(hypermodel, objective, max_trials, **options)

    def make_sampler(self, seed: int) -> "BaseSampler":
        return optuna_or_error().samplers.TPESampler(seed=seed, n_startup_trials=self._initial)


class GridSearch(Tuner):
    """Tries every combination, the last declared hyper-parameter first; of a range without a step ten values.

    Args:
        max_trials: how many at most; None for all.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: str | Objective = "val_loss",
        max_trials: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(hypermodel, objective, sys.maxsize if max_trials is None else max_trials, **options)

    def drawing(self, trial: "Trial") -> Callable[[Entry], Any]:
        finished = self.store.finished
        given = _following(finished[-1].user_attrs["path"]) if finished else []
        path: list[tuple[int, int]] = []

        def value(entry: Entry) -> Any:
            values = grid(entry)
            place = given[len(path)] if len(path) < len(given) else 0
            path.append((place, len(values)))
            trial.set_user_attr("path", path)
            return values[place]

        trial.set_user_attr("path", path)
        return value

    @property
    def exhausted(self) -> bool:
        finished = self.store.finished
        return super().exhausted or bool(finished and not _following(finished[-1].user_attrs["path"]))


def _following(path: Sequence[tuple[int, int]]) -> list[int]:
    """The places in the grid after those of a trial, as far as they are decided; none after the last ones.

    Args:
        path: for each hyper-parameter its place and how many there are.
    """
    places = list(path)
    while places and places[-1][0] + 1 >= places[-1][1]:
        places.pop()
    return [*(place for place, _ in places[:-1]), places[-1][0] + 1] if places else []


def grid(entry: Entry) -> list[Any]:
    """The values of an entry that a grid has."""
    if entry.values:
        return list(entry.values)
    least, most, step, log = entry.range()
    if step is None or log:
        spread = np.geomspace(least, most, _POINTS) if log else np.linspace(least, most, _POINTS)
        found = [round(value) if entry.kind == "Int" else value for value in spread.tolist()]
    else:
        found = [least + i * step for i in range(int((most - least) / step * (1 + 1e-12)) + 1)]
    return [entry.value(value) for value in dict.fromkeys(found)]


class Hyperband(Tuner):
    """Draws many trials, trains each for a few epochs, and goes on with the best third of them again and again.

    Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization" (2018), with rungs that do not
    wait for one another.

    Args:
        max_epochs: for which the best models are trained.
        factor: of how many trials one goes on.
        hyperband_iterations: how often the whole is made; there are as many trials as Keras Tuner makes then.

    Raises:
        ModelError: `max_epochs` or `factor` is too small.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: str | Objective = "val_loss",
        max_epochs: int = 100,
        factor: int = 3,
        hyperband_iterations: int = 1,
        **options: Any,
    ) -> None:
        for name, value, least in (("max_epochs", max_epochs, 1), ("factor", factor, 2)):
            if not isinstance(value, int) or value < least:
                raise ModelError(f"`{name}` of Hyperband must be {least} or more. Received: {value!r}.")
        self.max_epochs, self.factor = max_epochs, factor
        rungs = int(math.log(max_epochs) / math.log(factor) + 1e-9) + 1
        sizes = [math.ceil(rungs / (rung + 1) * factor**rung) for rung in range(rungs)]
        count = max(1, math.ceil(hyperband_iterations * sum(sizes)))
        options.setdefault("sampler", "random")
        super().__init__(hypermodel, objective, count, **options)

    def make_pruner(self, pruner: Any) -> "BasePruner":
        if pruner is not None:
            return super().make_pruner(pruner)
        pruners = optuna_or_error().pruners
        return pruners.HyperbandPruner(min_resource=1, max_resource=self.max_epochs, reduction_factor=self.factor)

    def fit_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "epochs": self.max_epochs}
