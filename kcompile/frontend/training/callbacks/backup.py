"""`BackupAndRestore`: a `fit` that was killed goes on where it was, and comes to the same numbers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from kcompile.errors import ModelError
from kcompile.frontend.atomic import replace_file
from kcompile.frontend.training.callbacks.base import Callback, Logs
from kcompile.frontend.training.compiled import Compiled
from kcompile.frontend.training.loop import Start
from kcompile.frontend.training.snapshot import Snapshot, check, restore, restore_data, take

_SUFFIX = ".backup"
_NAME, _PREVIOUS = f"latest{_SUFFIX}", f"previous{_SUFFIX}"


class BackupAndRestore(Callback):
    """Keeps all that a `fit` needs to go on; one that was interrupted then resumes from there, with the same numbers.

    What comes out is what would have come out without the interruption: weights, the optimizer's state, metrics, the
    order of the samples, dropout, and what the other callbacks have seen. The data must be the same; a generator must
    be made anew, and is read on to where it was. `History` has the epochs since the interruption.

    Args:
        backup_dir: a folder for this alone; it may not exist yet.
        save_freq: "epoch", or a number of batches.
        double_checkpoint: whether the backup before the last one is kept too, for where the last one cannot be read.
        delete_checkpoint: whether the backup is deleted at the end of `fit`, and its folder if nothing else is in it.

    Raises:
        ModelError: `save_freq` is something else, the folder cannot be written to, or it has a backup of another model.
    """

    acts_last = True

    def __init__(
        self,
        backup_dir: str | Path,
        save_freq: Literal["epoch"] | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not str(backup_dir):
            raise ModelError("`backup_dir` of BackupAndRestore must name a folder. Received: ''.")
        if save_freq != "epoch" and (type(save_freq) is not int or save_freq < 1):
            law = '`save_freq` of BackupAndRestore must be "epoch" or a number of batches'
            raise ModelError(f"{law}. Received: {save_freq!r}.")
        self.backup_dir, self.save_freq = Path(backup_dir), save_freq
        self.double_checkpoint, self.delete_checkpoint = double_checkpoint, delete_checkpoint
        self._callbacks: Sequence[Callback] = ()
        self._epoch = self._unsaved = 0
        self._restored: Snapshot | None = None

    @property
    def _compiled(self) -> Compiled:
        return self.model.require_compiled("fit")

    def set_callbacks(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = [callback for callback in callbacks if callback is not self]

    # -- restoring ----------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._unsaved = 0
        self._in_folder(lambda: self.backup_dir.mkdir(parents=True, exist_ok=True))
        self._restored = self._read()
        if self._restored is None:
            return
        check(self._restored, self.model, self._compiled, self.backup_dir)
        self._check_steps(self._restored)
        facts = self._restored.facts
        self._restore(self._restored)
        self._unsaved = facts["unsaved"]
        epoch = self.params["epochs"] if facts["stopped"] else facts["epoch"]
        self.model.start = Start(epoch, facts["step"], facts["logs"])
        if not facts["step"]:
            restore_data(self._restored, self.model, within=False)
            self._restored = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch
        if self._restored is not None:
            # The other callbacks have begun this epoch once more, and may have changed something.
            self._restore(self._restored)
            assert self._compiled.objectives is not None
            self._compiled.objectives.resume(self._restored.facts["metrics"])
            restore_data(self._restored, self.model, within=True)
            self._restored = None

    def _restore(self, snapshot: Snapshot) -> None:
        restore(snapshot, self.model, self._compiled)
        states = snapshot.facts["callbacks"]
        for callback, (kind, state) in zip(self._callbacks, states, strict=False):
            if kind == type(callback).__name__:
                callback.set_state(state)

    def _read(self) -> Snapshot | None:
        problems: list[str] = []
        for path in (self.backup_dir / _NAME, self.backup_dir / _PREVIOUS):
            try:
                return Snapshot.read(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                problems.append(f"{path.name} ({error})")
        if problems:
            law = f"the backup in {self.backup_dir} must be whole to go on from it"
            raise ModelError(f"{law}. Received: {', '.join(problems)}. Delete it to begin anew.")
        return None

    def _check_steps(self, snapshot: Snapshot) -> None:
        then, now = snapshot.facts["steps"], self.params.get("steps")
        if then != now:
            law = f"the backup in {self.backup_dir} must be of a `fit` with the same batches"
            raise ModelError(f"{law}. Received: one of {then} steps in an epoch, where there are {now} now.")

    # -- backing up ---------------------------------------------------------------------------------------------------

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if not isinstance(self.save_freq, int):
            return
        self._unsaved += 1
        # An epoch that is about to be left early is made again from the last backup.
        if self._unsaved >= self.save_freq and not self.model.stop_training:
            self._unsaved = 0
            self._save(self._epoch, batch + 1, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch + 1, 0, {})

    def _save(self, epoch: int, step: int, logs: Logs) -> None:
        snapshot = take(self.model, self._compiled)
        snapshot.facts |= {
            "epoch": epoch,
            "step": step,
            "steps": self.params.get("steps"),
            "logs": logs,
            "stopped": self.model.stop_training,
            "unsaved": self._unsaved,
            "callbacks": [(type(callback).__name__, callback.get_state()) for callback in self._callbacks],
        }
        self._in_folder(lambda: self._write(snapshot))

    def _write(self, snapshot: Snapshot) -> None:
        latest = self.backup_dir / _NAME
        if self.double_checkpoint and latest.exists():
            latest.replace(self.backup_dir / _PREVIOUS)
        replace_file(latest, snapshot.write, lasting=True)

    def _in_folder(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except OSError as error:
            law = f"`backup_dir` of BackupAndRestore must be a folder that can be written to: {error.strerror or error}"
            raise ModelError(f"{law}. Received: {str(self.backup_dir)!r}.") from error

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint:
            for path in self.backup_dir.glob(f"*{_SUFFIX}*"):
                path.unlink(missing_ok=True)
            # What else lies in the folder is not this callback's, and keeps it.
            with suppress(OSError):
                self.backup_dir.rmdir()
