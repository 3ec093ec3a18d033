"""Files that are whole at every instant: written under another name, then moved to their place."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def replace_file(path: Path, write: Callable[[BinaryIO], None], lasting: bool = False) -> None:
    """Write a file so that whatever interrupts it, even a kill, leaves the old one whole.

    Args:
        write: called with the open file.
        lasting: whether the data must be on the disk before the old file goes, so that a power cut does no harm either.

    Raises:
        OSError: the folder cannot be written to.
    """
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            write(file)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(made, 0o666 & ~_umask())
        os.replace(made, path)
    except BaseException:
        os.unlink(made)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
