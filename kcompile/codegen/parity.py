"""Verification: an artifact's outputs against the NumPy reference of the unoptimised graph in f64.

Where they disagree, `first_wrong_layer` finds the first Keras layer whose value is off.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from kcompile.codegen.samples import draw_inputs
from kcompile.codegen.tolerances import (
    ABSOLUTE,
    BFLOAT16,
    INT8,
    LARGE,
    PROBABILITY_SUM,
    SATURATED,
    SATURATED_SHARE,
    WHOLE_MODEL,
    Tolerance,
)
from kcompile.errors import KCompileError, ModelError, VerificationError
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.ops import Constant, Full, QuantizeLinear, ToBfloat16
from kcompile.ir.passes.narrow import native_products
from kcompile.ir.types import Array, array_dtype
from kcompile.runtime.session import Session

# How many times inputs are moved, and by how much of themselves: a few units in the last place of float32.
_OTHER_ORDERS, _LAST_DIGITS = 3, 5e-7

# Compiles a graph in memory.
Compile: TypeAlias = Callable[[Graph], Session]


@dataclass(frozen=True)
class Difference:
    """The worst differences of one output: absolute, relative to the largest output, and in units of the last place."""

    output: str
    absolute: float
    relative: float
    ulp: float
    allowed: float
    agrees: bool

    def __str__(self) -> str:
        return f"output `{self.output}` is off by {self.absolute:.3g}, where {self.allowed:.3g} is allowed"


@dataclass(frozen=True)
class Samples:
    """Inputs and what the reference makes of them, by name."""

    inputs: Mapping[str, Array] = field(repr=False)
    outputs: Mapping[str, Array] = field(repr=False)


@dataclass(frozen=True)
class Report:
    """What a verification saw."""

    differences: tuple[Difference, ...]
    samples: Samples

    @property
    def agrees(self) -> bool:
        """Whether every output is within its limit."""
        return all(difference.agrees for difference in self.differences)

    def to_json(self) -> dict[str, Any]:
        """The differences as JSON values."""
        return {"agrees": self.agrees, "outputs": [asdict(difference) for difference in self.differences]}


def check_graph(graph: Graph, *sessions: Session, seed: int = 0, extra: Mapping[str, float] | None = None) -> Report:
    """What each of `sessions` computes, against the reference of the unoptimised `graph`, on drawn inputs.

    Args:
        extra: by how much more than else outputs may be off, by name.

    Raises:
        ModelError: the reference has no finite number, because weights have none; they are named.
        VerificationError: it has none for another reason, so that nothing can be compared.
    """
    inputs = draw_inputs(graph, seed)
    exact = evaluate(graph, inputs, precision="float64")
    if not any(_is_finite(y).any() for y in exact.values() if y.size):
        raise _nothing_to_compare(graph)
    types = graph.output_types
    samples = Samples(inputs, {name: y.astype(array_dtype(types[name].dtype)) for name, y in exact.items()})
    noise, tolerance = _Noise(lambda: _rounded_otherwise(graph, inputs), exact), tolerance_of(graph)
    more = extra or {}

    def judged(name: str, y: Array, reference: Array) -> Difference:
        found = _compare_with(noise, tolerance, name, y, reference)
        return _judged(name, y, reference, found.allowed + more[name]) if name in more else found

    return Report(_Judge(exact, judged).worst_of(sessions, inputs), samples)


def tolerance_of(graph: Graph) -> Tolerance:
    """How near to the reference what computes `graph` must be, by the bits in which the graph has its numbers."""
    if any(isinstance(node.op, QuantizeLinear) for node in graph.nodes):
        return INT8
    return BFLOAT16 if any(isinstance(node.op, ToBfloat16) for node in graph.nodes) else WHOLE_MODEL


def _nothing_to_compare(graph: Graph) -> ModelError | VerificationError:
    """Why no output of `graph` is a number."""
    constants = [node.op for node in graph.nodes if isinstance(node.op, Constant)]
    broken = [f"`{constant.name}`" for constant in constants if not _is_finite(constant.value.array).all()]
    if not broken:
        law = f"no output of {graph.name} is a finite number on drawn inputs"
        return VerificationError(f"{law}, so the artifact cannot be verified.")
    names = f"{', '.join(broken[:8])}{' and others' * (len(broken) > 8)}"
    law = f"the weights of {graph.name} must be finite numbers, or no output is one"
    return ModelError(f"{law}. Received: NaN or infinity in {names}. Train the model again.")


def check_samples(session: Session, samples: Samples, allowed: Mapping[str, float]) -> Report:
    """What `session` computes, against recorded outputs, each within its recorded limit."""
    judge = _Judge(samples.outputs, lambda name, y, reference: _judged(name, y, reference, allowed[name]))
    return Report(judge.worst_of((session,), samples.inputs), samples)


def require_agreement(report: Report, graph: Graph, compile: Compile, what: str) -> None:
    """Make sure that `report` agrees.

    Raises:
        VerificationError: it does not; the text names the first Keras layer whose value is off, if compiling the
            graph up to there shows one.
    """
    if report.agrees:
        return
    lines = [f"{what} disagrees with the reference:"]
    lines += [f"  {difference}" for difference in report.differences if not difference.agrees]
    lines.append(first_wrong_layer(graph, compile, report.samples.inputs))
    raise VerificationError("\n".join(lines))


def first_wrong_layer(graph: Graph, compile: Compile, inputs: Mapping[str, Array]) -> str:
    """A sentence that names the first Keras layer whose value is off when `graph` is compiled."""
    layers = layer_results(graph)
    values = [value for _, value in layers]
    exact = evaluate(graph, inputs, precision="float64", keep=values)
    rounded = evaluate(graph, inputs, keep=values)
    references = [(exact[f"%{i}"], rounded[f"%{i}"]) for i in range(len(values))]
    tolerance = tolerance_of(graph)

    def wrong(positions: Sequence[int]) -> int | None:
        """The first of `positions` whose value is off in a graph that gives them all."""
        names = tuple(f"layer_{i}" for i in positions)
        part = replace(graph, outputs=tuple(values[i] for i in positions), output_names=names)
        results = compile(part).run(inputs)
        for i, name in zip(positions, names, strict=True):
            reference, in_f32 = references[i]
            if not compare(name, results[name], reference, worst(in_f32, reference), tolerance).agrees:
                return i
        return None

    try:
        found = wrong(range(len(layers)))
        if found is None:  # the fault needs the fusions that such a graph has not
            found = _bisect(len(layers), lambda i: wrong([i]) is not None)
    except KCompileError as error:
        return f"The first layer that is off cannot be found: {error}"
    if found is None:
        return "Every layer's value agrees when it is compiled anew, so the fault is not in one layer's code."
    source, value = layers[found]
    kind = value.op.op_name if value.op else "input"
    return f"The first layer whose value is off is `{source}` ({kind})."


def layer_results(graph: Graph) -> list[tuple[str, Value]]:
    """The last value of every layer that `graph` comes from, in order."""
    last: dict[str, tuple[int, Node]] = {}
    for position, node in enumerate(graph.nodes):
        if node.source and not isinstance(node.op, Constant | Full):
            last[node.source] = (position, node)
    return [(node.source, node.outputs[0]) for _, node in sorted(last.values(), key=lambda item: item[0])]


def compare(
    output: str, y: Array, reference: Array, noise: float = 0.0, tolerance: Tolerance = WHOLE_MODEL
) -> Difference:
    """`y` against `reference`, of which f32 arithmetic alone is `noise` off."""
    largest = _largest(reference)
    if reference.dtype.kind != "f":
        return _judged(output, y, reference, tolerance.noise * noise)
    extra = ABSOLUTE if largest >= LARGE else min(SATURATED, SATURATED_SHARE * largest)
    return _judged(output, y, reference, tolerance.allowed(largest, noise) + extra)


def _judged(output: str, y: Array, reference: Array, allowed: float) -> Difference:
    if y.shape != reference.shape:
        raise VerificationError(f"output `{output}` must have shape {reference.shape}. Received: {y.shape}.")
    absolute, largest = worst(y, reference), _largest(reference)
    agrees = absolute <= allowed and _same_choice(y, reference, 2 * allowed)
    relative = absolute / largest if largest else absolute
    return Difference(output, absolute, relative, _ulp(y, reference), allowed, agrees)


def _largest(reference: Array) -> float:
    if reference.dtype.kind == "U":
        return 1.0
    finite = np.abs(reference[np.isfinite(reference)]).astype(np.float64)
    return float(finite.max()) if finite.size else 0.0


def _is_finite(y: Array) -> Array:
    return np.ones(y.shape, np.bool_) if y.dtype.kind == "U" else np.isfinite(y)


def worst(y: Array, reference: Array) -> float:
    """The largest absolute difference; infinite where only one is finite or they are different infinities or NaN.

    That of texts is 1 where any differ.
    """
    if not y.size:
        return 0.0
    if reference.dtype.kind == "U":
        return float((y != reference).any())
    a, b = y.astype(np.float64), reference.astype(np.float64)
    with np.errstate(all="ignore"):
        distance = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.where(np.isnan(distance), np.inf, distance).max())


class _Noise:
    """How far f32 arithmetic alone is off, measured when it is first asked for."""

    def __init__(self, rounded: Callable[[], list[dict[str, Array]]], exact: Mapping[str, Array]) -> None:
        self._evaluate = rounded
        self._exact = exact
        self._rounded: list[dict[str, Array]] = []

    def __getitem__(self, name: str) -> float:
        self._rounded = self._rounded or self._evaluate()
        return max(worst(rounded[name], self._exact[name]) for rounded in self._rounded)


def _rounded_otherwise(graph: Graph, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """What `graph` is in f32 and, if it is in few bits, where a last digit decides between two steps, in other orders.

    These are the graph in the form that native code computes, and on inputs that are off in their last digits.
    """
    found = [evaluate(graph, inputs)]
    if tolerance_of(graph) is WHOLE_MODEL:
        return found
    rng = np.random.default_rng(0)
    for _ in range(_OTHER_ORDERS):
        moved = {name: _moved(rng, array) if array.dtype.kind == "f" else array for name, array in inputs.items()}
        found.append(evaluate(graph, moved))
    return [*found, evaluate(native_products(graph), inputs)]


def _moved(rng: np.random.Generator, array: Array) -> Array:
    return (array * (1 + _LAST_DIGITS * rng.standard_normal(array.shape))).astype(array.dtype)


def _compare_with(noise: _Noise, tolerance: Tolerance, name: str, y: Array, reference: Array) -> Difference:
    """The comparison; what f32 alone is off by is asked for only where it matters."""
    difference = compare(name, y, reference, tolerance=tolerance)
    return difference if difference.agrees else compare(name, y, reference, noise[name], tolerance)


@dataclass(frozen=True)
class _Judge:
    """Holds what sessions compute against reference outputs."""

    outputs: Mapping[str, Array]
    compare: Callable[[str, Array, Array], Difference]

    def worst_of(self, sessions: Sequence[Session], inputs: Mapping[str, Array]) -> tuple[Difference, ...]:
        """The worst difference of each output, over all sessions."""
        found = [difference for session in sessions for difference in self._differences(session, inputs)]
        return tuple(max((d for d in found if d.output == name), key=_badness) for name in self.outputs)

    def _differences(self, session: Session, inputs: Mapping[str, Array]) -> Iterator[Difference]:
        """Those of all rows at once and, where rows can be split, of the first row alone."""
        for name, y in session.run(inputs).items():
            yield self.compare(name, y, self.outputs[name])
        batch = session.signature.batch
        if batch is not None and session.signature.minimums.get(batch, 0) <= 1:
            for name, y in session.run({name: x[:1] for name, x in inputs.items()}).items():
                yield self.compare(name, y, self.outputs[name][: len(y)])


def _badness(difference: Difference) -> tuple[bool, float]:
    return not difference.agrees, difference.absolute / (difference.allowed or 1.0)


def _same_choice(y: Array, reference: Array, tie: float) -> bool:
    """Whether rows of probabilities have their largest element in the same place, or in one that is as good."""
    if reference.ndim != 2 or reference.shape[1] < 2 or reference.dtype.kind != "f" or not reference.size:
        return True
    if (reference < 0).any() or (np.abs(reference.sum(axis=1) - 1) > PROBABILITY_SUM).any():
        return True
    chosen = np.take_along_axis(reference, y.argmax(axis=1)[:, None], axis=1)[:, 0]
    return bool((reference.max(axis=1) - chosen <= tie).all())


def _ulp(y: Array, reference: Array) -> float:
    """The largest difference in units of the last place of `y`'s dtype at the reference's size."""
    if y.dtype.kind != "f" or not y.size:
        return worst(y, reference)
    with np.errstate(all="ignore"):
        spacing = np.spacing(np.abs(reference).astype(y.dtype)).astype(np.float64)
        distance = np.abs(y.astype(np.float64) - reference) / spacing
    return float(np.nan_to_num(distance, nan=0.0, posinf=np.inf).max())


def _bisect(count: int, is_wrong: Callable[[int], bool]) -> int | None:
    """The first position that is wrong, where wrong ones stay wrong; None where the last is right."""
    if not count or not is_wrong(count - 1):
        return None
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_wrong(middle) else (middle + 1, high)
    return low
