"""`Tuner`: builds and trains models with hyper-parameters that Optuna draws, and keeps what came out."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import initializers
from kcompile.frontend.model import Model
from kcompile.frontend.tracing import map_structure
from kcompile.frontend.training.callbacks import BackupAndRestore, Callback, History, TensorBoard
from kcompile.frontend.tuning.hypermodel import HyperModel, as_hypermodel
from kcompile.frontend.tuning.hyperparameters import Entry, HyperParameters, SpaceError
from kcompile.frontend.tuning.objective import Objective, as_objective
from kcompile.frontend.tuning.store import Store, described, draw, optuna_or_error
from kcompile.frontend.tuning.trial_callbacks import PruningCallback, SaveBestEpoch

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial


@dataclass(frozen=True)
class TrialResult:
    """What is known of a trial.

    Attributes:
        score: the objective after its best epoch; None where the trial failed.
        status: "complete", "pruned", "fail" or "running".
    """

    number: int
    hyperparameters: HyperParameters
    score: float | None
    status: str


@dataclass
class RunningTrial:
    """A trial as `run_trial` gets it.

    Attributes:
        hyperparameters: what draws its values.
        pruned: whether it was ended early.
    """

    number: int
    hyperparameters: HyperParameters
    frozen: "Trial"
    position: int
    pruned: bool = False

    @property
    def trial_id(self) -> str:
        """The number as text."""
        return str(self.number)


class Tuner:
    """Searches for the hyper-parameters with the best score.

    A subclass may say in `run_trial` what a trial is, and needs no `hypermodel` then.

    Everything is kept in ``directory/project_name``. The same program started again goes on with it: a search that was
    killed resumes in the epoch where it was, and comes to what it would have come to.

    Args:
        hypermodel: a function that takes `HyperParameters` and gives a compiled model, or a `HyperModel`.
        objective: a name in the logs such as "val_accuracy", or an `Objective`.
        max_trials: how many models are trained at most, those of earlier runs included.
        seed: of all that is drawn; that with which a search began counts.
        hyperparameters: entries that replace those of the same names in the build function.
        tune_new_entries: whether other entries are searched; otherwise they have their defaults.
        allow_new_entries: whether there may be others.
        max_consecutive_failed_trials: after so many errors in a row the search ends with the last one.
        executions_per_trial: how often each model is trained; the score is the mean.
        sampler: "random", "tpe", or one of Optuna's.
        pruner: what ends unpromising trials early: None, "median", "halving", "hyperband", or one of Optuna's.
        overwrite: whether to begin anew where there is a search already.
        compile_arguments: `optimizer`, `loss` and `metrics`, in place of what the build function gives `compile`.

    Raises:
        ModelError: an argument is something else, or the folder holds another search.
        MissingExtra: Optuna is not installed.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: str | Objective = "val_loss",
        max_trials: int = 10,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_consecutive_failed_trials: int = 3,
        executions_per_trial: int = 1,
        sampler: "Literal['random', 'tpe'] | BaseSampler" = "tpe",
        pruner: "Literal['median', 'halving', 'hyperband'] | BasePruner | None" = None,
        directory: str | Path = ".",
        project_name: str = "untitled_project",
        overwrite: bool = False,
        **compile_arguments: Any,
    ) -> None:
        self._runs_itself = hypermodel is None and type(self).run_trial is not Tuner.run_trial
        self.hypermodel = HyperModel() if self._runs_itself else as_hypermodel(hypermodel)
        unknown = compile_arguments.keys() - {"optimizer", "loss", "metrics"}
        if unknown:
            raise ModelError(f"{type(self).__name__} does not take these arguments: {', '.join(sorted(unknown))}.")
        self._compile_arguments = compile_arguments
        self.objective = as_objective(objective)
        for name, count in (("max_trials", max_trials), ("executions_per_trial", executions_per_trial)):
            if not isinstance(count, int) or count < 1:
                raise ModelError(f"`{name}` of {type(self).__name__} must be 1 or more. Received: {count!r}.")
        self.max_trials, self.executions_per_trial = max_trials, executions_per_trial
        self.max_consecutive_failed_trials = max_consecutive_failed_trials
        self._options: dict[str, Any] = {
            "replaced": hyperparameters,
            "tune_new_entries": tune_new_entries,
            "allow_new_entries": allow_new_entries,
        }
        self._sampler = sampler
        probe = HyperParameters(**self._options)
        if not self._runs_itself:
            self._build(probe)
        self.project_dir = Path(directory) / project_name
        self.make_sampler(0)
        self.store = Store(self.project_dir, self.objective.direction, self.make_pruner(pruner), overwrite)
        self.store.check_same("objective", {"name": self.objective.name})
        self.store.check_same("hyper-parameters", described(list(probe.space.values())))
        self.store.note_space(probe)
        self.seed = int(self.store.fact("seed", initializers.drawn_seed() % 2**31 if seed is None else seed))
        self._space = probe.space

    # -- what kinds of tuners define ----------------------------------------------------------------------------------

    def make_sampler(self, seed: int) -> "BaseSampler":
        """What draws the hyper-parameters of one trial.

        Raises:
            ModelError: there is none of that name.
        """
        samplers = optuna_or_error().samplers
        if isinstance(self._sampler, samplers.BaseSampler):
            return self._sampler  # pyright: ignore[reportReturnType]
        made: dict[Any, Any] = {"random": samplers.RandomSampler, "tpe": samplers.TPESampler}
        if self._sampler not in made:
            raise ModelError(f'`sampler` must be "random", "tpe" or one of Optuna\'s. Received: {self._sampler!r}.')
        return made[self._sampler](seed=seed)

    def drawing(self, trial: "Trial") -> Callable[[Entry], Any]:
        """What gives a trial its values."""
        return lambda entry: draw(trial, entry)

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing left to try."""
        return len(self.store.finished) >= self.max_trials

    def make_pruner(self, pruner: Any) -> "BasePruner":
        """What ends trials early.

        Raises:
            ModelError: there is none of that name.
        """
        pruners = optuna_or_error().pruners
        made: dict[Any, Any] = {
            None: pruners.NopPruner,
            "median": pruners.MedianPruner,
            "halving": pruners.SuccessiveHalvingPruner,
            "hyperband": pruners.HyperbandPruner,
        }
        if isinstance(pruner, pruners.BasePruner):
            return pruner
        if pruner not in made:
            expected = 'None, "median", "halving", "hyperband" or one of Optuna\'s'
            raise ModelError(f"`pruner` must be {expected}. Received: {pruner!r}.")
        return made[pruner]()

    def fit_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """The named arguments of `fit`, from those of `search`."""
        return given

    # -- searching ----------------------------------------------------------------------------------------------------

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Train models until there are `max_trials`; the arguments are those of `fit`.

        Raises:
            ModelError: `fit` does not give the objective, the build function is wrong, or too many trials failed.
        """
        says = kwargs.get("verbose", "auto") != 0
        outer = initializers.random_state()
        try:
            with self.store:
                while not self.exhausted:
                    self._try_one(args, self.fit_arguments(kwargs), says)
        finally:
            initializers.set_random_state(outer)

    def _try_one(self, args: tuple[Any, ...], kwargs: dict[str, Any], says: bool) -> None:
        position = len(self.store.finished)
        trial = self.store.next(self.make_sampler(self.seed + position))
        hp = HyperParameters(draw=self.drawing(trial), **self._options)
        states = self.store.optuna.trial.TrialState
        try:
            running = RunningTrial(trial.number, hp, trial, position)
            score = self._score(running, args, kwargs)
        except SpaceError:
            trial.set_user_attr("void", True)
            self.store.study.tell(trial, state=states.FAIL)
            raise
        except Exception as error:  # noqa: BLE001 - what a user's code raises for some hyper-parameters
            self.store.study.tell(trial, state=states.FAIL)
            self._note_failure(trial.number, error)
            return
        trial.set_user_attr("score", score)
        value, state = (None, states.PRUNED) if running.pruned else (score, states.COMPLETE)
        self.store.study.tell(trial, value, state=state)
        if says:
            how = "pruned" if running.pruned else "complete"
            self._say(f"Trial {trial.number} {how}: {self.objective.name} {score:.6g}")
            self._say(f"Best so far: {self.store.best[0].user_attrs['score']:.6g}")

    def _note_failure(self, number: int, error: Exception) -> None:
        warnings.warn(f"trial {number} failed: {type(error).__name__}: {error}", stacklevel=4)
        last = self.store.finished[-self.max_consecutive_failed_trials :]
        failed = [trial for trial in last if trial.user_attrs.get("score") is None]
        if len(failed) >= self.max_consecutive_failed_trials:
            law = f"{len(failed)} trials in a row failed, the last one with {type(error).__name__}: {error}"
            raise ModelError(f"the search in {self.project_dir} ends: {law}") from error

    def _score(self, trial: RunningTrial, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """The score of a trial, noted with its values."""
        self._seed(trial, 0)
        found = self.run_trial(trial, *args, **kwargs)
        self.store.note_space(trial.hyperparameters)
        trial.frozen.set_user_attr("values", trial.hyperparameters.values)
        score = self._returned(found)
        if score is None:
            law = "`run_trial` must give a history, a score, or a dict with the objective"
            raise SpaceError(f"{law} {self.objective.name}. Received: {type(found).__name__}.")
        if math.isnan(score):
            raise ModelError(f"the objective {self.objective.name} is no number.")
        return score

    def run_trial(self, trial: RunningTrial, *args: Any, **kwargs: Any) -> Any:
        """Build and train the models of one trial; what a subclass gives in its place is a score, a history, or a dict.

        Args:
            trial: whose `hyperparameters` draw the values.
            args: those of `search`.
        """
        scores: list[float] = []
        for execution in range(self.executions_per_trial):
            name = f"execution_{execution}"
            if name not in trial.frozen.user_attrs:
                self._seed(trial, execution)
                score = self._execute(trial, execution, scores, args, kwargs)
                if math.isnan(score):
                    raise ModelError(f"the objective {self.objective.name} is no number.")
                if trial.pruned:
                    return score
                trial.frozen.set_user_attr(name, score)
            scores.append(trial.frozen.user_attrs[name])
        return sum(scores) / len(scores)

    def _seed(self, trial: RunningTrial, execution: int) -> None:
        number = trial.position * self.executions_per_trial + execution + 1
        initializers.set_seed(self.seed + 1_000_003 * number)

    def _execute(
        self,
        trial: RunningTrial,
        execution: int,
        before: list[float],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> float:
        """Build and train once."""
        hp = trial.hyperparameters
        model = self._build(hp)
        self.store.note_space(hp)
        trial.frozen.set_user_attr("values", hp.values)
        folder, (name, mode) = self.store.folder_of(trial.number), (self.objective.name, self.objective.direction)
        extreme = min if mode == "min" else max
        save = SaveBestEpoch(name, mode, folder / "best.weights.h5", extreme(before) if before else None)
        prune = PruningCallback(trial.frozen, name, mode)
        own = [save, *([prune] if execution == 0 else []), BackupAndRestore(folder / f"backup_{execution}")]
        callbacks = [*_copies(kwargs.get("callbacks"), folder / str(execution)), *own]
        found = self.hypermodel.fit(hp, model, *args, **{**kwargs, "callbacks": callbacks})
        trial.pruned = prune.pruned
        if model.is_traced and model.built:
            dtypes = map_structure(lambda tensor: tensor.dtype, model.input)
            trial.frozen.set_user_attr("build", {"input_shape": model.input_shape, "dtypes": dtypes})
        return self._scored(found, save)

    def _returned(self, found: Any) -> float | None:
        """The score that a user's code gives; None where it gives none."""
        if isinstance(found, int | float | np.number):
            return float(found)
        if isinstance(found, History) and found.history.get(self.objective.name):
            best = min if self.objective.direction == "min" else max
            return float(best(found.history[self.objective.name]))
        if isinstance(found, Mapping) and self.objective.name in found:
            return float(found[self.objective.name])  # pyright: ignore[reportUnknownArgumentType]
        return None

    def _scored(self, found: Any, save: SaveBestEpoch) -> float:
        score = None if isinstance(found, History) else self._returned(found)
        if score is not None:
            return score
        if not isinstance(found, History) and save.best is None:
            law = "`fit` of a HyperModel must give a history, a score, or a dict with the objective"
            raise SpaceError(f"{law} {self.objective.name}. Received: {type(found).__name__}.")
        if save.best is None and self.objective.name not in save.seen:
            law = f"the objective {self.objective.name} must be in the logs of `fit`"
            more = " Give `validation_data`." if self.objective.name.startswith("val_") else ""
            raise SpaceError(f"{law}. Received: {', '.join(save.seen)}.{more}")
        return math.nan if save.best is None else save.best

    def _build(self, hp: HyperParameters) -> Model:
        model = self.hypermodel.build(hp)
        if not isinstance(model, Model) or not model.compiled:
            received = "a model that is not compiled" if isinstance(model, Model) else type(model).__name__
            raise SpaceError(f"a build function must give a compiled model. Received: {received}.")
        if self._compile_arguments:
            model.compile(**{**model.compile_arguments, **copy.deepcopy(self._compile_arguments)})
        return model

    @staticmethod
    def _say(text: str) -> None:
        print(text)  # noqa: T201

    # -- results ------------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> list[TrialResult]:
        """All trials, in the order in which they were made."""
        return [_result(trial) for trial in self.store.trials]

    def get_best_trials(self, num_trials: int = 1) -> list[TrialResult]:
        """The trials with the best scores; those that were pruned come last."""
        return [_result(trial) for trial in self.store.best[:num_trials]]

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[HyperParameters]:
        """The hyper-parameters of the best trials, to build models with."""
        return [trial.hyperparameters for trial in self.get_best_trials(num_trials)]

    def get_best_models(self, num_models: int = 1) -> list[Model]:
        """The models of the best trials, with the weights after their best epochs.

        Raises:
            ModelError: a file of weights is missing.
        """
        models: list[Model] = []
        for trial in self.store.best[:num_models]:
            model = self._build(_result(trial).hyperparameters)
            if not model.built and (known := trial.user_attrs.get("build")):
                model.build_from_config(known)
            model.load_weights(self.store.folder_of(trial.number) / "best.weights.h5")
            models.append(model)
        return models

    def results_summary(self, num_trials: int = 10) -> None:
        """Print the best trials."""
        best = self.get_best_trials(num_trials)
        self._say(f"Results in {self.project_dir}")
        self._say(f"The {len(best)} best of {len(self.store.finished)} trials by {self.objective.name}")
        for trial in best:
            self._say(f"\nTrial {trial.number}: {trial.score:.6g}{' (pruned)' if trial.status == 'pruned' else ''}")
            for name, value in trial.hyperparameters.values.items():
                self._say(f"  {name}: {value}")

    def search_space_summary(self) -> None:
        """Print the hyper-parameters that are known so far."""
        space: dict[str, str] = self.store.study.user_attrs["space"]
        self._say(f"{len(space)} hyper-parameters")
        for key, text in space.items():
            self._say(f"  {key}: {text}")


def _copies(callbacks: Any, folder: Path) -> list[Callback]:
    """The user's callbacks, for one trial alone; TensorBoard's files lie in a folder for each."""
    listed = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
    made = [copy.deepcopy(callback) for callback in listed]
    for callback in made:
        if isinstance(callback, TensorBoard):
            callback.move(callback.log_dir / folder.parent.name / folder.name)
    return made


def _result(trial: "FrozenTrial") -> TrialResult:
    known: dict[str, Any] = trial.user_attrs
    hp = HyperParameters(known.get("values"))
    return TrialResult(trial.number, hp, known.get("score"), trial.state.name.lower())
