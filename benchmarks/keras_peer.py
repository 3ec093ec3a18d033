"""Keras with TensorFlow as an engine: a process in the peers' environment that takes its turns on request."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Worker:
    """The process; it ends when this one does, since its input ends then.

    Raises:
        RuntimeError: there is no such environment.
    """

    def __init__(self, python: Path, threads: int) -> None:
        if not python.exists():
            raise RuntimeError(f"there is no {python}; make it with `make peers`")
        free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        command = [str(python), str(Path(__file__).parent / "keras_worker.py"), str(threads)]
        # TensorFlow writes to the error stream whatever it thinks of the machine.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=free
        )
        self._folder = tempfile.TemporaryDirectory()
        self._input = ("", 0)
        self.versions: dict[str, str] = self.ask("versions")

    def ask(self, what: str, **given: Any) -> Any:
        """The answer to a request.

        Raises:
            RuntimeError: it was an error, or the process is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"what": what, **given}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"Keras's process ended with {self._process.wait()}"}
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

    def __init__(self, worker: Worker, how: str, file: Path) -> None:
        self._worker = worker
        self._how = how
        self._file = file

    def results(self) -> Sequence[np.ndarray]:
        self._worker.ask("results", how=self._how, output=str(self._file))
        return [np.load(self._file)]

    def turn(self, warm_up: int, calls: int) -> float:
        return float(self._worker.ask("turn", how=self._how, warm_up=warm_up, calls=calls))
