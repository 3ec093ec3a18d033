"""Processes that answer on request, in this environment or in that of the peers."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent
# The interpreter of the environment that holds TensorFlow and what needs it.
PEERS = Path(os.environ.get("KCOMPILE_PEERS", ROOT.parent / ".venv-peers" / "bin" / "python"))


class Worker:
    """A script of this folder, one line of which answers one line; the machine is its own to use.

    Variables that limit threads, or choose for OpenBLAS the code that it would choose by the CPU, are left out.

    Raises:
        RuntimeError: there is no such interpreter.
    """

    def __init__(self, python: Path, script: str, argument: str) -> None:
        if not python.exists():
            raise RuntimeError(
                f"there is no {python}; make it with `make peers`, or say where it is with KCOMPILE_PEERS"
            )
        free = {n: v for n, v in os.environ.items() if not (n.endswith("_NUM_THREADS") or n.startswith("OPENBLAS_"))}
        # Libraries of the peers write to the error stream whatever they think of the machine.
        self._process = subprocess.Popen(
            [str(python), str(ROOT / script), argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=free, cwd=ROOT.parent,
        )  # fmt: skip

    def answer(self, line: str) -> str:
        """The answer to a line.

        Raises:
            RuntimeError: the process is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"{self._process.args} ended with status {self._process.wait()} at {line}")
        return answer

    def end(self) -> None:
        """Let it go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
