"""What an object file holds: bytes of code and constants, and the symbols that it needs.

Sources: the System V ABI (https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html) and the WebAssembly binary
format (https://webassembly.github.io/spec/core/binary/modules.html).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_WRITE, _ALLOC, _EXECUTE = 1, 2, 4
_SYMBOL_TABLE = 2
_CUSTOM, _IMPORT, _CODE, _DATA = 0, 2, 10, 11
_FUNCTION, _TABLE, _MEMORY, _GLOBAL = range(4)


@dataclass(frozen=True)
class Contents:
    """Bytes of what is executed, of constants, and of variables; and the functions that must come from elsewhere."""

    code: int
    constants: int
    variables: int
    needs: tuple[str, ...]


def contents(object_file: bytes) -> Contents:
    """The contents of an ELF or WebAssembly object."""
    if object_file.startswith(b"\0asm"):
        return _wasm(object_file)
    return _elf(object_file)


def _elf(data: bytes) -> Contents:
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    start = struct.unpack_from(order + ("Q" if wide else "I"), data, 40 if wide else 32)[0]
    step, count = struct.unpack_from(order + "HH", data, 58 if wide else 46)
    layout = order + ("IIQQQQIIQQ" if wide else "10I")
    sections = [struct.unpack_from(layout, data, start + i * step) for i in range(count)]
    sizes = {"code": 0, "constants": 0, "variables": 0}
    needs: list[str] = []
    for section in sections:
        kind, flags, size = section[1], section[2], section[5]
        if kind == _SYMBOL_TABLE:
            needs += _undefined(data, section, sections[section[6]], order)
        elif flags & _ALLOC:
            sizes["code" if flags & _EXECUTE else "variables" if flags & _WRITE else "constants"] += size
    return Contents(**sizes, needs=tuple(sorted(needs)))


def _undefined(data: bytes, table: tuple[int, ...], strings: tuple[int, ...], order: str) -> Iterator[str]:
    """The names without a section of their own."""
    wide = table[9] == 24
    for offset in range(table[4], table[4] + table[5], table[9]):
        name = struct.unpack_from(order + "I", data, offset)[0]
        section = struct.unpack_from(order + "H", data, offset + (6 if wide else 14))[0]
        if name and section == 0:
            yield _text(data, strings[4] + name)


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()


def _wasm(data: bytes) -> Contents:
    sizes = dict.fromkeys((_CODE, _DATA), 0)
    needs: list[str] = []
    position = 8
    while position < len(data):
        kind = data[position]
        size, position = _leb(data, position + 1)
        if kind in sizes:
            sizes[kind] += size
        elif kind == _IMPORT:
            needs += _imports(data, position)
        position += size
    return Contents(sizes[_CODE], sizes[_DATA], 0, tuple(sorted(needs)))


def _imports(data: bytes, position: int) -> Iterator[str]:
    """The functions of an import section; tables, memories and globals belong to the linker."""
    count, position = _leb(data, position)
    for _ in range(count):
        length, position = _leb(data, position)
        position += length
        length, position = _leb(data, position)
        name, kind = data[position : position + length].decode(), data[position + length]
        position = _after_import(data, position + length + 1, kind)
        if kind == _FUNCTION:
            yield name


def _after_import(data: bytes, position: int, kind: int) -> int:
    """The end of an import's description."""
    if kind == _FUNCTION:
        return _leb(data, position)[1]
    if kind == _GLOBAL:
        return position + 2
    flags, position = _leb(data, position + (kind == _TABLE))
    for _ in range(2 if flags & 1 else 1):
        position = _leb(data, position)[1]
    return position


def _leb(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned number of the format, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
