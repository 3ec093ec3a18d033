"""A search by measurement among what kernels may do otherwise than the models of costs say: ``--tune``.

The whole model is compiled with each alternative for all its stages, and the programs take turns on this machine, stage
by stage, so that each stage runs with the caches as a call leaves them. Stages that share a kernel take the alternative
that is fastest for them together. The program of these is kept if it agrees with the reference and a call is faster.
What was found is remembered, so that the same model gives the same code again.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from kcompile.codegen.backends import work
from kcompile.codegen.notebook import Notebook, key_of
from kcompile.codegen.parity import check_graph
from kcompile.codegen.samples import draw_for
from kcompile.codegen.tvm.lower import Compiled, compile_graph
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.variants import ALTERNATIVES, ANALYTIC, Variant
from kcompile.ir.graph import Graph
from kcompile.ir.types import Array
from kcompile.runtime.native import NativeProgram, NativeSession
from kcompile.runtime.profile import StageClock
from kcompile.runtime.signature import Signature

NOTE = "kcompile.tune"
_NOTEBOOK = Notebook("tune")
# Seconds in which alternatives are compiled, and those of a turn and the number of turns in which each is measured.
_COMPILING, _TURN, _TURNS = 120.0, 0.05, 12
# A share of the time from which a difference is more than noise: of a kernel, and of a call.
_KERNEL_GAIN, _CALL_GAIN = 0.03, 0.01
# Of the times of a stage, the one that other programs do not lengthen.
_QUIET = 20

# The variants of stages, by their numbers.
Choices = dict[int, Variant]


@dataclass(frozen=True)
class Model:
    """What is tuned: a graph of fused groups for calls with so many rows."""

    graph: Graph
    signature: Signature
    machine: Machine
    fast_math: bool
    rows: int

    def compiled(self, choices: Mapping[int, Variant], default: Variant = ANALYTIC) -> Compiled:
        """Its code with these choices."""
        return compile_graph(self.graph, self.machine, self.fast_math, lambda number: choices.get(number, default))

    def program(self, compiled: Compiled) -> NativeProgram:
        """Code to run."""
        return NativeProgram(compiled.library, compiled.weights, compiled.symbols, work(self.graph))

    def clock(self, compiled: Compiled) -> StageClock:
        """Code to measure."""
        feeds = draw_for(self.signature, self.rows, {})
        return StageClock(self.program(compiled), len(compiled.calls), self.signature, feeds, self.graph.name)


def tuned(model: Model) -> tuple[Compiled, str]:
    """The fastest code that was found, and what was measured."""
    key = key_of(model.graph, model.machine, model.fast_math, model.rows)
    match _NOTEBOOK.read().get(key):
        case {"stages": dict() as stages, "why": str(why)}:
            return model.compiled({int(number): Variant(*fields) for number, fields in stages.items()}), why
        case _:
            choices, compiled, why = _search(model)
    _NOTEBOOK.add(key, {"stages": {number: astuple(variant) for number, variant in choices.items()}, "why": why})
    return compiled, why


def _search(model: Model) -> tuple[Choices, Compiled, str]:
    base = model.compiled({})
    tried = _alternatives(model, base)
    if not tried:
        return {}, base, "its kernels have no alternatives"
    choices = _fastest(base, _stage_times(model, base, tried))
    if not choices:
        return {}, base, f"none of {len(tried)} alternatives is faster"
    found = model.compiled(choices)
    before, after = (whole[-1] for whole in _measured([model.clock(base), model.clock(found)]))
    session = NativeSession(model.signature, model.program(found), 1, model.graph.name)
    figures = f"{after / 1e6:.3g} ms instead of {before / 1e6:.3g} ms"
    if after > (1 - _CALL_GAIN) * before or not check_graph(model.graph, session).agrees:
        return {}, base, f"no mixture of {len(tried)} alternatives is faster: {figures}"
    return choices, found, f"{len(choices)} of {len(base.calls)} stages by other choices: {figures}"


def _alternatives(model: Model, base: Compiled) -> dict[Variant, Compiled]:
    """The code of each alternative that makes a difference, as far as time allows."""
    end = time.monotonic() + _COMPILING
    found: dict[Variant, Compiled] = {}
    for variant in ALTERNATIVES:
        if time.monotonic() < end:
            compiled = model.compiled({}, variant)
            if compiled.library != base.library and _numbers(compiled) == _numbers(base):
                found[variant] = compiled
    return found


def _numbers(compiled: Compiled) -> list[int]:
    return [call.number for call in compiled.calls]


def _stage_times(model: Model, base: Compiled, tried: Mapping[Variant, Compiled]) -> dict[Variant, Array]:
    """The nanoseconds of each stage, by variant."""
    codes = {ANALYTIC: base, **tried}
    measured = _measured([model.clock(compiled) for compiled in codes.values()])
    return {variant: times[:-2] for variant, times in zip(codes, measured, strict=True)}


def _measured(clocks: Sequence[StageClock]) -> list[Array]:
    """The nanoseconds of each stage, of none, and of a call, of programs that take turns."""
    turns: list[list[Array]] = [[] for _ in clocks]
    for _ in range(_TURNS):
        for clock, own in zip(clocks, turns, strict=True):
            own.append(clock.repeat(_TURN, 3)[1:])
    return [np.percentile(np.concatenate(own), _QUIET, axis=0) for own in turns]


def _fastest(base: Compiled, times: Mapping[Variant, Array]) -> Choices:
    """For the stages of each kernel the variant that is faster by more than noise."""
    kernels: dict[str, list[int]] = defaultdict(list)
    for place, call in enumerate(base.calls):
        kernels[call.function].append(place)
    choices: Choices = {}
    for places in kernels.values():
        sums = {variant: float(own[places].sum()) for variant, own in times.items()}
        best = min(sums, key=lambda variant: sums[variant])
        if sums[best] < (1 - _KERNEL_GAIN) * sums[ANALYTIC]:
            choices |= {base.calls[place].number: best for place in places}
    return choices
