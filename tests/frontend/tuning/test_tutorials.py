"""Programs as the tutorials of Keras Tuner have them."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import kcompile
from kcompile import layers, tune
from kcompile.errors import ModelError
from kcompile.frontend.tuning.hyperparameters import SpaceError
from tests.frontend.errors import error_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3, 2)).astype("float32")
Y = (X[:, 0, :1] > 0).astype("float32")


def build(hp: tune.HyperParameters) -> kcompile.Sequential:
    """A model that does not know its input before it is trained."""
    model = kcompile.Sequential([layers.Flatten(), layers.Dense(hp.Int("units", 2, 8)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def options(folder: Path, **more: Any) -> dict[str, Any]:
    return {"objective": "val_loss", "max_trials": 2, "seed": 1, "directory": folder, "project_name": "p", **more}


def test_the_best_models_know_the_inputs_that_they_were_trained_on(tmp_path: Path) -> None:
    tuner = tune.RandomSearch(build, **options(tmp_path))
    tuner.search(X, Y, epochs=1, validation_data=(X, Y), verbose=0)
    model = tuner.get_best_models()[0]
    assert model.input_shape == (None, 3, 2)
    found, best = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"], tuner.get_best_trials()[0].score
    assert best is not None
    assert np.isclose(found, best, rtol=1e-4)


class Square(tune.RandomSearch):
    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        value = trial.hyperparameters.Float("x", min_value=-1.0, max_value=1.0)
        return {"score": value * value}


def test_a_tuner_may_say_itself_what_a_trial_is(tmp_path: Path) -> None:
    given = options(tmp_path, max_trials=5, objective=tune.Objective("score", "min"))
    tuner = Square(**given)
    tuner.search()
    scores = [trial.hyperparameters.get("x") ** 2 for trial in tuner.trials]
    assert len(set(scores)) == 5
    assert tuner.get_best_hyperparameters()[0].get("x") ** 2 == min(scores)
    assert Square(**given).get_best_trials()[0].score == min(scores)


class WithBatches(tune.RandomSearch):
    seen: ClassVar[list[Any]] = []

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["batch_size"] = trial.hyperparameters.Int("batch_size", 4, 12, step=4)
        self.seen.append(kwargs["batch_size"])
        return super().run_trial(trial, *args, **kwargs)


def test_a_tuner_may_change_what_fit_gets(tmp_path: Path) -> None:
    WithBatches.seen.clear()
    tuner = WithBatches(build, **options(tmp_path, executions_per_trial=2))
    tuner.search(X, Y, epochs=1, validation_data=(X, Y), verbose=0)
    assert [trial.hyperparameters.get("batch_size") for trial in tuner.trials] == WithBatches.seen
    assert set(tuner.trials[0].hyperparameters.values) == {"batch_size", "units"}


def test_a_trial_without_a_score_is_an_error(tmp_path: Path) -> None:
    class Silent(tune.RandomSearch):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            return None

    assert error_of(SpaceError, lambda: Silent(**options(tmp_path)).search()) == (
        "`run_trial` must give a history, a score, or a dict with the objective val_loss. Received: NoneType."
    )


def test_a_tuner_may_say_how_models_are_compiled(tmp_path: Path) -> None:
    rate = kcompile.optimizers.SGD(0.25)
    tuner = tune.BayesianOptimization(build, alpha=1e-3, beta=2.0, optimizer=rate, **options(tmp_path))
    tuner.search(X, Y, epochs=1, validation_data=(X, Y), verbose=0)
    model = tuner.get_best_models()[0]
    assert model.optimizer.learning_rate == 0.25
    assert rate.iterations == 0
    assert model.loss == "mse"


def test_unknown_arguments_of_a_tuner_are_named(tmp_path: Path) -> None:
    text = error_of(ModelError, lambda: tune.RandomSearch(build, **options(tmp_path, trials=3)))
    assert text == "RandomSearch does not take these arguments: trials."


def test_a_tuner_needs_something_to_build(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="`hypermodel` must be a function"):
        tune.RandomSearch(**options(tmp_path))


class Named(tune.HyperModel):
    def build(self, hp: tune.HyperParameters) -> kcompile.Sequential:
        return build(hp)


def test_hypermodels_have_names() -> None:
    assert Named(name="mine", tunable=False).name == "mine"
