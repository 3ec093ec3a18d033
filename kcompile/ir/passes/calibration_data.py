"""The data that a model is calibrated on: arrays for its inputs and, if there are any, labels."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from kcompile.errors import InputError
from kcompile.ir.graph import Graph
from kcompile.ir.types import Array, TensorType, bind_shapes, dtype_of

# What `compile` takes: an .npz file, or arrays by name.
Source: TypeAlias = str | Path | Mapping[str, Array]
LABELS = "labels"


@dataclass(frozen=True)
class Calibration:
    """Rows for the inputs of a graph, by name, and the label of each row where they are known."""

    inputs: Mapping[str, Array] = field(repr=False)
    labels: Array | None = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.inputs.values())))


def read_calibration(graph: Graph, source: Source, labels: str | None = None) -> Calibration:
    """The calibration data of `graph`.

    Args:
        source: an ``.npz`` file, or arrays by name: those of the inputs, or ``in0``, ``in1`` and so on.
        labels: the name of the labels; without one, ``labels``, where there are any.

    Raises:
        InputError: the data do not fit; all problems are named.
    """
    if not isinstance(source, str | Path | Mapping):
        law = "`calibration` must be the path of an .npz file, or a dict of arrays by the inputs' names"
        raise InputError(f"{law}. Received: {type(source).__name__}.")
    arrays = dict(source) if isinstance(source, Mapping) else _load(Path(source))
    types = graph.input_types
    what = "the calibration data" if isinstance(source, Mapping) else f"the calibration data {Path(source).name}"
    keys = _keys(list(types), arrays)
    if keys is None:
        names = f"{', '.join(types)} (or in0, in1 and so on)"
        raise InputError(f"{what} must hold arrays named {names}. Received: {', '.join(arrays) or 'nothing'}.")
    problems: list[str] = []
    inputs = {name: _fitted(name, arrays[key], types[name], problems) for name, key in keys.items()}
    if not problems:
        problems += _shape_problems(types, inputs)
    found = _labels(graph, inputs, arrays, labels, set(keys.values()), problems)
    if problems:
        raise InputError("\n".join([f"{what} must fit the model:", *(f"  {problem}" for problem in problems)]))
    return Calibration(inputs, found)


def _load(path: Path) -> dict[str, Array]:
    law = f"calibration data must be an .npz file of arrays, one per input and one row per sample. Received: {path}"
    if not path.is_file():
        raise InputError(f"{law}, which is no file.")
    try:
        content: Any = np.load(path, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            with content:
                return {name: content[name] for name in content.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, KeyError):
        raise InputError(f"{law}, which cannot be read as one.") from None
    raise InputError(f"{law}, which holds one array without a name. Use numpy.savez.")


def _keys(names: Sequence[str], arrays: Mapping[str, Array]) -> dict[str, str] | None:
    """The key of each input's array; None where one is missing."""
    for pattern in ("{name}", "in{place}"):
        keys = {name: pattern.format(name=name, place=place) for place, name in enumerate(names)}
        if set(keys.values()) <= set(arrays):
            return keys
    return None


def _fitted(name: str, array: Array, type: TensorType, problems: list[str]) -> Array:
    """The array in the input's dtype, if that loses nothing but digits."""
    array = np.asarray(array)
    if type.dtype == "string" or array.dtype.kind not in "fiub" or not _casts(array, type.dtype):
        if dtype_of(array) != type.dtype:
            problems.append(f"input `{name}` must have dtype {type.dtype}. Received: {dtype_of(array)}.")
        return array
    with np.errstate(over="ignore"):
        fitted = array.astype(type.dtype, copy=False)
    if not np.isfinite(fitted).all():
        problems.append(f"input `{name}` must hold finite numbers in {type.dtype}. Received: NaN or infinity.")
    return fitted


def _casts(array: Array, dtype: str) -> bool:
    if np.can_cast(array.dtype, dtype, "same_kind") or np.dtype(dtype).kind == "f":
        return True
    with np.errstate(invalid="ignore"):
        return bool((array.astype(dtype) == array).all())


def _shape_problems(types: Mapping[str, TensorType], inputs: Mapping[str, Array]) -> list[str]:
    empty = [name for name, array in inputs.items() if not array.size]
    if empty:
        return [f"input `{name}` must have at least one row. Received: shape {inputs[name].shape}." for name in empty]
    fixed = {type.shape[0] for type in types.values() if type.rank and isinstance(type.shape[0], int)}
    rows = {len(array) for array in inputs.values() if array.ndim}
    if fixed and any(count % int(size) for size in fixed for count in rows):
        return [f"the rows must come in multiples of {max(fixed)}, the model's batch. Received: {sorted(rows)} rows."]
    step = max((int(size) for size in fixed), default=0)
    try:
        bind_shapes(types, {name: (step or len(x), *x.shape[1:]) if x.ndim else () for name, x in inputs.items()})
    except InputError as error:
        return str(error).splitlines()
    return []


def _labels(
    graph: Graph,
    inputs: Mapping[str, Array],
    arrays: Mapping[str, Array],
    name: str | None,
    used: set[str],
    problems: list[str],
) -> Array | None:
    """The label of each row as the number of its class."""
    key = name or LABELS
    if key in used or key not in arrays:
        if name:
            problems.append(f"the labels are to be in `{name}`, which is missing. Received: {', '.join(arrays)}.")
        return None
    labels = np.asarray(arrays[key])
    output = next(iter(graph.output_types.values()))
    classes = output.shape[-1] if output.rank == 2 else None
    rows = len(next(iter(inputs.values()))) if inputs else 0
    law = f"`{key}` must hold one class per row, as a number or as a row of probabilities"
    if labels.ndim == 2 and labels.shape[1] == classes and classes != 1:
        labels = labels.argmax(axis=1)
    labels = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.dtype.kind == "f" and (labels == np.rint(labels)).all():
        labels = labels.astype(np.int64)
    most = max(int(classes), 2) if isinstance(classes, int) else 0
    fits = labels.shape == (rows,) and labels.dtype.kind in "iub" and bool(most)
    if not fits or (labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < most):
        received = f"{labels.dtype}{list(labels.shape)}"
        received += f" from {labels.min()} to {labels.max()}" if labels.size and labels.dtype.kind in "fiu" else ""
        problems.append(f"{law}, for an output of type {output} and {rows} rows. Received: {received}.")
        return None
    return labels.astype(np.int64)
