"""The progress of `fit`, `evaluate` and `predict` as text, laid out as Keras does.

On a terminal, or in a notebook, a bar moves with the steps; elsewhere there is one line per epoch.
"""

import math
import os
import sys
import time
from typing import Any, TextIO

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.callbacks.base import Callback, Logs

_WIDTH = 20
_INTERVAL = 0.05
_BOLD, _DONE, _LEFT, _PLAIN = "\x1b[1m", "\x1b[32m", "\x1b[37m", "\x1b[0m"
_CLEAR = "\r\x1b[K"


class ProgbarLogger(Callback):
    """Prints the progress.

    `verbose` of `fit` says how: 0 nothing, 1 a bar, 2 a line per epoch, "auto" a bar on a terminal and lines elsewhere.
    A bar that cannot move, since the output is no terminal, is printed once per epoch.

    Args:
        stream: where to, by default the standard output.

    Raises:
        ModelError: `verbose` is something else.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._given = stream
        self._in_fit = self._moves = self._bar_is_open = False
        self._verbose = 0
        self._total: int | None = None
        self._start = self._last = 0.0
        self._seen = 0
        # When the first step, which is slower than the others, was made, and which it was.
        self._first: tuple[float, int] | None = None

    @property
    def _stream(self) -> TextIO:
        return self._given or sys.stdout

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        verbose = params.get("verbose", "auto")
        if verbose not in ("auto", 0, 1, 2):
            raise ModelError(f'`verbose` must be "auto", 0, 1 or 2. Received: {verbose!r}.')
        self._moves = self._stream.isatty() or "ipykernel" in sys.modules
        self._verbose = (1 if self._moves else 2) if verbose == "auto" else int(verbose)
        self._total = params.get("steps")

    # -- events -------------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._in_fit = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._in_fit = False

    def on_train_abort(self, logs: Logs | None = None) -> None:
        self._in_fit = False
        if self._bar_is_open:
            self._write("\n")

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

    # -- drawing ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._start, self._last, self._seen, self._first = time.monotonic(), 0.0, 0, None

    def _step(self, seen: int, logs: Logs | None) -> None:
        self._seen = seen
        now = time.monotonic()
        if self._first is None:
            self._first = now, seen
        if self._moves and self._verbose == 1 and now - self._last >= _INTERVAL:
            self._last = now
            text = self._bar(seen, now, logs or {}, done=False)
            self._write(_CLEAR + _cut(text, self._columns()))
            self._bar_is_open = True

    def _finish(self, logs: Logs | None) -> None:
        now = time.monotonic()
        self._total = self._total or self._seen
        if self._verbose == 1:
            self._write((_CLEAR if self._moves else "") + self._bar(self._seen, now, logs or {}, done=True) + "\n")
            self._bar_is_open = False
        elif self._verbose == 2:
            spent = f"{now - self._start:.0f}s - {self._pace(now)[1]}"
            self._write(f"{self._seen}/{self._total} - {spent}{_values(logs or {})}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            return 10_000

    def _bar(self, seen: int, now: float, logs: Logs, done: bool) -> str:
        each, pace = self._pace(now)
        spent = f"{now - self._start:.0f}s"
        if not self._total:
            return f"{seen:7d}/Unknown {self._styled(_BOLD, spent)} {pace}{_values(logs)}"
        filled = int(_WIDTH * min(seen / self._total, 1.0))
        digits = int(math.log10(self._total)) + 1
        count = self._styled(_BOLD, f"{seen:{digits}d}/{self._total}")
        full, empty = ("━", "━" if self._is_styled else "─") if self._draws_lines() else ("=", ".")
        bar = self._styled(_DONE, full * filled) + self._styled(_LEFT, empty * (_WIDTH - filled))
        clock = spent if done else _clock(each * (self._total - seen))
        return f"{count} {bar} {self._styled(_BOLD, clock)} {pace}{_values(logs)}"

    def _styled(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if text and self._is_styled else text

    @property
    def _is_styled(self) -> bool:
        return self._moves and not os.environ.get("NO_COLOR")

    def _draws_lines(self) -> bool:
        try:
            "━".encode(self._stream.encoding or "utf-8")
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def _pace(self, now: float) -> tuple[float, str]:
        """The seconds that a step takes, as a number and as text; the first step counts where it is the only one."""
        then, first = self._first or (self._start, 0)
        more = self._seen > first
        each = (now - then) / (self._seen - first) if more else now - self._start
        if each >= 1:
            return each, f"{each:.0f}s/step"
        return each, f"{each * 1e3:.0f}ms/step" if each >= 1e-3 else f"{each * 1e6:.0f}us/step"


def _cut(text: str, width: int) -> str:
    """A styled text without what stands beyond the edge of the terminal, where it would begin another line."""
    shown, parts, styled = 0, list[str](), text.split("\x1b[")
    for i, part in enumerate(styled):
        code, plain = part.split("m", 1) if i else ("", part)
        kept = plain[: max(width - 1 - shown, 0)]
        shown += len(kept)
        parts.append((f"\x1b[{code}m" if i else "") + kept)
    return "".join(parts)


def _clock(seconds: float) -> str:
    if seconds > 3600:
        return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{int(seconds % 60):02d}"
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}" if seconds > 60 else f"{int(seconds)}s"


def _values(logs: Logs) -> str:
    return "".join(f" - {name}: {_number(value)}" for name, value in logs.items())


def _number(value: Any) -> str:
    mean = float(np.mean(value))
    return f"{mean:.4f}" if abs(mean) > 1e-3 or mean == 0 else f"{mean:.4e}"
