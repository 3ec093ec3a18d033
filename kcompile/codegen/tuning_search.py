"""Measuring what kernels may do otherwise than the models of costs say.

The whole model is compiled with an alternative for every kind of kernel at once, and takes turns with what is known so
far, stage by stage, so that every stage runs with the caches as a call leaves them. What is faster by more than noise
is compiled together, measured again, and kept if a call is faster as well. Code that disagrees with the reference is
not measured.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kcompile.codegen.backends import work
from kcompile.codegen.parity import check_graph, check_samples
from kcompile.codegen.samples import draw_for
from kcompile.codegen.tvm.lower import Compiled, compile_graph, planned, prepared
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Kernel
from kcompile.codegen.tvm.variants import ALTERNATIVES, ANALYTIC, MODELLED, Variant, Variants
from kcompile.ir.graph import Graph
from kcompile.runtime.native import NativeProgram, NativeSession
from kcompile.runtime.profile import StageClock
from kcompile.runtime.reference import graph_signature
from kcompile.runtime.signature import Signature

# The seconds of a turn, and by how much the arena lies later in the turns of a measurement, in all sets of the caches.
_TURN, _SHIFTS = 0.05, tuple(320 * turn for turn in range(12))
# A share of the time from which a difference is more than noise: of a kernel and of a call, in how many turns of 100.
_KERNEL_GAIN, _CALL_GAIN = 0.03, 0.005
_MOST, _HALF = 75, 50
# How often what is not faster in company is left out, before nothing is kept.
_TRIALS = 3
# Steps and pixels per side, about, where a model leaves them open.
_SPARE = 60
# Threads whose results are held against the reference.
_THREADS = (1, 2)

# Told what the search does next.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """What is tuned: a graph of fused groups, for calls with so many rows where it leaves them open."""

    graph: Graph
    machine: Machine
    fast_math: bool
    rows: int

    @cached_property
    def signature(self) -> Signature:
        """What the graph itself takes and gives; the model's may leave open what the graph has fixed."""
        return graph_signature(self.graph)

    @cached_property
    def _prepared(self) -> Graph:
        return prepared(self.graph)

    def compiled(self, variants: Variants) -> Compiled:
        """The code with these choices."""
        return compile_graph(self.graph, self.machine, self.fast_math, variants)

    def kernels(self, variants: Variants = MODELLED) -> dict[int, tuple[Kernel, ...]]:
        """The kernels of every group of nodes, by its number."""
        found: dict[int, tuple[Kernel, ...]] = defaultdict(tuple)
        for stage in planned(self._prepared, self._prepared.nodes, self.machine, self.fast_math, variants).stages:
            found[stage.number] += (stage.kernel,)
        return found


@dataclass(frozen=True)
class Kind:
    """Groups of nodes, by number, that the models of costs give the same kernels, and what these may do otherwise."""

    kernels: tuple[Kernel, ...]
    numbers: tuple[int, ...]
    alternatives: tuple[Variant, ...]


def kinds_of(subject: Subject) -> list[Kind]:
    """All kinds that have alternatives."""
    base = subject.kernels()
    seen = {number: [kernels] for number, kernels in base.items()}
    alternatives: dict[int, list[Variant]] = defaultdict(list)
    for variant in ALTERNATIVES:
        for number, kernels in subject.kernels(dict.fromkeys(base, variant)).items():
            if kernels not in seen[number]:
                seen[number].append(kernels)
                alternatives[number].append(variant)
    alike: dict[tuple[Kernel, ...], list[int]] = defaultdict(list)
    for number, kernels in base.items():
        alike[kernels].append(number)
    kinds = (Kind(kernels, tuple(numbers), tuple(alternatives[numbers[0]])) for kernels, numbers in alike.items())
    return [kind for kind in kinds if kind.alternatives]


@dataclass(frozen=True)
class Choice:
    """A variant, and the share of the models' choice's time that it takes."""

    variant: Variant
    share: float


Choices = dict[Kind, Choice]


def variants_of(choices: Mapping[Kind, Choice]) -> Variants:
    """How groups of nodes depart from the models of costs."""
    chosen = ((number, choice.variant) for kind, choice in choices.items() for number in kind.numbers)
    return {number: variant for number, variant in chosen if variant != ANALYTIC}


class Timed:
    """Code to measure, on one thread, in the memory of what it is measured `beside`."""

    def __init__(self, subject: Subject, variants: Variants, beside: "Timed | None" = None) -> None:
        self.variants = variants
        self._beside = beside
        self.compiled = subject.compiled(variants)
        content = self.compiled.library, self.compiled.weights
        self._program = NativeProgram(*content, self.compiled.symbols, work(subject.graph))
        self._subject = subject

    def sessions(self) -> Iterator[NativeSession]:
        """To hold it against the reference."""
        signature = self._subject.signature
        return (NativeSession(signature, self._program, threads, signature.name) for threads in _THREADS)

    @cached_property
    def _clock(self) -> StageClock:
        signature = self._subject.signature
        feeds = draw_for(signature, self._subject.rows, {}, spare=_SPARE)
        beside = self._beside._clock if self._beside else None
        return StageClock(self._program, len(self.compiled.calls), signature, feeds, signature.name, beside)

    def turn(self, shift: int) -> tuple[dict[int, float], float]:
        """The nanoseconds of every group of nodes, by number, and of a call, in an arena `shift` bytes later.

        They are the lower quartiles, which other programs lengthen least.
        """
        *stages, nothing, whole = np.percentile(self._clock.repeat(_TURN, 3, shift)[1:], 25, axis=0)
        groups: dict[int, float] = defaultdict(float)
        for call, spent in zip(self.compiled.calls, stages, strict=True):
            groups[call.number] += max(float(spent - nothing), 0.0)
        return groups, float(whole)


class Search:
    """The search among the alternatives of `kinds`, beside what is `known` of others."""

    def __init__(self, subject: Subject, kinds: Sequence[Kind], known: Mapping[Kind, Choice], tell: Tell) -> None:
        self._subject = subject
        self._kinds = kinds
        self._known = dict(known)
        self._tell = tell
        self._base = self._last = Timed(subject, variants_of(known))
        self._report = check_graph(subject.graph, *self._base.sessions())

    def choices(self, seconds: float) -> Choices:
        """What to do for each kind; after so many seconds no further alternative is compiled.

        Nothing, where even what is known disagrees with the reference.
        """
        if not self._report.agrees:
            return {}
        end, best = time.monotonic() + seconds, dict.fromkeys(self._kinds, Choice(ANALYTIC, 1.0))
        rounds = max(len(kind.alternatives) for kind in self._kinds)
        for number in range(rounds):
            if time.monotonic() > end:
                break
            self._tell(f"tuning, {number + 1} of at most {rounds}")
            tried = {k: k.alternatives[number] for k in self._kinds if number < len(k.alternatives)}
            for kind, choice in self._measured(tried)[0].items():
                best[kind] = min(best[kind], choice, key=lambda choice: choice.share)
        faster = {kind: choice for kind, choice in best.items() if choice.share < 1 - _KERNEL_GAIN}
        return dict.fromkeys(self._kinds, Choice(ANALYTIC, 1.0)) | self._confirmed(faster)

    def compiled(self, variants: Variants) -> Compiled:
        """The code with these choices, which a search that found them has."""
        made = next((timed.compiled for timed in (self._base, self._last) if timed.variants == variants), None)
        return made or self._subject.compiled(variants)

    def _confirmed(self, choices: Choices) -> Choices:
        """Those that are faster together as well."""
        for _ in range(_TRIALS):
            if not choices:
                break
            self._tell("tuning, what was faster")
            found, whole = self._measured({kind: choice.variant for kind, choice in choices.items()})
            kept = {kind: choice for kind, choice in found.items() if choice.share < 1 - _KERNEL_GAIN}
            if len(kept) == len(choices):
                return kept if whole < 1 - _CALL_GAIN else {}
            choices = kept
        return {}

    def _measured(self, variants: Mapping[Kind, Variant]) -> tuple[Choices, float]:
        """What these take, and a call with all of them, as shares; no choices where the code is wrong."""
        self._last = self._base  # which frees the code that was measured before
        choices = {**self._known, **{kind: Choice(variant, 1.0) for kind, variant in variants.items()}}
        tried = Timed(self._subject, variants_of(choices), self._base)
        self._last = tried
        if not self._agrees(tried):
            return {}, 1.0
        turns = [(self._base.turn(shift), tried.turn(shift)) for shift in _SHIFTS]
        shares: Choices = {}
        for kind, variant in variants.items():
            pairs = ([sum(groups[n] for n in kind.numbers) for groups, _ in turn] for turn in turns)
            shares[kind] = Choice(variant, round(_share(pairs, _MOST), 3))
        return shares, _share(((before, after) for (_, before), (_, after) in turns), _HALF)

    def _agrees(self, tried: Timed) -> bool:
        allowed = {difference.output: difference.allowed for difference in self._report.differences}
        return all(check_samples(s, self._report.samples, allowed).agrees for s in tried.sessions())


def _share(turns: Iterable[Iterable[float]], percent: int) -> float:
    """The share of the time before below which the time after stays in so many turns."""
    return float(np.percentile([after / before if before else 1.0 for before, after in turns], percent))
