"""The progress of `fit`, `evaluate` and `predict` as text, laid out as Keras does.

On a terminal a bar moves with the steps; elsewhere there is one line per epoch.
"""

import math
import sys
import time
from typing import Any, TextIO

import numpy as np

from kcompile.frontend.training.callbacks.base import Callback, Logs

_WIDTH = 20
_INTERVAL = 0.05


class ProgbarLogger(Callback):
    """Prints the progress: ``verbose`` 0 nothing, 1 a bar, 2 a line per epoch, "auto" what suits the output."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._given = stream
        self._in_fit = False
        self._start = self._last = 0.0
        self._seen = 0
        self._shown = 0

    @property
    def _stream(self) -> TextIO:
        return self._given or sys.stdout

    @property
    def _verbose(self) -> int:
        verbose: Any = self.params.get("verbose", "auto")
        return (1 if self._stream.isatty() else 2) if verbose == "auto" else int(verbose)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._in_fit = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._begin()
        if self._verbose and self.params.get("epochs", 1) > 1:
            self._write(f"Epoch {epoch + 1}/{self.params['epochs']}\n")

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._begin()

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._begin()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step(batch + 1, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._step(batch + 1, logs)

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step(batch + 1, {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._finish(logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._finish(logs)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._finish({})

    def _begin(self) -> None:
        self._start, self._last, self._seen, self._shown = time.monotonic(), 0.0, 0, 0

    def _step(self, seen: int, logs: Logs | None) -> None:
        self._seen = seen
        now = time.monotonic()
        if self._verbose == 1 and now - self._last >= _INTERVAL:
            self._last = now
            self._draw(self._bar(seen, now, logs or {}, done=False))

    def _finish(self, logs: Logs | None) -> None:
        now = time.monotonic()
        if self._verbose == 1:
            self._draw(self._bar(self._seen, now, logs or {}, done=True))
            self._write("\n")
        elif self._verbose == 2:
            total = self.params.get("steps") or self._seen
            spent = f"{now - self._start:.0f}s - {self._pace(self._seen, now)}"
            self._write(f"{self._seen}/{total} - {spent}{_values(logs or {})}\n")

    def _draw(self, line: str) -> None:
        width = len(line)
        self._write("\r" + line + " " * max(self._shown - width, 0))
        self._shown = width

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _bar(self, seen: int, now: float, logs: Logs, done: bool) -> str:
        total = self.params.get("steps")
        if not total:
            return f"{seen:7d}/Unknown {now - self._start:.0f}s {self._pace(seen, now)}{_values(logs)}"
        filled = int(_WIDTH * min(seen / total, 1.0))
        digits = int(math.log10(total)) + 1
        left = (now - self._start) / max(seen, 1) * (total - seen)
        spent = f"{now - self._start:.0f}s" if done else _clock(left)
        bar = "━" * filled + "─" * (_WIDTH - filled)
        return f"{seen:{digits}d}/{total} {bar} {spent} {self._pace(seen, now)}{_values(logs)}"

    def _pace(self, seen: int, now: float) -> str:
        each = (now - self._start) / max(seen, 1)
        if each >= 1:
            return f"{each:.0f}s/step"
        return f"{each * 1e3:.0f}ms/step" if each >= 1e-3 else f"{each * 1e6:.0f}us/step"


def _clock(seconds: float) -> str:
    if seconds > 3600:
        return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{int(seconds % 60):02d}"
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}" if seconds > 60 else f"{int(seconds)}s"


def _values(logs: Logs) -> str:
    return "".join(f" - {name}: {_number(value)}" for name, value in logs.items())


def _number(value: Any) -> str:
    mean = float(np.mean(value))
    return f"{mean:.4f}" if abs(mean) > 1e-3 or mean == 0 else f"{mean:.4e}"
