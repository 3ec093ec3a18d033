"""The heaps in which an HDF5 file keeps its texts, checked before the HDF5 library walks them: in some damaged ones it
walks without end.

"Global heap" in the HDF5 file format specification: a signature, a version, the size in bytes, and objects, each with a
number, its size and its bytes, padded to multiples of 8. Object 0 is the free space at the end. What refers to an
object states its length, where the heap is, and the object's number, at a multiple of 8 in files as h5py writes them;
the library takes as much memory as the length says.
"""

import struct
from typing import BinaryIO

from kcompile.errors import ModelError

_SIGNATURE = b"GCOL\x01\x00\x00\x00"
_HEADER = 16
_CHUNK = 1 << 20
# Bytes that are searched at most for what refers to objects: about a second's work.
_SEARCHED = 1 << 30


def check_heaps(file: BinaryIO, where: str) -> None:
    """Make sure that every heap of a file can be walked to its end, and that no text is longer than the file.

    Raises:
        ModelError: one cannot, or one is.
    """
    end, heaps = 0, list[int]()
    while (start := _next(file, end, _SIGNATURE)) is not None:
        file.seek(start + len(_SIGNATURE))
        size = int.from_bytes(file.read(8), "little")
        file.seek(start)
        if not _is_whole(file.read(size), size):
            raise ModelError(f"{where} is damaged: its texts at byte {start:,} cannot be read.")
        end = start + size
        heaps.append(start)
    size = file.seek(0, 2)
    for start in heaps if len(heaps) * size <= _SEARCHED else ():
        if (place := _endless(file, start, size)) is not None:
            raise ModelError(f"{where} is damaged: byte {place:,} says that a text is longer than the file.")
    file.seek(0)


def _endless(file: BinaryIO, heap: int, size: int) -> int | None:
    """Where a reference to an object of a heap states a length beyond that of the file."""
    address, place = struct.pack("<Q", heap), 0
    while (found := _next(file, place, address)) is not None:
        place = found + len(address)
        file.seek(max(found - 4, 0))
        length, _, number = struct.unpack("<IQI", file.read(16).ljust(16, b"\0"))
        if length > size and 0 < number < 1 << 16 and found % 8 == 4:
            return found - 4
    return None


def _next(file: BinaryIO, start: int, wanted: bytes) -> int | None:
    """Where `wanted` stands next, from `start` on."""
    file.seek(start)
    tail = b""
    while chunk := file.read(_CHUNK):
        window = tail + chunk
        found = window.find(wanted)
        if found >= 0:
            return start - len(tail) + found
        start += len(chunk)
        tail = window[-len(wanted) + 1 :]
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
