"""Keras with TensorFlow as an engine: a process in the peers' environment that takes its turns on request."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import PEERS, Worker


class KerasProcess(Worker):
    """The process; it ends when this one does, since its input ends then."""

    def __init__(self, threads: int) -> None:
        super().__init__(PEERS, "keras_worker.py", str(threads))
        self._folder = tempfile.TemporaryDirectory()
        self._input = ("", 0)
        self.versions: dict[str, str] = self.ask("versions")

    def ask(self, what: str, **given: Any) -> Any:
        """The answer to a request.

        Raises:
            RuntimeError: it was an error, or the process is gone.
        """
        answer = json.loads(self.answer(json.dumps({"what": what, **given})))
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]

    def engine(self, path: Path, x: np.ndarray, how: str) -> "KerasEngine":
        """A model on an input; the process holds one at a time."""
        if self._input != (str(path), len(x)):
            file = Path(self._folder.name) / "x.npy"
            np.save(file, x)
            self.ask("load", path=str(path), input=str(file))
            self._input = (str(path), len(x))
        return KerasEngine(self, how, Path(self._folder.name) / f"{how}.npy")


class KerasEngine:
    """The model that a worker holds, by ``"predict"`` or by a ``"function"`` of TensorFlow."""

    def __init__(self, worker: KerasProcess, how: str, file: Path) -> None:
        self._worker = worker
        self._how = how
        self._file = file

    def results(self) -> Sequence[np.ndarray]:
        self._worker.ask("results", how=self._how, output=str(self._file))
        return [np.load(self._file)]

    def turn(self, warm_up: int, calls: int) -> float:
        return float(self._worker.ask("turn", how=self._how, warm_up=warm_up, calls=calls))
