"""Where a model's time goes: per stage of its program, and per Keras layer.

A native program runs its stages one after another in passes, each stage once, so that each finds the caches as it does
in a call. What the clock costs is measured in every pass, as the time of no stage, and taken off.
"""

import ctypes
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kcompile.errors import ArtifactError, InputError
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.types import Array
from kcompile.runtime.bundle import Bundle, check_machine, is_bundle, open_bundle
from kcompile.runtime.feeds import checked
from kcompile.runtime.load import load_bundle, native_program
from kcompile.runtime.memory import Entries, address, aligned, aligned_empty, loaded, pointers
from kcompile.runtime.native import NativeProgram
from kcompile.runtime.signature import Plan, Signature, as_dict, as_dim, as_list, as_text

_WARM_UP = 0.1
_FEWEST = 9
# Bytes after which addresses fall into the same sets of the first-level cache again.
_MOST_SHIFT = 4096
# Long enough for the clock, short enough to fall between two interruptions now and then.
_PEAK_ROUNDS, _PEAK_TRIALS = 20_000, 50
_ENTRIES: Entries = {
    "kc_arena_bytes": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_int64),
    "kc_profile": ([ctypes.c_void_p] * 5 + [ctypes.c_int32, ctypes.c_void_p], ctypes.c_int),
    "kc_peak": ([ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p], ctypes.c_int32),
}


@dataclass(frozen=True)
class StageTime:
    """One stage of a call: a kernel of native code, or a node of an ONNX graph.

    Attributes:
        name: the function or node.
        kind: the kernel's family, or the node's operator.
        layer: the path of the Keras layer that it comes from; empty for what belongs to none.
        seconds: of one call.
        macs: multiply-accumulates.
        bytes: of the arrays that it reads or writes, each counted once and whole.
    """

    name: str
    kind: str
    layer: str
    seconds: float
    macs: int
    bytes: int


@dataclass(frozen=True)
class LayerTime:
    """All stages of one Keras layer; numbers that are not known are None.

    Attributes:
        kinds: of its stages, each once.
        share: of the time of all stages.
        flops: floating-point operations per second, two for a multiply-accumulate.
        peak_share: `flops` as a share of the machine's peak.
        bandwidth: bytes per second.
    """

    layer: str
    kinds: tuple[str, ...]
    stages: int
    seconds: float
    share: float
    macs: int
    bytes: int
    flops: float | None
    peak_share: float | None
    bandwidth: float | None


@dataclass(frozen=True)
class Profile:
    """Where the time of a call on one thread goes.

    Attributes:
        name: the model's name.
        engine: what ran it.
        extents: the values of the model's symbols.
        passes: how many calls were measured; times are the mean of the middle half.
        seconds: of a whole call.
        peak: float32 operations per second of one core, as multiply-adds in registers reach them; None if not known.
        stages: in the order in which they run.
    """

    name: str
    engine: str
    extents: Mapping[str, int]
    passes: int
    seconds: float
    peak: float | None
    stages: tuple[StageTime, ...]

    @cached_property
    def layers(self) -> tuple[LayerTime, ...]:
        """The layers in the order of their first stages."""
        groups: dict[str, list[StageTime]] = {}
        for stage in self.stages:
            groups.setdefault(stage.layer, []).append(stage)
        return tuple(self._summed(layer, stages) for layer, stages in groups.items())

    @property
    def total(self) -> LayerTime:
        """All stages as one."""
        return self._summed("total", self.stages)

    def _summed(self, layer: str, stages: Sequence[StageTime]) -> LayerTime:
        seconds = sum(stage.seconds for stage in stages)
        macs, size = sum(stage.macs for stage in stages), sum(stage.bytes for stage in stages)
        everything = sum(stage.seconds for stage in self.stages)
        flops = 2 * macs / seconds if macs and seconds else None
        return LayerTime(
            layer,
            tuple(dict.fromkeys(stage.kind for stage in stages)),
            len(stages),
            seconds,
            seconds / everything if everything else 0.0,
            macs,
            size,
            flops,
            flops / self.peak if flops and self.peak else None,
            size / seconds if seconds else None,
        )


def profile(path: Path, feeds: Mapping[str, Array], seconds: float) -> Profile:
    """Measure an artifact on `feeds` for about so many seconds, on one thread.

    Raises:
        ArtifactError: it is no artifact whose stages can be told apart, or was made by a version that noted none.
        InputError: the feeds do not fit, or have no rows.
        MissingExtra: its engine is not installed.
    """
    if not is_bundle(path):
        return _of_onnx(path, feeds, seconds, path.name)
    bundle = open_bundle(path)
    if bundle.kind == "onnx":
        return _of_onnx(bytes(bundle.member("model")), feeds, seconds, path.name)
    if bundle.kind != "native":
        law = "a profile needs a native bundle of target tvm, or an ONNX file"
        raise ArtifactError(f"{law}. Received: {path.name}, of kind {bundle.kind}, which runs as one function.")
    check_machine(bundle)
    return _Native(bundle, feeds).measured(seconds)


def _of_onnx(model: Path | bytes, feeds: Mapping[str, Array], seconds: float, origin: str) -> Profile:
    from kcompile.runtime.profile_onnx import profile_onnx

    return profile_onnx(model, feeds, seconds, origin)


def typical(times: Iterable[float]) -> float:
    """The mean of the middle half: neither interruptions nor the steps of a coarse clock move it much."""
    ordered = np.sort(np.fromiter(times, np.float64))
    quarter = ordered.size // 4
    return float(ordered[quarter : ordered.size - quarter].mean())


class StageClock:
    """A native program with its memory on one thread, ready to be run and timed stage by stage.

    Programs to be compared work in the same memory, for where it lies in the caches' sets may change what stages take
    by half: what is `beside` another takes its feeds and, where that is large enough, its arena.

    Raises:
        InputError: the feeds do not fit, or have no rows.
    """

    def __init__(
        self,
        program: NativeProgram,
        stages: int,
        signature: Signature,
        feeds: Mapping[str, Array],
        origin: str,
        beside: "StageClock | None" = None,
    ) -> None:
        named = checked(signature.inputs, feeds)
        own = [np.array(named[name], order="C") for name in signature.inputs]
        self._inputs: list[Array] = beside._inputs if beside else own
        self.plan: Plan = signature.fit(self._inputs)
        if self.plan.is_empty:
            raise InputError(f"a profile needs at least one row. Received: {dict(self.plan.bindings)}.")
        fresh = [np.empty(shape, dtype) for shape, dtype in self.plan.results]
        self._outputs: list[Array] = beside._outputs if beside else fresh
        self.library = loaded(program.library, origin, _ENTRIES)
        self._weights = aligned(program.weights)
        self._symbols = (ctypes.c_int64 * len(program.symbols))(*(self.plan.bindings[name] for name in program.symbols))
        size = self.library.kc_arena_bytes(self._symbols, 1) + _MOST_SHIFT
        shared = beside is not None and beside._arena.nbytes >= size
        self._arena: Array = beside._arena if beside and shared else aligned_empty(size)
        self._stages = stages

    def repeat(self, seconds: float, fewest: int, shift: int = 0) -> Array:
        """The nanoseconds of each stage, of none, and of all, in a row per pass.

        The arena begins `shift` bytes later than else, a multiple of 64 below 4096.
        """
        rows: list[Array] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(rows) < fewest:
            row = np.empty(self._stages + 2, np.int64)
            self.library.kc_profile(
                pointers(self._inputs),
                pointers(self._outputs),
                address(self._weights),
                address(self._arena) + shift,
                self._symbols,
                self._stages,
                address(row),
            )
            rows.append(row)
        return np.array(rows)


class _Native:
    """A bundle's program under the clock."""

    def __init__(self, bundle: Bundle, feeds: Mapping[str, Array]) -> None:
        load_bundle(bundle, 1).run(feeds)
        signature = bundle.signature
        self._bundle = bundle = bundle.for_rows(len(next(iter(feeds.values()))) if signature.batch else 0)
        self._stages = _stages(bundle)
        self._clock = StageClock(native_program(bundle), len(self._stages), signature, feeds, bundle.path.name)
        self._plan = self._clock.plan

    def measured(self, seconds: float) -> Profile:
        self._clock.repeat(min(seconds, _WARM_UP), 1)
        times = self._clock.repeat(seconds, _FEWEST)
        *each, nothing, whole = (typical(column) * 1e-9 for column in times.T)
        stages = tuple(
            StageTime(name, kind, layer, max(spent - nothing, 0.0), self._count(macs), self._count(size))
            for (name, kind, layer, macs, size), spent in zip(self._stages, each, strict=True)
        )
        name, extents = self._bundle.signature.name, self._plan.bindings
        return Profile(name, "native", extents, len(times), whole, self._peak(), stages)

    def _count(self, dim: Dim) -> int:
        return int(dims.substitute(dim, self._plan.bindings))

    def _peak(self) -> float:
        """The most operations per second that were seen; a factor of 1/2 keeps the sums finite."""
        x = np.full(64, 0.5, np.float32)
        operations = ctypes.c_int64()
        best = float("inf")
        for _ in range(_PEAK_TRIALS):
            x[:2] = 0.5, 1.0
            begin = time.perf_counter()
            self._clock.library.kc_peak(address(x), _PEAK_ROUNDS, ctypes.byref(operations))
            best = min(best, time.perf_counter() - begin)
        return operations.value * _PEAK_ROUNDS / best


def _stages(bundle: Bundle) -> list[tuple[str, str, str, Dim, Dim]]:
    """Function, family, layer, multiply-accumulates and bytes of each stage, as the manifest has them."""
    program = as_dict(bundle.manifest.get("program"), "program")
    if "stages" not in program:
        law = "a profile needs a bundle that names its stages"
        raise ArtifactError(f"{law}. {bundle.path.name} was made by an earlier version of kcompile: compile it again.")
    records: list[dict[str, Any]] = [as_dict(r, "stages") for r in as_list(program["stages"], "program.stages")]
    found: list[tuple[str, str, str, Dim, Dim]] = []
    for record in records:
        function, family, layer = (as_text(record.get(key), f"stages.{key}") for key in ("function", "family", "layer"))
        macs, size = (as_dim(record.get(key), f"stages.{key}") for key in ("macs", "bytes"))
        found.append((function, family, layer, macs, size))
    known = dims.symbols(*(dim for type in bundle.signature.inputs.values() for dim in type.shape))
    unknown = dims.symbols(*(dim for *_, macs, size in found for dim in (macs, size))) - known
    if unknown:
        raise ArtifactError(f"{bundle.path.name} is damaged: no input has the extents {', '.join(sorted(unknown))}.")
    return found
