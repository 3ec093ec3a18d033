"""Event files as TensorBoard reads them: records with checksums, each a message in Protocol Buffers' wire format.

The framing is that of TFRecord (tensorflow/core/lib/io/record_writer.h), the messages those of event.proto,
summary.proto and graph.proto in tensorflow/core/framework and util, whose field numbers stand here.
"""

import os
import socket
import struct
import time
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kcompile.ir.types import Array

_BINS = 30
_VERSION = "brain.Event:2"
_DT_STRING = 7
_FILES = count()

# -- messages ---------------------------------------------------------------------------------------------------------

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    parts: list[int] = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def integer(field: int, value: int) -> bytes:
    """A field of an integer."""
    return _key(field, _VARINT) + _varint(value)


def double(field: int, value: float) -> bytes:
    """A field of a number in double precision."""
    return _key(field, _FIXED64) + struct.pack("<d", value)


def single(field: int, value: float) -> bytes:
    """A field of a number in single precision."""
    with np.errstate(over="ignore"):
        return _key(field, _FIXED32) + np.float32(value).tobytes()


def data(field: int, value: bytes | str) -> bytes:
    """A field of bytes, a text, or a message."""
    raw = value.encode() if isinstance(value, str) else value
    return _key(field, _BYTES) + _varint(len(raw)) + raw


def doubles(field: int, values: Iterable[float]) -> bytes:
    """A field of numbers in double precision, packed."""
    return data(field, np.asarray(list(values), "<f8").tobytes())


# -- summaries --------------------------------------------------------------------------------------------------------


def scalar(tag: str, value: float) -> bytes:
    """A summary of one number."""
    return data(1, data(1, tag) + single(2, value))


def histogram(tag: str, values: Array) -> bytes:
    """A summary of how the finite ones among `values` are distributed, in buckets of equal width."""
    flat = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(flat, _BINS) if flat.size else (np.zeros(1), np.zeros(2))
    least, most = (flat.min(), flat.max()) if flat.size else (0.0, 0.0)
    facts = (least, most, flat.size, flat.sum(), np.square(flat).sum())
    message = b"".join(double(number + 1, float(fact)) for number, fact in enumerate(facts))
    return data(1, data(1, tag) + data(5, message + doubles(6, edges[1:]) + doubles(7, counts)))


def image(tag: str, pixels: Array) -> bytes:
    """A summary of an image.

    Args:
        pixels: u8[H, W, C], of 1 channel (grey), 3 (red, green, blue) or 4 (and opacity).
    """
    height, width, channels = pixels.shape
    facts = integer(1, height) + integer(2, width) + integer(3, channels)
    return data(1, data(1, tag) + data(4, facts + data(4, png(pixels))))


def keras_model(tag: str, config: str) -> bytes:
    """A summary of a model's config, which TensorBoard draws as a conceptual graph."""
    plugin = data(1, "graph_keras_model") + data(2, b"1")
    tensor = integer(1, _DT_STRING) + data(2, b"") + data(8, config)
    return data(1, data(1, tag) + data(8, tensor) + data(9, data(1, plugin)))


def graph(nodes: Iterable[tuple[str, str, Iterable[str], Mapping[str, str]]]) -> bytes:
    """A graph: name, kind, inputs and attributes of each node."""
    made = b""
    for name, kind, inputs, attributes in nodes:
        entries = (data(5, data(1, key) + data(2, data(2, text))) for key, text in attributes.items())
        made += data(1, data(1, name) + data(2, kind) + b"".join(data(3, i) for i in inputs) + b"".join(entries))
    return made + data(4, integer(1, 22))


def png(pixels: Array) -> bytes:
    """An image as a PNG file (https://www.w3.org/TR/png-3/).

    Args:
        pixels: u8[H, W, C], of 1, 3 or 4 channels.
    """
    height, width, channels = pixels.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    rows = np.pad(pixels.reshape(height, width * channels), ((0, 0), (1, 0)))
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0),
        b"IDAT": zlib.compress(rows.astype(np.uint8).tobytes()),
        b"IEND": b"",
    }
    sized = ((name + content, len(content)) for name, content in parts.items())
    chunks = (struct.pack(">I", size) + part + struct.pack(">I", zlib.crc32(part)) for part, size in sized)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# -- files ------------------------------------------------------------------------------------------------------------


@cache
def _table() -> list[int]:
    """The remainders of all bytes: CRC-32C, whose polynomial with its bits turned round is 0x82F63B78."""
    found: list[int] = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return found


def crc32c(raw: bytes) -> int:
    """The checksum CRC-32C (RFC 3720, appendix B.4)."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in raw:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(raw: bytes) -> bytes:
    """The checksum as TFRecord stores it: turned by 15 bits, and a constant added."""
    crc = crc32c(raw)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class EventFile:
    """One event file, opened when the first event is written; each is in the file when `write` returns.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None

    def _open(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        unique = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{next(_FILES)}"
        self._file = (self._folder / f"events.out.tfevents.{unique}.v2").open("ab", buffering=0)
        self._record(self._file, double(1, time.time()) + data(3, _VERSION))
        return self._file

    def write(self, *summaries: bytes, step: int) -> None:
        """Write summaries as one event."""
        self._event(data(5, b"".join(summaries)), step)

    def write_graph(self, definition: bytes) -> None:
        """Write a graph as an event."""
        self._event(data(4, definition), 0)

    def _event(self, what: bytes, step: int) -> None:
        self._record(self._file or self._open(), double(1, time.time()) + integer(2, step) + what)

    @staticmethod
    def _record(file: BinaryIO, raw: bytes) -> None:
        length = struct.pack("<Q", len(raw))
        file.write(length + masked(length) + raw + masked(raw))

    def close(self) -> None:
        """Close the file; a later event opens another."""
        if self._file is not None:
            self._file.close()
            self._file = None
