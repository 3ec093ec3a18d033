"""Files that are whole at every instant: written where nobody sees them, then moved to their place."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_OPEN_FILES = Path("/proc/self/fd")


def replace_file(path: Path, write: Callable[[BinaryIO], None], lasting: bool = False) -> None:
    """Write a file so that whatever interrupts it, even a kill, leaves the old one whole.

    On Linux the new file has no name while it is written, so that a kill leaves nothing of it either.

    Args:
        write: called with the open file.
        lasting: whether the data must be on the disk before the old file goes, so that a power cut does no harm either.

    Raises:
        OSError: the folder cannot be written to.
    """
    descriptor, made = _without_name(path) or _with_name(path)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            write(file)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
            if not made.exists():
                _name(file, made)
        os.replace(made, path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def _without_name(path: Path) -> tuple[int, Path] | None:
    """An open file that has no name yet, and the one that it will have; None where the system has no such files."""
    if not hasattr(os, "O_TMPFILE") or not _OPEN_FILES.is_dir():
        return None
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError:
        return None
    # The number is this process's alone as long as the file is open.
    return descriptor, path.with_name(f".{path.name}.{os.getpid()}.{descriptor}")


def _name(file: BinaryIO, path: Path) -> None:
    """Give an open file a name; where the system does not allow that, make a copy that has one."""
    # Only with a folder to start from does Python ask the system to follow the link to the file.
    folder = os.open(_OPEN_FILES, os.O_RDONLY)
    try:
        os.link(str(file.fileno()), path, src_dir_fd=folder, follow_symlinks=True)
    except OSError:
        file.seek(0)
        with path.open("xb") as copy:
            shutil.copyfileobj(file, copy)
    finally:
        os.close(folder)


def _with_name(path: Path) -> tuple[int, Path]:
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(made, 0o666 & ~mask)
    return descriptor, Path(made)
