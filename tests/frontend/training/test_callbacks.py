"""Callbacks: when they act, what they leave."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import Input, Sequential, layers
from kcompile.errors import ModelError
from kcompile.frontend import initializers
from kcompile.frontend.training.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TerminateOnNaN,
)
from tests.frontend.errors import error_of


def model_and_data() -> tuple[Sequential, Any, Any]:
    initializers.set_seed(1)
    rng = np.random.default_rng(1)
    model = Sequential([Input((3,), name="features"), layers.Dense(1, name="head")])
    model.compile(kcompile.optimizers.SGD(0.05), "mse", metrics=["mae"])
    return model, rng.standard_normal((20, 3)), rng.standard_normal((20, 1))


class Scripted(Callback):
    """Puts numbers of its own into the logs, for the callbacks after it."""

    def __init__(self, name: str, values: list[float]) -> None:
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs[self.name] = self.values[epoch]


def run(values: list[float], *callbacks: Callback, name: str = "val_loss", model: Any = None) -> Any:
    made, x, y = model_and_data()
    model = model or made
    history = model.fit(x, y, epochs=len(values), verbose=0, callbacks=[Scripted(name, values), *callbacks])
    return model, history


def test_events_come_in_order() -> None:
    model, x, y = model_and_data()
    seen: list[str] = []
    names = [name for name in dir(Callback) if name.startswith("on_")]
    log = LambdaCallback(**{name: lambda *arguments, name=name: seen.append(name) for name in names})
    model.fit(x, y, batch_size=10, verbose=0, validation_data=(x, y), callbacks=[log])
    batches = ["on_train_batch_begin", "on_train_batch_end"] * 2
    tests = ["on_test_begin", *["on_test_batch_begin", "on_test_batch_end"] * 2, "on_test_end"]
    assert seen == ["on_train_begin", "on_epoch_begin", *batches, *tests, "on_epoch_end", "on_train_end"]
    seen.clear()
    model.predict(x, batch_size=20, callbacks=[log])
    assert seen == ["on_predict_begin", "on_predict_batch_begin", "on_predict_batch_end", "on_predict_end"]


def test_the_older_names_of_batch_events_are_called_too() -> None:
    model, x, y = model_and_data()
    seen: list[Any] = []

    class Old(Callback):
        def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            seen.append((batch, sorted(logs or {})))

    model.fit(x, y, batch_size=10, verbose=0, callbacks=Old())
    assert seen == [(0, ["loss", "mae"]), (1, ["loss", "mae"])]


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([3, 2, 2, 2, 2], {"patience": 2}, 4),
        ([3, 2, 1, 0.5, 0.2], {"patience": 1}, 5),
        ([3, 2.95, 2.9, 2.5, 2.4], {"patience": 2, "min_delta": 0.2}, 3),
        ([1, 2, 3, 2, 1], {"patience": 2, "mode": "max"}, 5),
        ([5, 5, 5, 5, 5], {"patience": 1, "start_from_epoch": 3}, 5),
        ([3, 2, 2.5, 2.5, 1], {"patience": 1, "baseline": 1.0}, 3),
    ],
)
def test_early_stopping_waits_for_improvement(values: list[float], options: dict[str, Any], epochs: int) -> None:
    _, history = run(values, EarlyStopping(**options))
    assert len(history.epoch) == epochs


def test_early_stopping_restores_the_best_weights() -> None:
    kept: list[Any] = []
    model = model_and_data()[0]
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    stop = EarlyStopping(patience=2, restore_best_weights=True)
    run([3, 1, 2, 2, 2, 2], keep, stop, model=model)
    assert len(kept) == 4
    assert stop.best_epoch == 1
    np.testing.assert_array_equal(model.get_weights()[0], kept[1][0])


def test_a_metric_that_should_rise_is_known_by_its_name_and_kind() -> None:
    values = [0.1, 0.5, 0.4, 0.3]
    assert len(run(values, EarlyStopping("val_accuracy", patience=1), name="val_accuracy")[1].epoch) == 3
    assert len(run(values, EarlyStopping("val_other", patience=1), name="val_other")[1].epoch) == 2


@pytest.mark.parametrize("kind", [EarlyStopping, ReduceLROnPlateau, ModelCheckpoint])
def test_a_number_that_no_metric_gives_is_refused(kind: Any, tmp_path: Path) -> None:
    options = {"filepath": tmp_path / "best.keras", "save_best_only": True} if kind is ModelCheckpoint else {}
    text = error_of(ModelError, lambda: run([1, 1], kind(monitor="val_auc", **options)))
    names = "loss, mae, val_loss" + (", learning_rate" if kind is ReduceLROnPlateau else "")
    law = f"{kind.__name__} watches `val_auc`, which is not in the logs: {names}."
    assert text == f"{law} Give one of these as `monitor`, or add a metric of that name in `compile`."


def test_a_number_that_the_logs_have_at_other_times_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="EarlyStopping watches `val_mae`, which is not in the logs: loss, mae, val_l"):
        _, history = run([1, 1], EarlyStopping("val_mae"))
    assert len(history.epoch) == 2


@pytest.mark.parametrize(
    ("metric", "monitor", "rises"),
    [
        (kcompile.metrics.Precision(name="p"), "val_p", True),
        (kcompile.metrics.MeanIoU(2, name="overlap"), "val_overlap", True),
        (kcompile.metrics.BinaryCrossentropy(name="bits"), "bits", False),
        (kcompile.metrics.R2Score(name="fit"), "val_fit", True),
        ("mae", "val_accuracy_head_loss", False),
    ],
)
def test_the_kind_of_a_metric_says_whether_more_is_better(metric: Any, monitor: str, rises: bool) -> None:
    model, x, y = model_and_data()
    model.compile("sgd", "mse", metrics=[metric])
    model.evaluate(x, (y > 0).astype(float), verbose=0)
    callback = EarlyStopping(monitor)
    callback.set_model(model)
    assert callback.rises is rises


def test_the_rate_falls_on_a_plateau_and_not_below_its_least() -> None:
    rates: list[float] = []
    reduce = ReduceLROnPlateau(factor=0.5, patience=2, min_lr=0.02)
    model = model_and_data()[0]
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(round(model.optimizer.learning_rate, 6)))
    _, history = run([1, 1, 1, 1, 1, 1, 1], reduce, note, model=model)
    assert rates == [0.05, 0.05, 0.025, 0.025, 0.02, 0.02, 0.02]
    assert np.allclose(history.history["learning_rate"][:3], [0.05, 0.05, 0.05])


def test_cooldown_gives_a_new_rate_time() -> None:
    model = model_and_data()[0]
    rates: list[float] = []
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(round(model.optimizer.learning_rate, 6)))
    run([1] * 6, ReduceLROnPlateau(factor=0.1, patience=1, cooldown=2), note, model=model)
    assert rates == [0.05, 0.005, 0.005, 0.0005, 0.0005, 5e-05]


def test_a_schedule_sets_the_rate_of_each_epoch() -> None:
    _, history = run([1, 1, 1], LearningRateScheduler(lambda epoch, rate: rate * 0.5))
    np.testing.assert_allclose(history.history["learning_rate"], [0.025, 0.0125, 0.00625], rtol=1e-6)
    _, history = run([1, 1], LearningRateScheduler(lambda epoch: 0.1 * (epoch + 1)))
    np.testing.assert_allclose(history.history["learning_rate"], [0.1, 0.2], rtol=1e-6)
    text = error_of(ModelError, lambda: run([1], LearningRateScheduler(lambda epoch: 1)))  # type: ignore[arg-type, return-value]
    assert text == "`schedule` of LearningRateScheduler must give a float. Received: 1."


def test_checkpoints_hold_the_model_of_their_epoch(tmp_path: Path) -> None:
    kept: list[Any] = []
    model = model_and_data()[0]
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    run([3, 1, 2], keep, ModelCheckpoint(tmp_path / "sub" / "{epoch:02d}-{val_loss:.1f}.keras"), model=model)
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == ["01-3.0.keras", "02-1.0.keras", "03-2.0.keras"]
    read = kcompile.load_model(tmp_path / "sub" / "02-1.0.keras")
    np.testing.assert_array_equal(read.get_weights()[0], kept[1][0])


def test_only_better_models_replace_the_best_one(tmp_path: Path) -> None:
    kept: list[Any] = []
    model = model_and_data()[0]
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    path = tmp_path / "best.weights.h5"
    run([3, 1, 2, float("nan")], keep, ModelCheckpoint(path, save_best_only=True, save_weights_only=True), model=model)
    other, _, _ = model_and_data()
    other.load_weights(path)
    np.testing.assert_array_equal(other.get_weights()[0], kept[1][0])


def test_a_model_that_cannot_be_compared_does_not_replace_the_best_one(tmp_path: Path) -> None:
    model, x, y = model_and_data()
    path, kept = tmp_path / "best.keras", []
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    checkpoint = ModelCheckpoint(path, "val_mae", save_best_only=True)
    with pytest.warns(UserWarning, match="watches `val_mae`"):
        model.fit(
            x, y, epochs=4, verbose=0, callbacks=[keep, checkpoint], validation_data=(x, y), validation_freq=[1, 3]
        )
    assert any((kcompile.load_model(path).get_weights()[0] == kept[i][0]).all() for i in (0, 2))


def test_a_checkpoint_says_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run([3, 1, 2], ModelCheckpoint(tmp_path / "m.keras", save_best_only=True, verbose=1))
    path = tmp_path / "m.keras"
    assert capsys.readouterr().out.splitlines() == [
        "",
        f"Epoch 1: val_loss improved from None to 3.00000, saving model to {path}",
        "",
        f"Epoch 2: val_loss improved from 3.00000 to 1.00000, saving model to {path}",
        "",
        "Epoch 3: val_loss did not improve from 1.00000",
    ]


def test_checkpoints_by_batches(tmp_path: Path) -> None:
    model, x, y = model_and_data()
    saved = ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=3)
    model.fit(x, y, batch_size=5, epochs=2, verbose=0, callbacks=[saved])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1-3.keras", "2-2.keras"]


def test_wrong_arguments_of_callbacks_are_refused(tmp_path: Path) -> None:
    for make, text in (
        (
            lambda: ModelCheckpoint("model.pt"),
            "`filepath` of ModelCheckpoint must end in .keras or .h5. Received: 'model.pt'.",
        ),
        (
            lambda: ModelCheckpoint("m.keras", save_weights_only=True),
            "`filepath` of ModelCheckpoint must end in .weights.h5. Received: 'm.keras'.",
        ),
        (
            lambda: ModelCheckpoint("m.keras", save_freq="batch"),  # type: ignore[arg-type]
            "`save_freq` must be \"epoch\" or a number of batches. Received: 'batch'.",
        ),
        (lambda: ReduceLROnPlateau(factor=1.0), "`factor` of ReduceLROnPlateau must be below 1. Received: factor=1.0."),
        (
            lambda: EarlyStopping(mode="up"),
            '`mode` of EarlyStopping must be "auto", "min" or "max". Received: \'up\'.',
        ),
        (
            lambda: LambdaCallback(on_end=print),
            "LambdaCallback takes events such as `on_epoch_end`. Received: 'on_end'.",
        ),
    ):
        assert error_of(ModelError, make) == text
    for refused, text in (
        (lambda: EarlyStopping(patience=-1), "`patience` of EarlyStopping must be a number of epochs, 0 or more."),
        (lambda: EarlyStopping(start_from_epoch=1.5), "must be a number of epochs, 0 or more. Received: 1.5."),  # type: ignore[arg-type]
        (lambda: ReduceLROnPlateau(patience="3"), "`patience` of ReduceLROnPlateau must be a number of epochs"),  # type: ignore[arg-type]
        (lambda: LearningRateScheduler(0.1), "of LearningRateScheduler must be a function. Received: 0.1."),  # type: ignore[arg-type]
    ):  # fmt: skip
        assert text in error_of(ModelError, refused)
    assert error_of(ModelError, lambda: CSVLogger("a.csv", "::")).endswith("one character. Received: '::'.")
    assert error_of(ModelError, lambda: LambdaCallback(on_epoch_end=3)).endswith("must be a function. Received: 3.")  # type: ignore[arg-type]
    text = error_of(ModelError, lambda: run([1], ModelCheckpoint(tmp_path / "{auc}.keras")))
    assert text.startswith("`filepath` of ModelCheckpoint may name epoch, loss, mae, val_loss.")


def test_logs_as_comma_separated_values(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    _, history = run([3, 1], CSVLogger(path))
    lines = path.read_text().splitlines()
    assert lines[0] == "epoch,loss,mae,val_loss"
    assert lines[1].split(",") == ["0", *(repr(history.history[n][0]) for n in ("loss", "mae", "val_loss"))]
    run([2], CSVLogger(path, append=True))
    assert len(path.read_text().splitlines()) == 4
    run([2], CSVLogger(path, separator=";"))
    assert path.read_text().splitlines()[0] == "epoch;loss;mae;val_loss"


def test_training_ends_at_a_loss_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    model, x, y = model_and_data()
    y[12] = np.nan
    history = model.fit(x, y, batch_size=5, epochs=3, shuffle=False, verbose=0, callbacks=[TerminateOnNaN()])
    assert history.epoch == [0]
    assert int(model.optimizer.iteration.value) == 3
    assert capsys.readouterr().out == "Batch 2: Invalid loss, terminating training\n"
    strict = TerminateOnNaN(raise_error=True)
    text = error_of(ModelError, lambda: model.fit(x, y, shuffle=False, verbose=0, callbacks=[strict]))
    assert text.startswith("the loss must be a finite number. Received: nan after batch 0. ")


def test_the_averages_of_the_weights_are_evaluated_and_saved(tmp_path: Path) -> None:
    model, x, y = model_and_data()
    model.compile(kcompile.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5), "mse")
    seen: list[tuple[float, float]] = []

    def note(epoch: int, logs: Any) -> None:
        saved = kcompile.load_model(tmp_path / "m.weights.keras")
        saved.compile("sgd", "mse")
        seen.append((logs["val_loss"], saved.evaluate(x, y, verbose=0)))

    listed = [
        SwapEMAWeights(swap_on_epoch=True),
        ModelCheckpoint(tmp_path / "m.weights.keras"),
        LambdaCallback(on_epoch_end=note),
    ]
    model.fit(x, y, epochs=3, batch_size=5, shuffle=False, verbose=0, validation_data=(x, y), callbacks=listed)
    plain, _, _ = model_and_data()
    plain.compile(kcompile.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5), "mse")
    plain.fit(x, y, epochs=3, batch_size=5, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], plain.get_weights()[0])
    for shown, saved in seen:
        assert shown == pytest.approx(saved, rel=1e-6)
    text = error_of(ModelError, lambda: model_and_data()[0].evaluate(x, y, verbose=0, callbacks=[SwapEMAWeights()]))
    assert text.endswith("Received: SGD with use_ema=False.")


def test_places_that_cannot_be_written_to_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "inside"
    for callback, argument in (
        (ModelCheckpoint(f"{place}/m.keras"), "`filepath` of ModelCheckpoint"),
        (CSVLogger(place), "`filename` of CSVLogger"),
        (BackupAndRestore(place), "`backup_dir` of BackupAndRestore"),
    ):
        text = error_of(ModelError, lambda callback=callback: run([1], callback))
        assert text.startswith(f"{argument} must be ")
        assert str(place) in text


def test_an_error_in_training_closes_what_is_open(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path / "log.csv")

    def fail(epoch: int, logs: Any) -> None:
        raise RuntimeError("as asked for")

    with pytest.raises(RuntimeError, match="as asked for"):
        run([1], log, LambdaCallback(on_epoch_end=fail))
    assert log._file is not None
    assert log._file.closed


def test_a_callback_can_stop_training_within_an_epoch() -> None:
    model, x, y = model_and_data()

    def stop(batch: int, logs: dict[str, Any]) -> None:
        model.stop_training = batch == 1

    history = model.fit(x, y, batch_size=5, epochs=3, verbose=0, callbacks=[LambdaCallback(on_train_batch_end=stop)])
    assert history.epoch == [0]
    assert int(model.optimizer.iteration.value) == 2
