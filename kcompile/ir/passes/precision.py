"""Which layers are computed in few bits, and what that costs: calibration, measurement, and the layers kept in float32.

narrowed = to_int8(graph, read_calibration(graph, "data.npz"), Settings(max_drop=0.01))
narrowed.graph, narrowed.report
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np

from kcompile.errors import InputError
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph
from kcompile.ir.op import Op
from kcompile.ir.passes.calibration import Method, Run, batches, bytes_per_row, choose_range, observe
from kcompile.ir.passes.calibration_data import Calibration
from kcompile.ir.passes.quantize import (
    Ranges,
    Site,
    kept_spans,
    narrow_values,
    narrowed_kernel,
    overflows,
    quantize,
    sites,
    to_bfloat16,
)
from kcompile.ir.types import Array

# Rows that the errors of single layers are measured on.
_ERROR_ROWS = 4
# Rows of probabilities sum to 1 within this.
_SUM = 1e-3


@dataclass(frozen=True)
class Settings:
    """How a model is quantised.

    Attributes:
        method: how calibration chooses ranges.
        activations: one scale for a whole tensor, or one per row at run time; "auto" takes that for sequences alone.
        correct_bias: whether the bias makes up for what rounding the weights does to the mean.
        max_drop: how much accuracy may be lost before layers stay in float32; None sets no limit.
    """

    method: Method = "mse"
    activations: Literal["auto", "tensor", "token"] = "auto"
    correct_bias: bool = True
    max_drop: float | None = None


@dataclass(frozen=True)
class LayerReport:
    """One layer: its precision, the relative error that few bits alone make of its result, and why it is as it is.

    `error` is ``|y' - y| / |y|`` by the Euclidean norm; None where nothing was measured.
    """

    layer: str
    op: str
    precision: str
    activations: str = ""
    error: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class PrecisionReport:
    """What few bits cost.

    Attributes:
        precision: what was asked for.
        layers: one entry per layer that few bits could serve.
        method: of calibration; empty without.
        samples: rows of calibration data.
        measure: what `before`, `after` and `drop` are: "accuracy", "agreement" or "relative error".
        drop: how much worse than float32 the model is by that measure; None where there was nothing to measure on.
        notes: what is to be known beside.
    """

    precision: str
    layers: tuple[LayerReport, ...] = ()
    method: str = ""
    samples: int = 0
    measure: str = ""
    before: float | None = None
    after: float | None = None
    drop: float | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The report of JSON values, among which others may be."""
        known: dict[str, Any] = {key.name: values[key.name] for key in fields(cls) if key.name in values}
        known["layers"] = tuple(LayerReport(**layer) for layer in values.get("layers", ()))
        known["notes"] = tuple(values.get("notes", ()))
        return cls(**known)


@dataclass(frozen=True)
class Narrowed:
    """A graph in few bits, and the report on it."""

    graph: Graph
    report: PrecisionReport


@dataclass(frozen=True)
class _Score:
    """A measure of outputs against labels or the outputs in float32."""

    measure: str
    before: float
    of: Callable[[Mapping[str, Array]], float] = field(repr=False)

    def drop(self, after: float) -> float:
        """How much worse than before."""
        return max(after - self.before if self.measure == "relative error" else self.before - after, 0.0)


def to_int8(graph: Graph, calibration: Calibration | None, settings: Settings, run: Run = evaluate) -> Narrowed:
    """`graph`, optimized, with its convolutions and dense layers in 8 bits.

    Without calibration data, dense layers alone are quantised, by scales that are found at run time. `run` computes
    graphs on the data.

    Raises:
        InputError: no layer can be quantised.
    """
    found = sites(graph, settings.activations, calibration is not None)
    kept = {site.name: reason for site in found if (reason := _obstacle(site))}
    served = [site for site in found if site.name not in kept]
    if not served:
        raise _nothing(graph, calibration is not None)
    ranges = _ranges(graph, calibration, served, settings, run)
    errors = _layer_errors(graph, calibration, served, ranges) if calibration else {}
    report = PrecisionReport("int8", method=settings.method if calibration else "", notes=_notes(graph, found))
    search = _Search(graph, served, ranges, settings, errors, run)
    if calibration is None:
        return Narrowed(search.without(0), replace(report, layers=_rows(found, set(), kept, errors, "int8")))
    score = _score(graph, calibration, run)
    count, after = search.fewest_kept(calibration, score)
    for site in search.worst_first[:count]:
        kept[site.name] = f"without it, the drop exceeds {settings.max_drop:g}"
    layers = _rows(found, set(search.worst_first[:count]), kept, errors, "int8")
    report = replace(
        report, layers=layers, samples=calibration.rows, measure=score.measure, before=score.before, after=after,
        drop=score.drop(after),
    )  # fmt: skip
    return Narrowed(search.without(count), report)


def to_bf16(graph: Graph, calibration: Calibration | None, run: Run = evaluate) -> Narrowed:
    """`graph`, optimized, with what its convolutions and dense layers multiply rounded to bfloat16.

    `run` computes graphs on the calibration data, if there are any.

    Raises:
        InputError: no layer can be rounded.
    """
    found = sites(graph, "tensor", calibrated=True)
    if not found:
        raise _nothing(graph, calibrated=True)
    narrow = to_bfloat16(graph, found)
    layers = tuple(LayerReport(site.name, site.node.op.op_name, "bf16") for site in found)
    report = PrecisionReport("bf16", layers, notes=_notes(graph, found))
    if calibration:
        score = _score(graph, calibration, run)
        after = score.of(_outputs(narrow, calibration, run))
        report = replace(
            report, samples=calibration.rows, measure=score.measure, before=score.before, after=after,
            drop=score.drop(after),
        )  # fmt: skip
    return Narrowed(narrow, report)


def _obstacle(site: Site) -> str:
    """Why a layer cannot be in 8 bits; empty where nothing keeps it."""
    if not all(np.isfinite(weights).all() for weights in (site.kernel, site.bias) if weights is not None):
        return "its weights are not all finite numbers"
    return "sums of its products could leave int32" if overflows(site.kernel) else ""


def _nothing(graph: Graph, calibrated: bool) -> InputError:
    """Why no layer can be in few bits."""
    convolutions = any(isinstance(node.op, ops.Conv) for node in graph.nodes)
    if convolutions and not calibrated:
        law = f"the convolutions of {graph.name} need calibration data for int8"
        return InputError(f"{law}. Received: none. Give rows of real inputs with --calibration data.npz.")
    layers = [node for node in graph.nodes if isinstance(node.op, ops.Conv | ops.Dense)]
    dtypes = sorted({node.outputs[0].type.dtype for node in layers})
    received = f"{len(layers)} such layers, in {', '.join(dtypes)}" if layers else "a model without such layers"
    law = f"{graph.name} has no convolution and no dense layer in float32 that fewer bits could serve"
    return InputError(f"{law}. Received: {received}. Compile it without `precision`.")


def _notes(graph: Graph, found: Sequence[Site]) -> tuple[str, ...]:
    """What stays in float32 because 8 bits do not serve it."""
    served = {site.node for site in found}
    heavy = ops.Conv | ops.ConvTranspose | ops.Dense | ops.MatMul | ops.Attention | ops.Lstm | ops.Gru | ops.SimpleRnn
    rest = [node for node in graph.nodes if isinstance(node.op, heavy) and node not in served]
    counts = {name: sum(node.op.op_name == name for node in rest) for name in sorted({n.op.op_name for n in rest})}
    return tuple(f"{count} {name} in float32" for name, count in counts.items())


def _ranges(
    graph: Graph, calibration: Calibration | None, served: Sequence[Site], settings: Settings, run: Run
) -> Ranges:
    if calibration is None:
        return Ranges({})
    axes = dict.fromkeys(narrow_values(graph, served), -1)
    for site in served:
        if isinstance(site.node.op, ops.Conv) and site.node.op.data_format == "channels_first" and site.x in axes:
            axes[site.x] = 1
    observed = observe(graph, calibration.inputs, axes, run)
    spans = {value: choose_range(record, settings.method) for value, record in observed.items()}
    return Ranges(kept_spans(spans), observed)


def _layer_errors(graph: Graph, calibration: Calibration, served: Sequence[Site], ranges: Ranges) -> dict[str, float]:
    """The relative error of each layer's result if the layer alone is in 8 bits."""
    values = list(dict.fromkeys(site.x for site in served))
    rows = {name: array[:_ERROR_ROWS] for name, array in calibration.inputs.items()}
    first = next(batches(graph, rows, bytes_per_row(values)))
    arrays = evaluate(graph, first, keep=values)
    inputs = {value: arrays[f"%{i}"] for i, value in enumerate(values)}
    return {site.name: _layer_error(site, inputs[site.x], ranges) for site in served}


def _layer_error(site: Site, x: Array, ranges: Ranges) -> float:
    span = ranges.spans.get(site.x)
    if site.scheme == "token" or span is None:
        scale = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / np.float32(127), np.float32(1e-18))
        zero = np.uint8(128)
    else:
        scale, zero = np.asarray(span.scale), span.zero_point
    parameters = np.asarray(scale, np.float32), np.asarray(zero)
    narrow = _widened(ops.QuantizeLinear().kernel((x, *parameters))[0], *parameters)
    kernel, scales = narrowed_kernel(site.kernel, site.bias, None)
    bias = () if site.bias is None else (site.bias,)
    (expected,) = site.node.op.kernel((x, site.kernel, *bias))
    (found,) = site.node.op.kernel((narrow, _widened(kernel, scales, np.zeros((), np.int8)), *bias))
    return _relative(found, expected)


def _widened(x: Array, scale: Array, zero: Array) -> Array:
    op: Op = ops.DequantizeLinear()
    return op.kernel((x, scale, zero))[0]


def _relative(found: Array, expected: Array) -> float:
    """``|found - expected| / |expected|``."""
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / (norm or 1.0)


def _relative_of_rows(found: Array, expected: Array) -> float:
    """`_relative` of all rows, or its mean over rows where that is larger: few large ones do not hide what others lose.

    What a row smaller than a typical one loses is taken relative to that: to the median or, for shares from 0 to 1, of
    which most may be next to nothing, to the root of the mean square. Rows that are not finite do not count.
    """
    rows = expected.reshape(len(expected), -1).astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.any():
        return 0.0
    rows, narrow = rows[finite], found.reshape(rows.shape)[finite]
    sizes = np.linalg.norm(rows, axis=1)
    shares = bool((rows >= 0).all() and (rows <= 1).all())
    root = float(np.sqrt(np.square(sizes).mean()))
    typical = root if shares else float(np.median(sizes)) or root
    each = np.linalg.norm(narrow - rows, axis=1) / np.maximum(sizes, typical or 1.0)
    return max(float(each.mean()), _relative(narrow, rows))


def _rows(
    found: Sequence[Site], kept: set[Site], reasons: Mapping[str, str], errors: Mapping[str, float], precision: str
) -> tuple[LayerReport, ...]:
    def row(site: Site) -> LayerReport:
        wide = site in kept or site.name in reasons
        chosen, scheme = ("float32", "") if wide else (precision, site.scheme)
        op = site.node.op.op_name
        return LayerReport(site.name, op, chosen, scheme, errors.get(site.name), reasons.get(site.name, ""))

    return tuple(map(row, found))


@dataclass(frozen=True)
class _Search:
    """Looks for the fewest layers to keep in float32: those with the largest errors of their own go first."""

    graph: Graph
    served: Sequence[Site]
    ranges: Ranges
    settings: Settings
    errors: Mapping[str, float]
    run: Run

    @property
    def worst_first(self) -> list[Site]:
        """The layers by their errors."""
        return sorted(self.served, key=lambda site: -self.errors.get(site.name, 0.0))

    def without(self, count: int) -> Graph:
        """The graph with the `count` worst layers in float32."""
        kept = set(self.worst_first[:count])
        chosen = [site for site in self.served if site not in kept]
        return quantize(self.graph, chosen, self.ranges, self.settings.correct_bias)

    def fewest_kept(self, calibration: Calibration, score: _Score) -> tuple[int, float]:
        """How many layers to keep, and the score with these kept, by bisection."""
        scores: dict[int, float] = {}

        def drop(count: int) -> float:
            scores[count] = score.of(_outputs(self.without(count), calibration, self.run))
            return score.drop(scores[count])

        limit = self.settings.max_drop
        if limit is None or drop(0) <= limit:
            return 0, scores[0] if scores else score.of(_outputs(self.without(0), calibration, self.run))
        low, high = 0, len(self.served)  # `low` loses too much; with all in float32 nothing is lost
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if drop(middle) <= limit else (middle, high)
        return high, scores.get(high, score.before)


def _outputs(graph: Graph, calibration: Calibration, run: Run) -> dict[str, Array]:
    """The outputs for all rows; those without an axis of rows are laid flat."""
    widest = max((bytes_per_row([value]) for node in graph.nodes for value in node.outputs), default=0)
    parts = [run(graph, rows) for rows in batches(graph, calibration.inputs, 8 * widest)]
    counts = [len(next(iter(rows.values()))) for rows in batches(graph, calibration.inputs, 8 * widest)]
    joined: dict[str, Array] = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        by_row = all(array.shape[:1] == (count,) for array, count in zip(arrays, counts, strict=True))
        joined[name] = np.concatenate(arrays if by_row else [array.reshape(-1) for array in arrays])
    return joined


def _score(graph: Graph, calibration: Calibration, run: Run) -> _Score:
    """Accuracy by the labels; without them, how often the largest probability is the same, or the relative error."""
    exact = _outputs(graph, calibration, run)
    first = next(iter(exact))
    if calibration.labels is not None:
        labels = calibration.labels

        def accuracy(outputs: Mapping[str, Array]) -> float:
            return float((_classes(outputs[first]) == labels).mean())

        return _Score("accuracy", accuracy(exact), accuracy)
    names = [name for name, y in exact.items() if y.dtype.kind == "f"]
    if names and all(_are_probabilities(exact[name]) for name in names):

        def agreement(outputs: Mapping[str, Array]) -> float:
            return min(float((_classes(outputs[name]) == _classes(exact[name])).mean()) for name in names)

        return _Score("agreement", 1.0, agreement)

    def error(outputs: Mapping[str, Array]) -> float:
        return max((_relative_of_rows(outputs[name], exact[name]) for name in names), default=0.0)

    return _Score("relative error", 0.0, error)


def _classes(y: Array) -> Array:
    """The class that each row of scores chooses; of one score per row, whether it is above a half."""
    rows = y.reshape(len(y), -1)
    return (rows[:, 0] > 0.5).astype(np.int64) if rows.shape[1] == 1 else rows.argmax(axis=1)


def _are_probabilities(y: Array) -> bool:
    if y.ndim != 2 or y.shape[1] < 2:
        return False
    return bool((y >= 0).all() and (np.abs(y.sum(axis=1) - 1) < _SUM).all())
