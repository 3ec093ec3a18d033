"""Searches: what is drawn, what is kept, what resumes."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import Input, Sequential, layers, tune
from kcompile.callbacks import CSVLogger, LambdaCallback, TensorBoard
from kcompile.errors import ModelError
from kcompile.frontend.tuning.hyperparameters import SpaceError
from kcompile.frontend.tuning.store import draw
from kcompile.frontend.tuning.tuners import grid
from tests.frontend.errors import error_of

ROOT = Path(__file__).parents[3]
X, Y = np.random.default_rng(1).standard_normal((24, 3)), np.random.default_rng(2).standard_normal((24, 1))


def build(hp: tune.HyperParameters) -> Sequential:
    model = Sequential([Input((3,)), layers.Dense(hp.Int("units", 2, 8)), layers.Dense(1)])
    model.compile(kcompile.optimizers.SGD(hp.Float("rate", 1e-4, 1e-1, sampling="log")), "mse", metrics=["mae"])
    return model


def tuner(folder: Path, hypermodel: Any = build, kind: Any = tune.RandomSearch, **options: Any) -> tune.Tuner:
    given = {"objective": "val_loss", "max_trials": 3, "seed": 1, "directory": folder, "project_name": "p"}
    if kind is tune.Hyperband:
        del given["max_trials"]
    return kind(hypermodel, **{**given, **options})


def search(made: tune.Tuner, **options: Any) -> tune.Tuner:
    made.search(X, Y, **{"epochs": 2, "verbose": 0, "validation_data": (X, Y), **options})
    return made


# -- hyper-parameters -------------------------------------------------------------------------------------------------


class Fixed:
    """In the place of a trial of Optuna: gives the draw that it is told, and notes what it is asked."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.asked: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        self.asked[name] = (low, high, step, log)
        return low + int((high - low) / step * self.share) * step

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        self.asked[name] = (low, high, step, log)
        return low + (high - low) * self.share

    def suggest_categorical(self, name: str, choices: list[int]) -> int:
        self.asked[name] = choices
        return choices[int((len(choices) - 1) * self.share)]


def hyperparameters(share: float) -> tuple[tune.HyperParameters, Fixed]:
    trial = Fixed(share)
    return tune.HyperParameters(draw=lambda entry: draw(trial, entry)), trial  # type: ignore[arg-type]


def test_values_are_those_of_keras_tuner() -> None:
    declarations: list[tuple[Any, Any, Any]] = [
        (lambda hp: hp.Int("a", 3, 9), 3, 9),
        (lambda hp: hp.Int("b", 3, 10, step=3), 3, 9),
        (lambda hp: hp.Int("c", 2, 40, step=2, sampling="log"), 2, 32),
        (lambda hp: hp.Int("d", 1, 100, sampling="log"), 1, 100),
        (lambda hp: hp.Float("e", 0.1, 0.5), 0.1, 0.5),
        (lambda hp: hp.Float("f", 0.1, 0.55, step=0.1), 0.1, 0.5),
        (lambda hp: hp.Float("g", 0.001, 1.0, step=10, sampling="log"), 0.001, 1.0),
        (lambda hp: hp.Float("h", 1.0, 10.0, sampling="reverse_log"), 10.0, 1.0),
        (lambda hp: hp.Choice("i", ["x", "y", "z"]), "x", "z"),
        (lambda hp: hp.Choice("j", [5, 1, 3]), 5, 3),
        (lambda hp: hp.Boolean("k"), False, True),
        (lambda hp: hp.Fixed("l", 7), 7, 7),
        (lambda hp: hp.Int("m", 4, 4), 4, 4),
    ]
    for declare, least, most in declarations:
        (low, _), (high, trial) = hyperparameters(0.0), hyperparameters(1.0)
        assert declare(low) == pytest.approx(least) if isinstance(least, float) else declare(low) == least
        assert declare(high) == pytest.approx(most) if isinstance(most, float) else declare(high) == most
        assert type(declare(low)) is type(least)
        assert bool(trial.asked) == (least != most)
    _, trial = hyperparameters(0.5)
    hp = tune.HyperParameters(draw=lambda entry: draw(trial, entry))  # type: ignore[arg-type]
    hp.Float("h", 1.0, 10.0, sampling="log")
    assert trial.asked["h"] == (1.0, 10.0, None, True)


def test_without_a_search_everything_has_its_default() -> None:
    hp = tune.HyperParameters()
    assert hp.Int("a", 3, 9) == 3
    assert hp.Float("b", 0.1, 0.5, default=0.2) == 0.2
    assert hp.Choice("c", ["x", "y"], default="y") == "y"
    assert hp.Boolean("d", default=True) is True
    assert hp.values == {"a": 3, "b": 0.2, "c": "y", "d": True}
    assert hp.get("b") == 0.2
    assert "c" in hp
    assert "e" not in hp


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_entries_in_a_scope_depend_on_their_parent(kind: str) -> None:
    hp = tune.HyperParameters({"kind": kind})
    hp.Choice("kind", ["cnn", "mlp"])
    with hp.conditional_scope("kind", ["cnn"]):
        filters = hp.Int("filters", 8, 32)
        width = hp.Int("width", 3, 5)
    with hp.conditional_scope("kind", "mlp"):
        other = hp.Int("width", 100, 200)
    size = hp.Int("size", 1, 2, parent_name="kind", parent_values=["mlp"])
    assert (filters, width, other, size) == ((8, 3, None, None) if kind == "cnn" else (None, None, 100, 1))
    assert set(hp.space) == {"kind", "filters[kind=cnn]", "width[kind=cnn]", "width[kind=mlp]", "size[kind=mlp]"}
    assert set(hp.values) == ({"kind", "filters", "width"} if kind == "cnn" else {"kind", "width", "size"})


def test_entries_that_are_declared_wrongly_are_refused() -> None:
    def twice(hp: tune.HyperParameters) -> None:
        hp.Int("a", 1, 2)
        hp.Int("a", 1, 3)

    for declare, text in (
        (lambda hp: hp.Int("a", 5, 2), "`a` (Int) must have min_value <= max_value. Received: (5, 2)."),
        (lambda hp: hp.Int("a", 1, 2.5), "`a` (Int) must have an integer as max_value. Received: 2.5."),
        (lambda hp: hp.Float("a", 0.0, 1.0, sampling="log"), "to be sampled by logarithm. Received: 0.0."),
        (lambda hp: hp.Float("a", 0.0, 1.0, sampling="exp"), "Received: 'exp'."),
        (lambda hp: hp.Float("a", 0.1, 1.0, step=1, sampling="log"), "must have a step above 1. Received: 1."),
        (lambda hp: hp.Int("a", 1, 5, default=9), "must have a default in its range. Received: 9."),
        (lambda hp: hp.Choice("a", []), "all texts, integers, floats or booleans. Received: []."),
        (lambda hp: hp.Choice("a", ["x", 1]), "Received: ['x', 1]."),
        (lambda hp: hp.Choice("a", ["x"], default="y"), "must have one of its values ['x'] as default. Received: 'y'."),
        (lambda hp: hp.Int("", 1, 2), "a hyper-parameter needs a name. Received: ''."),
        (lambda hp: hp.get("a"), "`get` takes the name of an active hyper-parameter: none. Received: 'a'."),
        (lambda hp: hp.Int("a", 1, 2, parent_name="b", parent_values=1), "was declared before: none. Received: 'b'."),
        (twice, "`a` must be declared in one way. Received: Int(1 to 2) and Int(1 to 3)."),
    ):  # fmt: skip
        assert error_of(SpaceError, lambda declare=declare: declare(tune.HyperParameters())).endswith(text)


# -- searches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tune.RandomSearch, tune.BayesianOptimization])
def test_a_search_finds_the_best_of_its_trials(kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = search(tuner(tmp_path, kind=kind))
    assert [trial.status for trial in made.trials] == ["complete"] * 3
    scores = [trial.score for trial in made.trials]
    best, second = made.get_best_trials(2)
    assert best.score == min(scores)  # type: ignore[type-var]
    assert best.score <= second.score  # type: ignore[operator]
    assert len({repr(trial.hyperparameters) for trial in made.trials}) == 3
    model = made.get_best_models(1)[0]
    assert model.evaluate(X, Y, verbose=0, return_dict=True)["loss"] == pytest.approx(best.score, rel=1e-5)
    assert model.layers[0].weights[0].shape[1] == made.get_best_hyperparameters()[0].get("units")
    assert capsys.readouterr().out == ""
    made.results_summary(1)
    made.search_space_summary()
    out = capsys.readouterr().out
    assert f"Trial {best.number}: {best.score:.6g}\n  units: {best.hyperparameters.get('units')}\n" in out
    assert "units: Int(2 to 8)\n  rate: Float(0.0001 to 0.1, log)\n" in out


def test_a_search_goes_on_until_there_are_enough_trials(tmp_path: Path) -> None:
    first = [repr(trial) for trial in search(tuner(tmp_path, max_trials=2)).trials]
    whole = search(tuner(tmp_path, max_trials=4))
    assert [repr(trial) for trial in whole.trials[:2]] == first
    assert len(whole.trials) == 4
    apart = search(tuner(tmp_path / "apart", max_trials=4))
    assert [repr(trial) for trial in apart.trials] == [repr(trial) for trial in whole.trials]
    anew = tuner(tmp_path, overwrite=True)
    assert anew.trials == []
    assert not list(tmp_path.glob("p/trial_*"))


def test_a_killed_search_comes_to_the_same_trials(tmp_path: Path) -> None:
    script = Path(__file__).with_name("searches.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr
    whole, resumed = result.stdout.split()
    assert whole == resumed


def test_a_grid_tries_every_combination(tmp_path: Path) -> None:
    def conditional(hp: tune.HyperParameters) -> Sequential:
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", "a"):
            hp.Int("size", 2, 6, step=2)
        hp.Boolean("flag")
        return build(tune.HyperParameters())

    made = tuner(tmp_path, conditional, kind=tune.GridSearch, max_trials=3)
    search(made, epochs=1)
    assert len(made.trials) == 3
    made = tuner(tmp_path, conditional, kind=tune.GridSearch, max_trials=None)
    search(made, epochs=1)
    assert [tuple(trial.hyperparameters.values.values()) for trial in made.trials] == [
        *[("a", size, flag) for size in (2, 4, 6) for flag in (False, True)],
        ("b", False),
        ("b", True),
    ]


def test_a_grid_has_ten_values_of_a_range_without_a_step() -> None:
    hp = tune.HyperParameters()
    hp.Float("a", 0.0, 0.9)
    hp.Float("b", 1.0, 512.0, sampling="log")
    hp.Int("c", 1, 4, sampling="log")
    hp.Int("d", 8, 10)
    hp.Float("e", 0.1, 0.3, step=0.1)
    values = [grid(entry) for entry in hp.space.values()]
    assert values[0] == pytest.approx([i / 10 for i in range(10)])
    assert values[1] == pytest.approx([2.0**i for i in range(10)])
    assert values[2:4] == [[1, 2, 3, 4], [8, 9, 10]]
    assert values[4] == pytest.approx([0.1, 0.2, 0.3])


def test_unpromising_trials_are_pruned(tmp_path: Path) -> None:
    def worse(hp: tune.HyperParameters) -> Sequential:
        model = build(tune.HyperParameters())
        model.optimizer.learning_rate = 10.0 ** -hp.Int("power", 2, 5)
        return model

    made = tuner(tmp_path, worse, kind=tune.Hyperband, max_epochs=4, factor=2)
    assert made.max_trials == 10  # 3 + 3 + 4, as in Keras Tuner: brackets of 4 / 1, 6 / 2 and 3 trials, rounded up
    search(made)
    states = [trial.status for trial in made.trials]
    assert states.count("pruned") > 0
    assert states.count("complete") > 0
    assert made.get_best_trials()[0].status == "complete"


def test_executions_of_one_trial_are_averaged(tmp_path: Path) -> None:
    seen: list[float] = []
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"]))
    made = tuner(tmp_path, max_trials=1, executions_per_trial=2)
    search(made, callbacks=[note])
    assert len(seen) == 4
    assert made.trials[0].score == pytest.approx((min(seen[:2]) + min(seen[2:])) / 2)
    assert seen[:2] != seen[2:]


def test_a_model_may_train_itself(tmp_path: Path) -> None:
    class Own(tune.HyperModel):
        def build(self, hp: tune.HyperParameters) -> Sequential:
            return build(hp)

        def fit(self, hp: tune.HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
            del model, args, kwargs
            return {"cost": hp.get("units") ** 2}

    made = search(tuner(tmp_path, Own(), objective=tune.Objective("cost", "max")))
    assert made.get_best_trials()[0].score == max(t.hyperparameters.get("units") for t in made.trials) ** 2


def test_each_trial_has_callbacks_of_its_own(tmp_path: Path) -> None:
    search(tuner(tmp_path), callbacks=[TensorBoard(tmp_path / "logs"), CSVLogger(tmp_path / "log.csv", append=True)])
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["trial_0000", "trial_0001", "trial_0002"]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 7


def test_entries_can_be_replaced_and_the_others_kept_as_they_are(tmp_path: Path) -> None:
    hp = tune.HyperParameters()
    hp.Int("units", 20, 22)
    made = search(tuner(tmp_path, hyperparameters=hp, tune_new_entries=False))
    assert all(20 <= trial.hyperparameters.get("units") <= 22 for trial in made.trials)
    assert {trial.hyperparameters.get("rate") for trial in made.trials} == {1e-4}
    text = error_of(SpaceError, lambda: tuner(tmp_path / "b", hyperparameters=hp, allow_new_entries=False))
    assert text.endswith("only hyper-parameters that were given can be declared: units. Received: `rate`.")


def test_a_trial_that_fails_is_left_behind_and_several_in_a_row_end_the_search(tmp_path: Path) -> None:
    def fails(hp: tune.HyperParameters) -> Sequential:
        if hp.Int("units", 2, 8) > 2:
            raise RuntimeError("too many")
        return build(tune.HyperParameters())

    made = tuner(tmp_path, fails, max_trials=20, max_consecutive_failed_trials=2)
    with pytest.warns(UserWarning, match=r"trial \d+ failed: RuntimeError: too many"):
        text = error_of(ModelError, lambda: search(made))
    assert text.endswith("ends: 2 trials in a row failed, the last one with RuntimeError: too many")
    assert [trial.status for trial in made.trials[-2:]] == ["fail", "fail"]


def test_the_direction_follows_from_the_name() -> None:
    from kcompile.frontend.tuning.tuner import as_objective

    for name, direction in (("val_loss", "min"), ("val_accuracy", "max"), ("head_auc", "max"), ("mae", "min")):
        assert as_objective(name).direction == direction
    text = error_of(ModelError, lambda: as_objective("val_score"))
    assert text == (
        'whether more of `val_score` is better is not known. Give kcompile.tune.Objective("val_score", "min") or "max".'
    )


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_store_of_another_search_is_refused(tmp_path: Path) -> None:
    def other(hp: tune.HyperParameters) -> Sequential:
        hp.Int("units", 2, 16)
        return build(tune.HyperParameters())

    tuner(tmp_path)
    folder = tmp_path / "p"
    advice = "Give overwrite=True to begin anew, or another project_name."
    assert error_of(ModelError, lambda: tuner(tmp_path, other)) == (
        f"the search in {folder} must go on with the same hyper-parameters. Received: `units` as Int(2 to 16), where "
        f"the store has Int(2 to 8); `rate` as nothing, where the store has Float(0.0001 to 0.1, log). {advice}"
    )
    assert error_of(ModelError, lambda: tuner(tmp_path, objective="mae")) == (
        f"the search in {folder} must go on with the same objective. Received: `name` as mae, where the store has "
        f"val_loss. {advice}"
    )
    assert "where the store has another" in error_of(ModelError, lambda: tuner(tmp_path, objective="accuracy"))
    tuner(tmp_path, other, overwrite=True)


def test_entries_mean_the_same_in_all_trials(tmp_path: Path) -> None:
    def moving(hp: tune.HyperParameters) -> Sequential:
        hp.Int("second", 0, hp.Int("first", 1, 50))
        return build(tune.HyperParameters())

    text = error_of(SpaceError, lambda: search(tuner(tmp_path, moving)))
    assert text.startswith(
        "hyper-parameter `second` must be declared in the same way in all trials. Received: Int(0 to "
    )
    assert text.endswith(", where the store has Int(0 to 1).")


def test_one_process_searches_at_a_time(tmp_path: Path) -> None:
    made = tuner(tmp_path)
    with (tmp_path / "p" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = error_of(ModelError, lambda: search(made))
    assert text.startswith(f"one process at a time can search in {tmp_path / 'p'}. Another does now.")


def test_wrong_arguments_of_searches_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "trials.db").write_text("no database, " * 100)
    for make, text in (
        (lambda: tuner(tmp_path, max_trials=0), "`max_trials` of RandomSearch must be 1 or more. Received: 0."),
        (lambda: tuner(tmp_path, 3), "must be a function that takes hyper-parameters, or a HyperModel. Received: 3."),
        (lambda: tuner(tmp_path, objective=3), "must be a name in the logs or an Objective. Received: 3."),
        (lambda: tune.Objective("loss", "down"), 'must be "min" or "max". Received: \'down\'.'),  # type: ignore[arg-type]
        (lambda: tuner(tmp_path, pruner="none"), "\"hyperband\" or one of Optuna's. Received: 'none'."),
        (lambda: tuner(tmp_path / "s", kind=tune.Tuner, sampler="grid"), "or one of Optuna's. Received: 'grid'."),
        (lambda: tuner(tmp_path / "file"), "folder that can be written to: Not a directory."),
        (lambda: tuner(tmp_path, project_name="damaged"), "trials.db is no store of a search. Delete it."),
        (lambda: tuner(tmp_path, kind=tune.Hyperband, factor=1), "of Hyperband must be 2 or more. Received: 1."),
    ):  # fmt: skip
        assert text in error_of(ModelError, make)


def test_a_build_function_that_cannot_serve_ends_the_search(tmp_path: Path) -> None:
    for make, text in (
        (lambda: tuner(tmp_path, lambda hp: None), "must give a compiled model. Received: NoneType."),
        (lambda: tuner(tmp_path, lambda hp: Sequential()), "Received: a model that is not compiled."),
        (lambda: search(tuner(tmp_path / "v"), validation_data=None), "Received: loss, mae. Give `validation_data`."),
        (lambda: search(tuner(tmp_path / "w", objective="auc")), "Received: loss, mae, val_loss, val_mae."),
    ):
        assert error_of(SpaceError, make).endswith(text)


def test_a_search_says_what_to_install_where_optuna_is_missing() -> None:
    code = """
import sys
sys.modules["optuna"] = None
import kcompile
from kcompile import Input, Sequential, layers
def build(hp):
    model = Sequential([Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model
kcompile.tune.RandomSearch(build, "loss")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'MissingExtra: a search needs Optuna. Install it with: pip install "kcompile[tune]"' in result.stderr
