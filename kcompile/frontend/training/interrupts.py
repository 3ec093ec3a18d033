"""Ctrl-C while a model trains: it ends the training between two steps, never within one.

Within a step some weights are new and others old, or a file is half written; between two, the model can be used, saved
and trained on.
"""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Holds Ctrl-C back while `busy`; the second one in a row is let through at once.

        with Interrupts() as interrupts:
            interrupts.busy = True
            ...
            interrupts.let_through()

    Where a handler other than Python's own is set, or in another thread than the main one, it does nothing.
    """

    def __init__(self) -> None:
        self.busy = False
        self._waiting = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self.busy or self._waiting:
            raise KeyboardInterrupt
        self._waiting = True

    def let_through(self) -> None:
        """Say that nothing would be left half done now.

        Raises:
            KeyboardInterrupt: one was held back.
        """
        self.busy = False
        if self._waiting:
            raise KeyboardInterrupt
