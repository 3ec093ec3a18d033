"""Models of TensorFlow.js: a ``model.json`` with Keras's config, and beside it files that hold all arrays as bytes.

The format is that of its converter 1.x to 4.x (tfjs-converter, ``docs/format.md`` and ``weights_loader``): an array is
stored plain, or as 8 or 16 bits each with ``value = stored * scale + min``.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kcompile.errors import ModelError, shown
from kcompile.frontend.keras_file.old_layouts import Stored
from kcompile.ir.types import Array

_DTYPES = ("float16", "float32", "int32", "uint8", "uint16", "bool")


def is_tensorflow_js(config: Any) -> bool:
    """Whether the JSON is a model of TensorFlow.js."""
    return isinstance(config, Mapping) and {"modelTopology", "weightsManifest"} <= set(config)  # pyright: ignore


def topology(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Keras's config of the model, with the version that wrote it.

    Raises:
        ModelError: the model is a graph of TensorFlow's, without layers.
    """
    stated: Any = config["modelTopology"]
    if not isinstance(stated, Mapping) or config.get("format", "layers-model") != "layers-model":
        law = f"{where} must be a layers-model of TensorFlow.js"
        raise ModelError(f"{law}. Received: format {config.get('format')!r}, whose graph has no layers.")
    inner: Any = stated.get("model_config", stated)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    versions = {key: stated[key] for key in ("keras_version", "backend") if key in stated}
    return {**inner, **versions} if isinstance(inner, Mapping) else {}  # pyright: ignore


def arrays(config: Mapping[str, Any], folder: Path, where: str) -> dict[str, list[Stored]]:
    """The arrays by layer, read from the files beside the model when they are asked for.

    Raises:
        ModelError: the list of arrays is damaged, a file is missing or not beside the model, or bytes are missing.
    """
    found: dict[str, list[Stored]] = {}
    for group in _list(config["weightsManifest"], "weightsManifest", where):
        if not isinstance(group, Mapping):
            raise ModelError(f"a group of arrays in {where} must be a dict. Received: {shown(group)}.")
        parts = [_shard(folder, path, where) for path in _list(group.get("paths"), "paths", where)]
        data, start = b"".join(parts), 0
        for entry in _list(group.get("weights"), "weights", where):
            stored, start = _array(entry, data, start, where)
            found.setdefault(stored.path.split("/")[0], []).append(stored)
    return found


def _list(value: Any, what: str, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ModelError(f"`{what}` in {where} must be a list. Received: {str(value)[:60]}.")
    return value  # pyright: ignore[reportUnknownVariableType]


def _shard(folder: Path, name: Any, where: str) -> bytes:
    path = folder / str(name)
    if not isinstance(name, str) or Path(name).name != name or path.is_symlink():
        raise ModelError(f"{where} must name files beside it. Received: {name!r}.")
    if not path.is_file():
        raise ModelError(f"{where} needs its file of weights {name}, which must lie beside it.")
    return path.read_bytes()


def _array(entry: Any, data: bytes, start: int, where: str) -> tuple[Stored, int]:
    match entry:
        case {"name": str() as name, "shape": list() as shape, "dtype": str() as dtype, **rest}:
            extents = tuple(_extents(shape, name, where))
        case _:
            raise ModelError(f"an array in {where} must have a name, a shape and a dtype. Received: {str(entry)[:80]}.")
    quantization = _quantization(rest.get("quantization"), name, where)
    kept: Any = quantization.get("dtype", dtype)
    if kept not in _DTYPES:
        raise ModelError(f"array `{name}` in {where} must be of {', '.join(_DTYPES)}. Received: {kept!r}.")
    end = start + int(np.prod(extents, dtype=object)) * np.dtype(kept).itemsize
    if end > len(data):
        raise ModelError(f"the files of {where} must hold array `{name}` up to byte {end:,}. Received: {len(data):,}.")
    return Stored(name, extents, partial(_read, data[start:end], kept, extents, quantization)), end


def _quantization(stated: Any, name: str, where: str) -> Mapping[str, Any]:
    """How an array's numbers are stored; empty where they stand as they are."""
    held: Any = {} if stated is None else stated
    if isinstance(held, Mapping):
        numbers = [held.get(key) for key in ("scale", "min")]  # pyright: ignore[reportUnknownMemberType]
        if numbers == [None, None] or all(isinstance(number, int | float) for number in numbers):
            return held  # pyright: ignore[reportUnknownVariableType]
    law = f"`quantization` of array `{name}` in {where} must hold a dtype, and `scale` and `min` as numbers"
    raise ModelError(f"{law}. Received: {shown(stated)}.")


def _extents(shape: Sequence[Any], name: str, where: str) -> Iterator[int]:
    for extent in shape:
        if not isinstance(extent, int) or extent < 0:
            raise ModelError(f"array `{name}` in {where} must have a shape of integers. Received: {shape}.")
        yield extent


def _read(data: bytes, dtype: str, shape: tuple[int, ...], quantization: Mapping[str, float]) -> Array:
    array = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    if "scale" not in quantization:
        return array
    return array.astype(np.float32) * np.float32(quantization["scale"]) + np.float32(quantization["min"])
