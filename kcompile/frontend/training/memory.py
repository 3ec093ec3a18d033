"""How the C library treats large blocks of memory."""

import ctypes
import platform
from functools import cache

# Parameters of glibc's `mallopt`, from its `malloc.h`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


@cache
def keep_memory() -> None:
    """Let the process keep large blocks that it frees.

    By default glibc gives them back to the system at once, and each new one is cleared page by page. A training step
    asks for the same sizes again and again, and would take more than twice as long. Elsewhere nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 2**30)
        library.mallopt(_TRIM_THRESHOLD, _LARGEST)
