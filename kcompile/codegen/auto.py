"""Target "auto": each engine's program is measured on this machine, and the fastest that agrees is kept.

What was measured is remembered by model, machine, versions and number of threads, in ``auto.json`` of the folder that
``KCOMPILE_CACHE`` names, by default ``~/.cache/kcompile``.
"""

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kcompile.codegen.backends import Backend, Program, backend
from kcompile.codegen.bundle import replacing
from kcompile.codegen.parity import check_graph
from kcompile.codegen.samples import draw_for
from kcompile.errors import ArtifactError, KCompileError, MissingExtra, TargetError
from kcompile.ir.graph import Graph
from kcompile.ir.types import Array
from kcompile.runtime.session import THREADS_KEY, Session, check_threads
from kcompile.runtime.signature import Signature

NOTE = "kcompile.auto"
CANDIDATES = ("tvm", "onnx")
_PACKAGES = ("kcompile", "numpy", "apache-tvm", "onnxruntime")

# Turns of each candidate, and the seconds that one takes about.
_TURNS, _SECONDS = 9, 0.02
_REMEMBERED = 1000
# Steps and pixels per side, about, where a model leaves them open: of few, nothing but the cost of a call would show.
_SPARE = 60


@dataclass(frozen=True)
class _Found:
    """What became of one candidate: seconds per call of one row, or why there are none."""

    target: str
    seconds: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.target} {self.seconds * 1e3:.3g} ms" if self.seconds else f"{self.target}: {self.reason}"


@dataclass(frozen=True)
class _Auto(Backend):
    """The back end of target "auto"."""

    def session(self, graph: Graph) -> Session:
        """Of the first engine that computes `graph`; parts of a model are not worth measuring."""
        for target in CANDIDATES[:-1]:
            try:
                return backend(target).session(graph)
            except KCompileError:
                continue
        return backend(CANDIDATES[-1]).session(graph)


def auto_backend(precision: str = "float32") -> Backend:
    """The back end of target "auto"; it writes bundles."""
    precisions = dict.fromkeys(name for target in CANDIDATES for name in _precisions(target, precision))
    return _Auto("auto", (".kcb",), partial(_compile, precision), precisions=tuple(precisions))


def _precisions(target: str, precision: str) -> tuple[str, ...]:
    """Those beside float32 of an engine; none where it is not installed."""
    try:
        return backend(target, precision=precision).precisions
    except MissingExtra:
        return ()


def _compile(precision: str, graph: Graph, signature: Signature, notes: Mapping[str, str]) -> Program:
    """The fastest candidate's program, with a note that says why it is the one.

    Raises:
        TargetError: no candidate could be made, or none agrees with the reference.
    """
    threads = check_threads(None, notes.get(THREADS_KEY))
    place = _key(graph, threads)
    remembered = _remembered().get(place)
    if remembered is not None:
        target, why = remembered
        program = backend(target, precision=precision).compile(graph, signature, notes)
        return replace(program, notes={NOTE: f"{why}; measured before"})
    programs, found = _candidates(precision, graph, signature, notes)
    sessions = {target: program.open(threads) for target, program in programs.items()}
    times = _measured(sessions, signature)
    found = [*(_Found(target, seconds) for target, seconds in times.items()), *found]
    if not times:
        raise TargetError(f'target "auto" found no engine for {graph.name}. {"; ".join(map(str, found))}.')
    fastest = min(times, key=lambda target: times[target])
    why = f"{fastest} is the fastest on {threads} threads: {', '.join(map(str, found))}"
    _remember(place, (fastest, why))
    return replace(programs[fastest], notes={NOTE: why})


def _candidates(
    precision: str, graph: Graph, signature: Signature, notes: Mapping[str, str]
) -> tuple[dict[str, Program], list[_Found]]:
    """The programs that agree with the reference, and what is wrong with the others."""
    programs: dict[str, Program] = {}
    failed: list[_Found] = []
    for target in CANDIDATES:
        try:
            program = backend(target, precision=precision).compile(graph, signature, notes)
            if not check_graph(graph, program.open(1)).agrees:
                failed.append(_Found(target, reason="it disagrees with the reference"))
                continue
            programs[target] = program
        except KCompileError as error:
            failed.append(_Found(target, reason=str(error).rstrip(".")))
    return programs, failed


def _measured(sessions: Mapping[str, Session], signature: Signature) -> dict[str, float]:
    """Seconds per call of one row, each the median of turns that the sessions take one after another."""
    feeds = draw_for(signature, 1, {}, spare=_SPARE)
    calls = {target: _calls(session, feeds) for target, session in sessions.items()}
    turns: dict[str, list[float]] = {target: [] for target in sessions}
    for _ in range(_TURNS):
        for target, session in sessions.items():
            turns[target].append(_per_call(session, feeds, calls[target]))
    return {target: statistics.median(seconds) for target, seconds in turns.items()}


def _calls(session: Session, feeds: Mapping[str, Array]) -> int:
    """How many calls fill a turn."""
    _per_call(session, feeds, 2)
    return max(round(_SECONDS / _per_call(session, feeds, 3)), 1)


def _per_call(session: Session, feeds: Mapping[str, Array], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        session.run(feeds)
    return (time.perf_counter() - begin) / calls


# ---- what was measured before


def _key(graph: Graph, threads: int) -> str:
    """Model, machine, versions and threads; texts of graphs hold the hashes of their weights."""
    facts = [str(graph), str(threads), platform.machine(), _cpu(), *(f"{name} {_version(name)}" for name in _PACKAGES)]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    """The CPU's name and its number, as Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return f"{next((line for line in lines if line.startswith(('model name', 'CPU part'))), '')} x {os.cpu_count()}"


def _file() -> Path:
    return Path(os.environ.get("KCOMPILE_CACHE") or Path.home() / ".cache" / "kcompile") / "auto.json"


def _remembered() -> dict[str, tuple[str, str]]:
    """By key, the fastest target and why; nothing where the file is missing or damaged."""
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = content.items() if isinstance(content, dict) else ()
    return {
        key: (value[0], value[1])
        for key, value in pairs
        if isinstance(value, list) and len(value) == 2 and value[0] in CANDIDATES and isinstance(value[1], str)
    }


def _remember(key: str, found: tuple[str, str]) -> None:
    """Add an entry; where the folder may not be written, measuring again is all that it costs."""
    entries = dict(list(_remembered().items())[-_REMEMBERED + 1 :]) | {key: found}
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        with replacing(_file()) as file:
            file.write(json.dumps(entries, indent=1).encode())
    except (OSError, ArtifactError):
        return
