"""HDF5 files read with care: nothing outside the file, nothing larger than what is expected."""

# h5py ships no types; what the functions here take and return is declared all the same.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import h5py
import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.keras_file.heaps import check_heaps
from kcompile.ir.types import Array

Group: TypeAlias = Any

_DAMAGE = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, OverflowError, MemoryError)

_PLAIN = (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)


@contextmanager
def opened(file: Path | BinaryIO, where: str) -> Generator[Group]:
    """The root group of a file.

    Raises:
        ModelError: it is no HDF5 file, or damaged in a place that is read.
    """
    try:
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as stream:
            check_heaps(stream, where)
        with h5py.File(file, "r") as root:
            yield root
    except _DAMAGE as error:
        raise ModelError(f"{where} is no HDF5 file, or is damaged or cut off ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def attribute(group: Group, name: str) -> Any:
    """An attribute: a text, a list of texts, or a number; None where there is none.

    Raises:
        ModelError: it is of another kind; damaged ones of such kinds can crash the HDF5 library.
    """
    if name not in group.attrs:
        return None
    if group.attrs.get_id(name).get_type().get_class() not in _PLAIN:
        raise ModelError(f"attribute `{name}` of `{group.name}` must hold texts or numbers.")
    value = group.attrs[name]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray):
        return [item.decode("utf-8") if isinstance(item, bytes) else item for item in value.tolist()]
    return value


def names(group: Group, name: str) -> list[str] | None:
    """An attribute that lists names; long lists are split over ``name0``, ``name1`` and so on."""
    whole = attribute(group, name)
    if whole is not None:
        return [str(item) for item in whole]
    found: list[str] = []
    count = 0
    while (part := attribute(group, f"{name}{count}")) is not None:
        found += [str(item) for item in part]
        count += 1
    return found if count else None


def child(group: Group, path: str, where: str) -> Any | None:
    """The group or dataset at `path` below `group`; None where there is none.

    Raises:
        ModelError: a link leads out of the file, or to another place in it.
    """
    for part in path.split("/"):
        if not isinstance(group, h5py.Group):
            return None
        link: Any = group.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            law = f"{where} must hold its weights itself"
            raise ModelError(f"{law}. Received: a link at `{group.name}/{part}` ({type(link).__name__}).")
        group = group[part]
    return group


def array(dataset: Any, shape: tuple[int, ...], where: str) -> Array:
    """The numbers of a dataset, which must have `shape`.

    Raises:
        ModelError: it is no dataset of numbers inside the file, or has another shape.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise ModelError(f"{where} must hold an array. Received: {type(dataset).__name__}.")
    if dataset.external or dataset.is_virtual:
        raise ModelError(f"{where} must hold its numbers itself. Received: a dataset that refers to another file.")
    if dataset.shape != shape:
        raise ModelError(f"{where} must have shape {shape}. Received: {dataset.shape}.")
    # In ``.h5`` files Keras 3 left bfloat16 without a name: it is the only type of 2 bytes that HDF5 has no class for.
    stated = "bfloat16" if dataset.dtype.kind == "V" else attribute(dataset, "dtype")
    if stated == "bfloat16" and dataset.dtype.itemsize == 2 and dataset.dtype.kind in "fiuV":
        return _from_bfloat16(dataset[()])
    if dataset.dtype.kind not in "fiub":
        raise ModelError(f"{where} must hold numbers. Received: dtype {dataset.dtype}.")
    return np.asarray(dataset[()])


def _from_bfloat16(data: Any) -> Array:
    """As f32, of which a bfloat16 is the upper half."""
    halves = np.ascontiguousarray(data).view(np.uint16)
    return (halves.astype(np.uint32) << 16).view(np.float32)


def shape_of(node: Any) -> tuple[int, ...] | None:
    """The shape of an array; None where the node is none."""
    return node.shape if isinstance(node, h5py.Dataset) else None


def is_int8(node: Any) -> bool:
    """Whether the node is an array of integers of 8 bits."""
    return isinstance(node, h5py.Dataset) and node.dtype == np.int8


def is_dataset(node: Any) -> bool:
    """Whether the node is an array."""
    return isinstance(node, h5py.Dataset)


def is_group(node: Any) -> bool:
    """Whether the node is a group."""
    return isinstance(node, h5py.Group)
