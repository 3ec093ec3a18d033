"""Where the time of an ONNX model goes, as ONNX Runtime's own profiler sees it.

kcompile names nodes ``layer/Operator``; a node that ONNX Runtime makes of several keeps the name of one of them. Its
clock counts whole microseconds, and shapes are its own: of channels in blocks, those that fill the last one count too;
weights that it has packed count as no bytes.
"""

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from kcompile.errors import InputError
from kcompile.ir.types import Array
from kcompile.runtime.onnx import OnnxSession
from kcompile.runtime.profile import Profile, StageTime, typical

_FEWEST = 9
# ONNX Runtime keeps a million events and drops what follows.
_MOST_EVENTS = 500_000
_KERNEL_TIME = "_kernel_time"
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def profile_onnx(model: Path | bytes, feeds: Mapping[str, Array], seconds: float, origin: str = "") -> Profile:
    """Measure a model on `feeds` for about so many seconds, on one thread.

    Raises:
        InputError: the feeds do not fit, or have no rows.
        MissingExtra: onnxruntime is not installed.
        ArtifactError: ONNX Runtime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="kcompile-") as folder:
        session = OnnxSession(model, 1, origin, profile_prefix=str(Path(folder) / "run"))
        session.run(feeds)
        plan = session.signature.fit([feeds[name] for name in session.inputs])
        if plan.is_empty:
            raise InputError(f"a profile needs at least one row. Received: {dict(plan.bindings)}.")
        warm_up = 1 + _repeat(session, feeds, min(seconds, 0.1), 1, _MOST_EVENTS // 10)
        _repeat(session, feeds, seconds, _FEWEST, _MOST_EVENTS)
        events: list[dict[str, Any]] = json.loads(session.end_profile().read_text("utf-8", "replace"))
    whole = [event["dur"] for event in events if event.get("name") == "model_run"][warm_up:]
    stages = _stages(events, warm_up)
    return Profile(session.name, session.engine, plan.bindings, len(whole), typical(whole) * 1e-6, None, stages)


def _repeat(session: OnnxSession, feeds: Mapping[str, Array], seconds: float, fewest: int, events: int) -> int:
    """How many calls were made; a call of many nodes may make some hundreds of events."""
    calls, end = 0, time.perf_counter() + seconds
    most = max(fewest, events // 1000)
    while calls < fewest or (time.perf_counter() < end and calls < most):
        session.run(feeds)
        calls += 1
    return calls


def _stages(events: Sequence[Mapping[str, Any]], warm_up: int) -> tuple[StageTime, ...]:
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL_TIME):
            runs.setdefault(name.removesuffix(_KERNEL_TIME), []).append(event)
    return tuple(_stage(name, found, found[warm_up:] or found) for name, found in runs.items())


def _stage(name: str, found: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]]) -> StageTime:
    arguments = found[-1]["args"]
    sizes = (int(arguments.get(key, 0)) for key in ("activation_size", "parameter_size", "output_size"))
    seconds = typical(event["dur"] for event in measured) * 1e-6
    kind = str(arguments.get("op_name", ""))
    layer = name.removeprefix("fused ").rpartition("/")[0]
    return StageTime(name, kind, layer, seconds, _macs(kind, arguments), sum(sizes))


def _macs(kind: str, arguments: Mapping[str, Any]) -> int:
    """Multiply-accumulates of the operators that do the most, from the shapes that they had.

    Weights that ONNX Runtime has packed have no shape any more; a convolution without one counts as unknown, 0.
    """
    takes, gives = (_shapes(arguments.get(key)) for key in ("input_type_shape", "output_type_shape"))
    if not takes or not gives:
        return 0
    x, y = takes[0], gives[0]
    if kind.removeprefix("Fused") in ("Conv", "NhwcFusedConv", "QLinearConv", "ConvInteger"):
        kernel = next((shape for shape in takes[1:] if len(shape) == len(x) > 2), [0, 0])
        return math.prod(y) * math.prod(kernel[1:])
    if kind.removeprefix("Fused") in ("MatMul", "MatMulInteger", "Gemm"):
        return math.prod(y) * x[-1]
    if kind in _GATES and len(x) == 3:
        # x: [T, B, I]; y: [T, D, B, H], or the last states alone, [D, B, H].
        steps, batch, features = x
        directions, units = y[-3], y[-1]
        return steps * batch * directions * _GATES[kind] * units * (features + units)
    return 0


def _shapes(records: object) -> list[list[int]]:
    """``[{"float": [1, 3]}, …]`` as lists of extents."""
    found = cast(list[dict[str, list[int]]], records) if isinstance(records, list) else []
    return [shape for record in found for shape in record.values()]
