"""A `fit` that is interrupted: by a kill, which it resumes from, and by Ctrl-C."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import Input, Sequential, layers
from kcompile.errors import ModelError
from kcompile.frontend import initializers
from kcompile.frontend.training.callbacks import BackupAndRestore, Callback, LambdaCallback, ModelCheckpoint
from tests.frontend.errors import error_of

ROOT = Path(__file__).parents[3]
X, Y = np.random.default_rng(1).standard_normal((20, 3)), np.random.default_rng(2).standard_normal((20, 1))


def compiled(units: int = 4, optimizer: Any = "adam") -> Sequential:
    initializers.set_seed(1)
    model = Sequential([Input((3,)), layers.Dense(units), layers.Dropout(0.3), layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


class Fails(Exception):
    """Ends a training in these tests."""


def fails_at(epoch: int) -> Callback:
    def fail(number: int, logs: Any) -> None:
        if number == epoch:
            raise Fails

    return LambdaCallback(on_epoch_begin=fail)


def interrupted(folder: Path, epoch: int = 2, **options: Any) -> None:
    with pytest.raises(Fails):
        compiled().fit(
            X, Y, epochs=5, verbose=0, callbacks=[BackupAndRestore(folder, **options), fails_at(epoch)], batch_size=5
        )


def resumed(folder: Path, **options: Any) -> Any:
    model = compiled()
    history = model.fit(X, Y, epochs=5, verbose=0, batch_size=5, callbacks=[BackupAndRestore(folder, **options)])
    return model, history


@pytest.mark.parametrize(
    ("data", "save_freq"), [("arrays", "3"), ("steps", "epoch"), ("dataset", "epoch"), ("generator", "1")]
)
def test_a_killed_fit_comes_to_the_same_numbers(data: str, save_freq: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("interrupted.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path), data, save_freq],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    uninterrupted, resumed = result.stdout.split()
    assert uninterrupted == resumed


def test_a_fit_resumes_in_the_same_process_and_counts_the_epochs_that_were_left(tmp_path: Path) -> None:
    whole = compiled()
    whole.fit(X, Y, epochs=5, verbose=0, batch_size=5)
    interrupted(tmp_path / "backup", epoch=3)
    model, history = resumed(tmp_path / "backup")
    assert history.epoch == [3, 4]
    np.testing.assert_array_equal(model.get_weights()[0], whole.get_weights()[0])
    assert not (tmp_path / "backup").exists()


def test_a_backup_can_stay_and_keeps_what_else_is_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    resumed(tmp_path, delete_checkpoint=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.backup", "notes.txt"]
    _, history = resumed(tmp_path)
    assert history.epoch == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_backup_before_is_read_where_the_last_one_is_damaged(tmp_path: Path) -> None:
    interrupted(tmp_path, epoch=3, double_checkpoint=True)
    latest = tmp_path / "latest.backup"
    latest.write_bytes(latest.read_bytes()[:300])
    _, history = resumed(tmp_path)
    assert history.epoch == [2, 3, 4]


def test_backups_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    interrupted(tmp_path)
    backup = BackupAndRestore(tmp_path)

    def fit(model: Sequential, **options: Any) -> str:
        return error_of(ModelError, lambda: model.fit(X, Y, epochs=5, verbose=0, callbacks=backup, **options))

    text = fit(compiled(units=5))
    assert text.startswith(f"the backup in {tmp_path} must be of model `{backup.model.name}`, compiled as it was. ")
    assert "Received: kernel [3, 4] of a Dense, where the model has kernel [3, 5] of a Dense." in text
    assert "the optimizer Adam with 10 variables, where the model has the optimizer SGD with 6 variables" in fit(
        compiled(optimizer=kcompile.optimizers.SGD(0.1, momentum=0.9))
    )
    assert fit(compiled()).endswith("Received: one of 4 steps in an epoch, where there are 1 now.")
    (tmp_path / "latest.backup").write_bytes(b"PK")
    assert fit(compiled(), batch_size=5).startswith(f"the backup in {tmp_path} must be whole to go on from it.")


@pytest.mark.parametrize("save_freq", [0, -1, 1.5, "batch", True, None])
def test_other_frequencies_are_refused(save_freq: Any) -> None:
    text = error_of(ModelError, lambda: BackupAndRestore("backup", save_freq))
    assert text.startswith('`save_freq` of BackupAndRestore must be "epoch" or a number of batches. Received: ')


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_training_between_two_steps() -> None:
    model = compiled()
    seen: list[str] = []

    def press(batch: int, logs: Any) -> None:
        if batch == 1:
            signal.raise_signal(signal.SIGINT)
        seen.append(f"batch {batch}")

    note = LambdaCallback(
        on_train_batch_end=press,
        on_train_end=lambda logs: seen.append("end"),
        on_train_abort=lambda logs: seen.append("abort"),
    )
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=2, batch_size=5, verbose=0, callbacks=[note])
    assert seen == ["batch 0", "batch 1", "abort"]
    assert int(model.optimizer.iteration.value) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model.fit(X, Y, verbose=0)


def test_a_second_ctrl_c_is_let_through_at_once() -> None:
    seen: list[int] = []

    def press(batch: int, logs: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        seen.append(1)
        signal.raise_signal(signal.SIGINT)
        seen.append(2)

    with pytest.raises(KeyboardInterrupt):
        compiled().fit(X, Y, verbose=0, callbacks=[LambdaCallback(on_train_batch_end=press)])
    assert seen == [1]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("moment", ["write", "link", "replace"])
def test_the_best_checkpoint_stays_whole_when_a_save_is_killed(moment: str, named: bool, tmp_path: Path) -> None:
    """A child saves once, and is killed within the second save; in files with names, and in those without."""
    if named and moment == "link":
        return
    path = tmp_path / "best.keras"
    pid = os.fork()
    if pid == 0:
        _save_twice(path, moment, named)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert kcompile.load_model(path).predict(X).shape == (20, 1)
    left = {path.name for path in tmp_path.iterdir()} - {"best.keras"}
    assert len(left) == (named or moment == "replace")
    compiled().save(path)
    assert (path.stat().st_mode & 0o777) == 0o666 & ~_umask()


def test_files_are_written_where_the_system_gives_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("not here")

    monkeypatch.setattr(os, "link", refuse)
    compiled().save(tmp_path / "m.keras")
    assert kcompile.load_model(tmp_path / "m.keras").predict(X).shape == (20, 1)
    assert len(list(tmp_path.iterdir())) == 1


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _save_twice(path: Path, moment: str, named: bool) -> None:
    from kcompile.frontend import atomic

    if named:
        atomic._without_name = lambda path: None
    epochs = iter(range(1))

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def prepare(epoch: int, logs: Any) -> None:
        if next(epochs, None) is not None:
            return
        if moment == "write":
            zipfile.ZipFile.writestr = die  # type: ignore[assignment]
        else:
            setattr(os, moment, die)

    checkpoint = ModelCheckpoint(path, "loss", save_best_only=True)
    checkpoint.improves = lambda value, best: True  # type: ignore[method-assign]
    compiled().fit(X, Y, epochs=2, verbose=0, callbacks=[LambdaCallback(on_epoch_end=prepare), checkpoint])
    os._exit(0)
