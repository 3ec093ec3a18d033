"""``.keras`` files: a zip that holds ``config.json``, ``metadata.json`` and ``model.weights.h5``."""

import io
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from kcompile.errors import ModelError

WEIGHTS = "model.weights.h5"
CONFIG = "config.json"
METADATA = "metadata.json"

# Parsed JSON takes up to 30 times the memory of its text. Configs of networks with hundreds of equal layers shrink to a
# fiftieth; what shrinks to less than a hundredth and is large is made to fill the memory.
_LARGEST_TEXT = 256 << 20
_LARGEST_RATIO = 100
_SMALL_TEXT = 4 << 20
# Optimizers keep up to three numbers per weight beside it.
_COPIES_OF_WEIGHTS = 8
_CHUNK = 1 << 20

# What zipfile raises on damaged archives.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
)


@contextmanager
def opened(path: Path) -> Generator[zipfile.ZipFile]:
    """The archive.

    Raises:
        ModelError: it is no zip, damaged in a place that is read, or has two members of one name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            repeated = [name for name, count in Counter(archive.namelist()).items() if count > 1]
            if repeated:
                raise ModelError(
                    f"the members of {path.name} must have names of their own. Received two {repeated[0]!r}."
                )
            yield archive
    except _DAMAGE as error:
        raise ModelError(f"{path.name} is no .keras file, or is damaged or cut off ({error}).") from error


def text(archive: zipfile.ZipFile, name: str, where: str) -> str:
    """A member as text; empty where there is none.

    Raises:
        ModelError: it is larger than any config can be, or no UTF-8.
    """
    if name not in archive.namelist():
        return ""
    info = archive.getinfo(name)
    limit = min(_LARGEST_TEXT, max(_SMALL_TEXT, _LARGEST_RATIO * info.compress_size))
    if info.file_size > limit:
        law = f"`{name}` in {where} must not unpack to more than {limit:,} bytes from {info.compress_size:,}"
        raise ModelError(f"{law}. Received: {info.file_size:,}.")
    data = archive.read(info)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"`{name}` in {where} must be UTF-8 text ({error}).") from None


@contextmanager
def weights(archive: zipfile.ZipFile, path: Path, expected: int) -> Generator[BinaryIO]:
    """The weights' member as a file; one that is stored plain is read in place.

    Args:
        expected: bytes of the weights that the config declares, a measure for what unpacking may take.

    Raises:
        ModelError: there is no such member, it is too large, or its checksum is wrong.
    """
    if WEIGHTS not in archive.namelist():
        found = ", ".join(archive.namelist()[:5]) or "nothing"
        raise ModelError(f"{path.name} must hold `{WEIGHTS}`. Received: an archive with {found}.")
    info = archive.getinfo(WEIGHTS)
    limit = _COPIES_OF_WEIGHTS * expected + (64 << 20)
    if info.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file, _Window(file, _data_start(file, info), info.file_size) as window:
            _check_sum(window, info, path.name)
            yield io.BufferedReader(window, _CHUNK)  # pyright: ignore[reportReturnType]
    elif info.file_size > limit:
        law = f"`{WEIGHTS}` in {path.name} must not unpack to more than {limit:,} bytes for {expected:,} of weights"
        raise ModelError(f"{law}. Received: {info.file_size:,}.")
    else:
        with archive.open(info) as member:
            yield io.BytesIO(member.read())


def _data_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its local header, whose last two fields are lengths of what follows it."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no header for {info.filename}")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return info.header_offset + 30 + lengths


class _Window(io.RawIOBase):
    """A stretch of a file as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: "memoryview | bytearray", /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._start + self._position)
        read: int = self._file.readinto(memoryview(buffer)[:wanted])  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        self._position += read
        return read


def _check_sum(window: _Window, info: zipfile.ZipInfo, where: str) -> None:
    total, buffer = 0, bytearray(_CHUNK)
    while count := window.readinto(buffer):
        total = zlib.crc32(memoryview(buffer)[:count], total)
    window.seek(0)
    if total != info.CRC:
        raise ModelError(f"`{info.filename}` in {where} is damaged: its checksum is wrong.")
