"""Target "auto": each engine's program is measured on this machine, and the fastest that agrees is kept.

What was measured is remembered by model, machine, versions and number of threads.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from kcompile.codegen.backends import Backend, Program, backend
from kcompile.codegen.notebook import Notebook, key_of
from kcompile.codegen.parity import check_graph
from kcompile.codegen.samples import draw_for
from kcompile.errors import KCompileError, MissingExtra, TargetError
from kcompile.ir.graph import Graph
from kcompile.ir.types import Array
from kcompile.runtime.session import THREADS_KEY, Session, check_threads
from kcompile.runtime.signature import Signature

NOTE = "kcompile.auto"
CANDIDATES = ("tvm", "onnx")
_NOTEBOOK = Notebook("auto")

# Turns of each candidate, and the seconds that one takes about.
_TURNS, _SECONDS = 9, 0.02
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
    place = key_of(graph, threads)  # the texts of graphs hold the hashes of their weights
    remembered = _remembered(place)
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
    _NOTEBOOK.add({place: (fastest, why)})
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
            failed.append(_Found(target, reason=str(error).splitlines()[0].rstrip(".:")))
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


def _remembered(key: str) -> tuple[str, str] | None:
    """The fastest target and why, where that is known."""
    match _NOTEBOOK.read().get(key):
        case [str(target), str(why)] if target in CANDIDATES:
            return target, why
        case _:
            return None
