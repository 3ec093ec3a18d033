"""Arrays in files, for ``kcompile run`` and ``kcompile bench``."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kcompile.codegen.bundle import replacing, write_npz
from kcompile.errors import InputError
from kcompile.ir.types import Array


def read_inputs(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """The arrays for the inputs `names` in an ``.npz`` or ``.npy`` file.

    An ``.npz`` names them as the model does, or by their place (``in0``, ``in1``, …; ``arr_0``, …); an ``.npy`` holds
    the only one.

    Raises:
        InputError: the file holds something else.
    """
    try:
        content: Any = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile):
        raise InputError(f"{path} must be an .npz or .npy file of numbers, and cannot be read as one.") from None
    if isinstance(content, np.ndarray):
        if len(names) != 1:
            raise InputError(f"{path} holds one array. The model's inputs are {', '.join(names)}: use an .npz file.")
        return {names[0]: content}
    with content:
        return _by_name(path, content, names)


def _by_name(path: Path, archive: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    held = list(archive)
    for pattern in ("{name}", "in{place}", "arr_{place}"):
        keys = [pattern.format(name=name, place=place) for place, name in enumerate(names)]
        if set(keys) <= set(held):
            return {name: _array(path, archive, key) for name, key in zip(names, keys, strict=True)}
    received = ", ".join(held) or "nothing"
    raise InputError(f"{path} must hold arrays named {', '.join(names)}, or in0, in1 and so on. Received: {received}.")


def _array(path: Path, archive: Mapping[str, Array], key: str) -> Array:
    try:
        return archive[key]
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path}: `{key}` must hold numbers, and cannot be read as such.") from None


def write_outputs(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name into an ``.npz`` file, which is whole or not there."""
    with replacing(path) as file:
        write_npz(file, arrays)
