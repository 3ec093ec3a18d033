"""Where a search is kept: a folder with a SQLite database of trials, which a kill at any instant leaves whole."""

import fcntl
import json
import shutil
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from kcompile.errors import MissingExtra, ModelError
from kcompile.frontend.tuning.hyperparameters import Entry, HyperParameters, SpaceError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

Direction = Literal["min", "max"]


def optuna_or_error() -> Any:
    """Optuna, which says nothing but warnings.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtra('a search needs Optuna. Install it with: pip install "kcompile[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Store:
    """The trials of a search in a folder; a search that was killed goes on with them.

    Args:
        folder: of the search alone.
        overwrite: whether to delete what it holds of a search before.

    Raises:
        ModelError: the folder cannot be written to, or what it holds is no store or one of another search.
    """

    def __init__(self, folder: Path, direction: Direction, pruner: "BasePruner", overwrite: bool = False) -> None:
        self.optuna = optuna_or_error()
        self.folder, self._lock = folder, None
        try:
            if overwrite:
                self._clear()
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "lock").touch()
        except OSError as error:
            law = f"a search needs a folder that can be written to: {error.strerror or error}"
            raise ModelError(f"{law}. Received: {str(folder)!r}.") from error
        self.study: Study = self._study(direction, pruner)

    def _clear(self) -> None:
        for path in self.folder.glob("trials.db*"):
            path.unlink()
        for path in self.folder.glob("trial_*"):
            shutil.rmtree(path)

    def _study(self, direction: Direction, pruner: "BasePruner") -> "Study":
        from sqlalchemy.exc import SQLAlchemyError

        wanted = {"min": "minimize", "max": "maximize"}[direction]
        try:
            storage = self._storage()
            study = self.optuna.create_study(
                storage=storage, study_name="search", direction=wanted, pruner=pruner, load_if_exists=True
            )
        except (SQLAlchemyError, sqlite3.Error, RuntimeError, ValueError) as error:
            raise ModelError(f"{self.folder / 'trials.db'} is no store of a search. Delete it. ({error})") from error
        if study.direction.name.lower() != wanted:
            law = f"the search in {self.folder} must go on with its objective"
            received = f"direction {direction!r}, where the store has another"
            raise ModelError(
                f"{law}. Received: {received}. Give overwrite=True to begin anew, or another project_name."
            )
        return study

    def _storage(self) -> Any:
        """The database; with a log that is written ahead it stays whole without waiting for the disk at every trial."""
        from sqlalchemy import URL, event

        path = str(self.folder.absolute() / "trials.db")
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
        storage = self.optuna.storages.RDBStorage(URL.create("sqlite", database=path).render_as_string())
        event.listen(storage.engine, "connect", _relax)
        storage.engine.dispose()
        return storage

    # -- one search at a time -----------------------------------------------------------------------------------------

    def __enter__(self) -> "Store":
        """Keep other processes from searching here.

        Raises:
            ModelError: one does.
        """
        lock: BinaryIO = (self.folder / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            law = f"one process at a time can search in {self.folder}"
            raise ModelError(f"{law}. Another does now. Give another project_name.") from None
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- facts --------------------------------------------------------------------------------------------------------

    def fact(self, name: str, value: Any) -> Any:
        """What the store was first told under a name."""
        known = self.study.user_attrs
        if name not in known:
            self.study.set_user_attr(name, json.loads(json.dumps(value)))
        return self.study.user_attrs[name]

    def check_same(self, name: str, value: Mapping[str, str]) -> None:
        """Refuse a search that is not the one that made the store.

        Raises:
            ModelError: `value` is not what the store was first told.
        """
        known = self.fact(name, value)
        if known == dict(value):
            return
        pairs = [(key, value.get(key, "nothing"), known.get(key, "nothing")) for key in {**known, **value}]
        told = [f"`{key}` as {new}, where the store has {old}" for key, new, old in pairs if new != old]
        law = f"the search in {self.folder} must go on with the same {name}"
        raise ModelError(
            f"{law}. Received: {'; '.join(told)}. Give overwrite=True to begin anew, or another project_name."
        )

    def note_space(self, hp: HyperParameters) -> None:
        """Keep the entries that a trial declared; each must mean the same in all trials.

        Raises:
            SpaceError: one does not.
        """
        known: dict[str, str] = self.study.user_attrs.get("space", {})
        found = {key: entry.describe() for key, entry in hp.space.items()}
        for key, text in found.items():
            if known.get(key, text) != text:
                law = f"hyper-parameter `{key}` must be declared in the same way in all trials"
                raise SpaceError(f"{law}. Received: {text}, where the store has {known[key]}.")
        if found.keys() - known.keys():
            self.study.set_user_attr("space", {**known, **found})

    # -- trials -------------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> "list[FrozenTrial]":
        """All trials."""
        return self.study.get_trials(deepcopy=False)

    @property
    def finished(self) -> "list[FrozenTrial]":
        """Those that came to an end, be it a bad one; but for those whose build function was wrong."""
        return [trial for trial in self.trials if trial.state.is_finished() and not trial.user_attrs.get("void")]

    @property
    def best(self) -> "list[FrozenTrial]":
        """Trials with a score, the best first; those that were pruned after the others."""
        pruned = self.optuna.trial.TrialState.PRUNED
        sign = -1 if self.study.direction.name == "MAXIMIZE" else 1
        scored = [trial for trial in self.finished if trial.user_attrs.get("score") is not None]
        return sorted(scored, key=lambda trial: (trial.state == pruned, sign * trial.user_attrs["score"]))

    def next(self, sampler: "BaseSampler") -> "Trial":
        """The trial that a kill interrupted, or a new one."""
        self.study.sampler = sampler
        for trial in self.trials:
            if not trial.state.is_finished():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return self.optuna.trial.Trial(self.study, trial._trial_id)  # pyright: ignore[reportPrivateUsage]
        return self.study.ask()

    def folder_of(self, number: int) -> Path:
        """Where a trial keeps its files."""
        return self.folder / f"trial_{number:04d}"


def _relax(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def draw(trial: "Trial", entry: Entry) -> Any:
    """The value that a trial gets for an entry: the same whenever it is asked."""
    least, most, step, log = entry.range()
    if not entry.ordered:
        return entry.value(trial.suggest_categorical(entry.key, list(range(len(entry.values)))))
    if entry.values or entry.kind == "Int":
        return entry.value(trial.suggest_int(entry.key, least, most, step=step or 1, log=log))
    return entry.value(trial.suggest_float(entry.key, least, most, step=step, log=log))


def described(space: Sequence[Entry]) -> dict[str, str]:
    """Entries as texts by their keys."""
    return {entry.key: entry.describe() for entry in space}
