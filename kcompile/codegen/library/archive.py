"""Static libraries: the ``ar`` format with the symbol index of System V and GNU, without dates or owners.

Source: https://www.freebsd.org/cgi/man.cgi?query=ar&sektion=5
"""

from collections.abc import Mapping, Sequence

_MAGIC = b"!<arch>\n"
_NAME_LENGTH = 15


def archive(members: Mapping[str, tuple[bytes, Sequence[str]]]) -> bytes:
    """A static library of object files, each with the symbols that it offers to others.

    Raises:
        ValueError: a name is longer than the format's own field.
    """
    symbols = [(symbol, name) for name, (_, offered) in members.items() for symbol in offered]
    names = b"".join(symbol.encode() + b"\0" for symbol, _ in symbols)
    index_size = 4 + 4 * len(symbols) + len(names)
    offsets: dict[str, int] = {}
    position = len(_MAGIC) + _padded(index_size)
    for name, (content, _) in members.items():
        offsets[name] = position
        position += _padded(len(content))
    numbers = [len(symbols), *(offsets[name] for _, name in symbols)]
    index = b"".join(number.to_bytes(4, "big") for number in numbers) + names
    parts = [_member("", index), *(_member(name, content) for name, (content, _) in members.items())]
    return _MAGIC + b"".join(parts)


def _padded(size: int) -> int:
    """The bytes of a member of `size` bytes with its header, which has 60."""
    return 60 + size + size % 2


def _member(name: str, content: bytes) -> bytes:
    if len(name) > _NAME_LENGTH:
        raise ValueError(f"an archive's member must have a name of at most {_NAME_LENGTH} characters. Received: {name}")
    header = f"{name + '/':<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)
