"""The heaps in which an HDF5 file keeps its texts, checked before the HDF5 library walks them: in some damaged ones it
walks without end.

"Global heap" in the HDF5 file format specification: a signature, a version, the size in bytes, and objects, each with a
number, its size and its bytes, padded to multiples of 8. Object 0 is the free space at the end.
"""

import struct
from typing import BinaryIO

from kcompile.errors import ModelError

_SIGNATURE = b"GCOL\x01\x00\x00\x00"
_HEADER = 16
_CHUNK = 1 << 20


def check_heaps(file: BinaryIO, where: str) -> None:
    """Make sure that every heap of a file can be walked to its end.

    Raises:
        ModelError: one cannot.
    """
    end = 0
    while (start := _next(file, end)) is not None:
        file.seek(start + len(_SIGNATURE))
        size = int.from_bytes(file.read(8), "little")
        file.seek(start)
        if not _is_whole(file.read(size), size):
            raise ModelError(f"{where} is damaged: its texts at byte {start:,} cannot be read.")
        end = start + size
    file.seek(0)


def _next(file: BinaryIO, start: int) -> int | None:
    """Where the next heap begins, from `start` on."""
    file.seek(start)
    tail = b""
    while chunk := file.read(_CHUNK):
        window = tail + chunk
        found = window.find(_SIGNATURE)
        if found >= 0:
            return start - len(tail) + found
        start += len(chunk)
        tail = window[-len(_SIGNATURE) + 1 :]
    return None


def _is_whole(heap: bytes, size: int) -> bool:
    """Whether the objects of a heap fill it, one after another."""
    place = _HEADER
    if len(heap) < max(size, _HEADER):
        return False
    while size - place >= _HEADER:
        number, _, _, length = struct.unpack_from("<HHIQ", heap, place)
        if number == 0:
            return place + length == size
        place += _HEADER + -(-length // 8) * 8
    return place <= size
