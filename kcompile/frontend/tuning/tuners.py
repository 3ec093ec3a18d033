"""The kinds of tuners that Keras Tuner has."""

import math
from typing import TYPE_CHECKING, Any

from kcompile.errors import ModelError
from kcompile.frontend.tuning.store import optuna_or_error
from kcompile.frontend.tuning.tuner import Objective, Tuner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


class RandomSearch(Tuner):
    """Draws every trial at random; the arguments are those of `Tuner`."""

    def __init__(
        self, hypermodel: Any, objective: str | Objective = "val_loss", max_trials: int = 10, **options: Any
    ) -> None:
        options.setdefault("sampler", "random")
        super().__init__(hypermodel, objective, max_trials, **options)


class BayesianOptimization(Tuner):
    """Draws trials where those before were good, by tree-structured Parzen estimators.

    Args:
        num_initial_points: how many trials are drawn at random first.
    """

    def __init__(
        self,
        hypermodel: Any,
        objective: str | Objective = "val_loss",
        max_trials: int = 10,
        num_initial_points: int | None = None,
        **options: Any,
    ) -> None:
        self._initial = 10 if num_initial_points is None else num_initial_points
        super().__init__(hypermodel, objective, max_trials, **options)

    def make_sampler(self, seed: int) -> "BaseSampler":
        return optuna_or_error().samplers.TPESampler(seed=seed, n_startup_trials=self._initial)


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
        hypermodel: Any,
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
