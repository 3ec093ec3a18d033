"""Calibration: which part of the real line the 8 bits of each tensor are to span, from what data makes of it.

A histogram per tensor is filled batch by batch, so that memory does not grow with the data; a method then chooses the
range that serves it best. Wide ranges cut off nothing and have coarse steps, narrow ones the reverse.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np

from kcompile.errors import InputError
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph, Value
from kcompile.ir.types import Array

Method: TypeAlias = Literal["entropy", "mse", "percentile", "minmax"]
METHODS: tuple[str, ...] = get_args(Method)

# Steps of 8 bits between the ends of a range.
LEVELS = 255
_BINS = 2048
# Shares of the whole range that entropy and MSE try.
_SHARES = np.linspace(0.2, 1.0, 65)
# Elements in a million that "percentile" may cut off at each end: 99.99 %, as in Wu et al. 2020, arXiv:2004.09602.
_CUT = 1e-4
# Bytes of observed values that may be held at once.
_HELD = 1 << 28


@dataclass(frozen=True)
class Range:
    """From `low`, at most 0, to `high`, at least 0."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """The step of 8 bits; that of a range without extent is anything above 0."""
        width = np.float32((self.high - self.low) / LEVELS)
        return width if width > 0 else np.float32(1 / LEVELS)

    @property
    def zero_point(self) -> np.uint8:
        """The uint8 that stands for 0."""
        return np.uint8(np.clip(np.rint(-self.low / float(self.scale)), 0, LEVELS))


class Observed:
    """What is known of a tensor: a histogram whose bins widen as numbers demand, and the mean along the last axis."""

    def __init__(self, channel_axis: int = -1) -> None:
        self._axis = channel_axis
        self._width = 0.0
        self._first = 0
        self.counts = np.zeros(0, np.int64)
        self._sum: Array = np.zeros(0)
        self._rows = 0
        self._low = self._high = 0.0

    def add(self, x: Array) -> None:
        """Take in more elements.

        Raises:
            InputError: one is no finite number.
        """
        if not x.size:
            return
        if not np.isfinite(x).all():
            law = "calibration data must give finite numbers throughout the model"
            raise InputError(f"{law}. Received: NaN or infinity.")
        channels = np.moveaxis(x, self._axis, -1)
        total = channels.reshape(-1, channels.shape[-1]).sum(axis=0, dtype=np.float64)
        self._sum = self._sum + total if self._rows else total
        self._rows += x.size // channels.shape[-1]
        self._low, self._high = min(self._low, float(x.min())), max(self._high, float(x.max()))
        self._widen()
        indices = np.floor(x.reshape(-1) / self._width).astype(np.int64) - self._first
        self.counts += np.bincount(indices, minlength=self.counts.size)

    def _widen(self) -> None:
        """Make bins of a width that is a power of two, no more than `_BINS`, which hold all numbers so far and 0."""
        low, high = self._low, self._high
        width = self._width or 2.0 ** np.ceil(np.log2(max(high - low, 1e-30) / _BINS))
        while high / width - low / width > _BINS - 2:
            width *= 2
        first, last = int(np.floor(low / width)), int(np.floor(high / width))
        counts = np.zeros(last - first + 1, np.int64)
        if self.counts.size:
            ratio = width / self._width
            old = np.floor((self._first + np.arange(self.counts.size)) / ratio).astype(np.int64)
            np.add.at(counts, old - first, self.counts)
        self.counts, self._first, self._width = counts, first, width

    @property
    def edges(self) -> Array:
        """The bins' ends, one more than there are bins."""
        return (self._first + np.arange(self.counts.size + 1)) * self._width

    @property
    def mean(self) -> Array:
        """The mean of each channel: ``f64[C]``."""
        return self._sum / max(self._rows, 1)

    def whole(self) -> Range:
        """The range that cuts off nothing."""
        return Range(self._low, self._high)


class Run(Protocol):
    """Computes a graph's outputs by name and, under ``%0``, ``%1`` and so on, the values to `keep`."""

    def __call__(self, graph: Graph, inputs: Mapping[str, Array], /, *, keep: Sequence[Value] = ()) -> dict[str, Array]:
        """The arrays for inputs by name."""
        ...


def observe(
    graph: Graph, data: Mapping[str, Array], values: Mapping[Value, int], run: Run = evaluate
) -> dict[Value, Observed]:
    """What `data` makes of `values`, whose channel axes are given, when `graph` is computed on it by `run`.

    Raises:
        InputError: the data do not fit the graph's inputs, leave a value empty, or give numbers that are not finite.
    """
    observed = {value: Observed(axis) for value, axis in values.items()}
    for rows in batches(graph, data, bytes_per_row(list(values))):
        arrays = run(graph, rows, keep=list(values))
        for i, (value, record) in enumerate(observed.items()):
            _add(value, record, arrays[f"%{i}"])
    for value, record in observed.items():
        if not record.counts.size:
            law = "calibration data must be large enough for every layer"
            raise InputError(f"{law}. Received: shapes of which nothing is left at {_place(value)}.")
    return observed


def _add(value: Value, record: Observed, array: Array) -> None:
    """`Observed.add`, whose error also says where."""
    try:
        record.add(array)
    except InputError as error:
        raise InputError(f"{error} At: {_place(value)}.") from None


def _place(value: Value) -> str:
    source = value.producer.source if value.producer else f"input `{value.name}`"
    return source or "the graph itself"


def bytes_per_row(values: Sequence[Value]) -> int:
    """Bytes that `values` take for one row; an open extent counts for 64."""
    sizes = [[dim if isinstance(dim, int) else 64 for dim in value.type.shape[1:]] for value in values]
    return sum(int(np.prod(size)) * value.type.itemsize for size, value in zip(sizes, values, strict=True))


def batches(graph: Graph, data: Mapping[str, Array], row_bytes: int) -> Iterator[dict[str, Array]]:
    """The rows of `data`, as many at a time as the graph's batch says or memory allows."""
    count = len(next(iter(data.values())))
    first = next(iter(graph.input_types.values())).shape[:1]
    step = first[0] if first and isinstance(first[0], int) else max(1, min(32, _HELD // max(row_bytes, 1)))
    for start in range(0, count, step):
        yield {name: array[start : start + step] for name, array in data.items()}


def choose_range(observed: Observed, method: Method) -> Range:
    """The range for a tensor.

    "minmax" spans everything; "percentile" leaves out the outermost elements; "mse" makes the mean squared error of
    rounding and cutting off least; "entropy" makes the Kullback-Leibler divergence of the rounded distribution least
    (Migacz 2017, "8-bit inference with TensorRT", GTC).
    """
    whole = observed.whole()
    if method == "minmax" or not observed.counts.sum():
        return whole
    if method == "percentile":
        return _percentile(observed, whole)
    loss = _squared_error if method == "mse" else _divergence
    candidates = [Range(whole.low * share, whole.high * share) for share in _SHARES]
    return min(reversed(candidates), key=lambda candidate: loss(observed, candidate))


def _percentile(observed: Observed, whole: Range) -> Range:
    total = np.cumsum(observed.counts) / observed.counts.sum()
    edges = observed.edges
    low = float(edges[np.searchsorted(total, _CUT, side="right")])
    high = float(edges[min(np.searchsorted(total, 1 - _CUT) + 1, edges.size - 1)])
    return Range(max(whole.low, min(low, 0.0)), min(whole.high, max(high, 0.0)))


def _centres(observed: Observed) -> Array:
    edges = observed.edges
    return (edges[:-1] + edges[1:]) / 2


def _squared_error(observed: Observed, candidate: Range) -> float:
    """The mean squared error; within a step, elements are spread evenly: step² / 12."""
    centres, scale = _centres(observed), float(candidate.scale)
    outside = np.maximum(centres - candidate.high, 0) + np.maximum(candidate.low - centres, 0)
    error = np.where(outside > 0, outside**2, scale**2 / 12)
    return float((observed.counts * error).sum() / observed.counts.sum())


def _divergence(observed: Observed, candidate: Range) -> float:
    """KL(P || Q): P with what is cut off in its last bins, Q with every step's elements spread over its bins."""
    centres, counts = _centres(observed), observed.counts.astype(np.float64)
    # Zeros are exact whatever the steps: they say nothing about a range.
    counts[np.argmin(np.abs(centres))] = 0
    inside = (centres >= candidate.low) & (centres <= candidate.high)
    if not counts[inside].any():
        return float("inf")
    clipped = counts[inside].copy()
    clipped[0] += counts[centres < candidate.low].sum()
    clipped[-1] += counts[centres > candidate.high].sum()
    steps = np.rint((centres[inside] - candidate.low) / float(candidate.scale)).astype(np.int64)
    filled = counts[inside] > 0
    mass = np.bincount(steps, counts[inside], minlength=LEVELS + 1)
    share = np.bincount(steps, filled, minlength=LEVELS + 1)
    spread = np.where(filled, mass[steps] / np.maximum(share[steps], 1), 0.0)
    p, q = clipped / clipped.sum(), spread / spread.sum()
    known = p > 0
    return float((p[known] * np.log(p[known] / np.maximum(q[known], 1e-12))).sum())
