"""Lower precision on request: from the arguments of `compile` to a graph in few bits and the report on it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kcompile.codegen.backends import Backend, work
from kcompile.codegen.parity import worst
from kcompile.codegen.samples import draw_inputs
from kcompile.codegen.shapes import fix_shapes
from kcompile.errors import TargetError
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph, Value
from kcompile.ir.passes.calibration import METHODS, Run
from kcompile.ir.passes.calibration_data import Calibration, Source, read_calibration
from kcompile.ir.passes.pipeline import inference
from kcompile.ir.passes.precision import Narrowed, PrecisionReport, Settings, to_bf16, to_int8
from kcompile.ir.types import Array
from kcompile.runtime.session import Session

PRECISIONS = ("float32", "bf16", "int8")
ACTIVATIONS = ("auto", "tensor", "token")

# The note of an artifact that holds the report, as JSON.
PRECISION_KEY = "kcompile.precision"

_OTHER_INPUTS = 3.0
# Operations that the reference computes in some ten seconds.
_MUCH_WORK = 30_000_000_000


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        precision: one of `PRECISIONS`.
        calibration: an ``.npz`` file, or arrays by name.
        labels: the name of the labels in it.
        options: those of `Settings`, by the names of `compile`'s arguments; None leaves a default.
    """

    precision: str = "float32"
    calibration: Source | None = None
    labels: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def check(self) -> None:
        """Make sure that the arguments make sense.

        Raises:
            TargetError: they do not; all problems are named.
        """
        problems = [*self._unknown(), *self._lonely()]
        if problems:
            raise TargetError("\n".join(problems))

    def _unknown(self) -> list[str]:
        choices = (
            ("precision", self.precision, PRECISIONS),
            ("calibration_method", self._given("calibration_method"), METHODS),
            ("activations", self._given("activations"), ACTIVATIONS),
        )
        problems = [
            f"`{name}` must be one of {', '.join(allowed)}. Received: {value!r}."
            for name, value, allowed in choices
            if value not in allowed and (value is not None or name == "precision")
        ]
        drop = self._given("max_accuracy_drop")
        is_number = isinstance(drop, int | float) and not isinstance(drop, bool)
        if drop is not None and not (is_number and 0 <= drop < float("inf")):
            problems.append(f"`max_accuracy_drop` must be a number from 0 on, such as 0.01. Received: {drop!r}.")
        return problems

    def _lonely(self) -> list[str]:
        """What is asked for without that which it is about."""
        needs = ("calibration_method", "max_accuracy_drop", "bias_correction")
        given = [name for name in needs if self._given(name) is not None]
        given += ["labels"] if self.labels is not None else []
        activations = self._given("activations")
        problems: list[str] = []
        if self.precision in ("int8", "bf16") and self.calibration is None:
            lonely = [*given, *(["activations"] if activations == "tensor" else [])]
            problems += [f"calibration data are missing for {_quoted(lonely)}. Give `calibration`."] if lonely else []
        given += ["activations"] if activations is not None else []
        if self.precision == "bf16":
            given = [name for name in given if name != "labels"]
        elif self.precision == "float32":
            given += ["calibration"] if self.calibration is not None else []
        if self.precision in ("float32", "bf16") and given:
            problems.append(f"only precision 'int8' takes {_quoted(given)}. Received: precision {self.precision!r}.")
        return problems

    def _given(self, name: str) -> Any:
        return self.options.get(name)

    def settings(self) -> Settings:
        """The options as `Settings`."""
        names = {
            "calibration_method": "method",
            "activations": "activations",
            "bias_correction": "correct_bias",
            "max_accuracy_drop": "max_drop",
        }
        return Settings(**{names[key]: value for key, value in self.options.items() if value is not None})


def _quoted(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def narrowed(graph: Graph, request: Request, chosen: Backend) -> Narrowed:
    """`graph` in the precision that is asked for; where the machine has none such, `graph` itself, with a note.

    Raises:
        TargetError: the target computes in no such precision.
        InputError: the calibration data do not fit, or no layer can be in few bits.
    """
    if request.precision == "int8" and "int8" not in chosen.precisions:
        law = "precision 'int8' is for the targets onnx, tvm and auto, and for machines of tvm that run Linux"
        raise TargetError(f"{law}. Received: target {chosen.target!r}.")
    optimized = inference(graph)
    data = _data(optimized, request)
    run = _runner(optimized, data, chosen)
    if request.precision == "int8":
        return to_int8(optimized, data, request.settings(), run)
    if "bf16" not in chosen.precisions:
        note = f"float32 throughout: target {chosen.target!r} has no bfloat16 instructions on all CPUs that it is for"
        return Narrowed(graph, PrecisionReport("bf16", notes=(note,)))
    return to_bf16(optimized, data, run)


def _runner(graph: Graph, data: Calibration | None, chosen: Backend) -> Run:
    """What computes graphs on the calibration data: the reference, or compiled code where that would take too long."""
    if data is None or _work_of(graph, data) < _MUCH_WORK:
        return evaluate
    sessions: dict[tuple[Graph, tuple[Value, ...]], Session] = {}

    def run(graph: Graph, inputs: Mapping[str, Array], /, *, keep: Sequence[Value] = ()) -> dict[str, Array]:
        key = (graph, tuple(keep))
        names = [f"kept_{i}" for i in range(len(keep))]
        if key not in sessions:
            outputs, all_names = (*graph.outputs, *keep), (*graph.output_names, *names)
            sessions[key] = chosen.session(replace(graph, outputs=outputs, output_names=all_names))
        results = sessions[key].run(inputs)
        return {name: results[name] for name in graph.output_names} | {
            f"%{i}": results[name] for i, name in enumerate(names)
        }

    return run


def _data(graph: Graph, request: Request) -> Calibration | None:
    return None if request.calibration is None else read_calibration(graph, request.calibration, request.labels)


def _work_of(graph: Graph, data: Calibration) -> int:
    """About how many operations one pass over the data takes; 0 where extents stay open."""
    types = graph.input_types
    batch = next((dim for type in types.values() for dim in type.shape[:1] if isinstance(dim, int)), 1)
    rows = {name: (batch, *array.shape[1:]) for name, array in data.inputs.items() if types[name].rank}
    operations = work(fix_shapes(graph, rows))
    return operations * data.rows // max(batch, 1) if isinstance(operations, int) else 0


def note_of(narrow: Narrowed, graph: Graph, seed: int = 0) -> dict[str, str]:
    """The report as a note of the artifact, with what few bits cost of `graph` on drawn inputs, for `allowances`."""
    inputs = draw_inputs(graph, seed)
    exact = evaluate(graph, inputs)
    found = exact if narrow.graph is graph else evaluate(narrow.graph, inputs)
    cost = {name: worst(found[name], exact[name]) for name in exact}
    return {PRECISION_KEY: json.dumps(narrow.report.to_json() | {"cost": cost})}


def allowances(notes: Mapping[str, str]) -> dict[str, float]:
    """By how much more than in float32 an artifact's outputs may be off from its model, by name: its notes say so.

    Other inputs than those that the cost was measured on may cost more, but not several times as much.
    """
    cost: Mapping[str, float] = json.loads(notes.get(PRECISION_KEY, "{}")).get("cost", {})
    return {name: _OTHER_INPUTS * value for name, value in cost.items() if value}
