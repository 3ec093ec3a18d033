"""How NumPy's matrix products run: on how many threads, and with which vectors."""

import ctypes
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

_CHOICE = "OPENBLAS_CORETYPE"


@contextmanager
def one_thread_products() -> Generator[None]:
    """Matrix products on the calling thread alone: those of a part have a core each already.

    Saying so takes the libraries 10 µs; one that stands inside another is free.
    """
    if _limited.get():
        yield
        return
    token = _limited.set(True)
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        _limited.reset(token)


_limited = ContextVar("_limited", default=False)


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def use_wide_vectors() -> None:
    """Let OpenBLAS use vectors of 512 bits on CPUs that it does not know to have them.

    NumPy's wheels carry OpenBLAS's code for five CPUs (numpy pull request 27147), and OpenBLAS chooses by vendor and
    model: AMD's since Zen 4, which have AVX-512, get Haswell's code, at half their speed. Nobody may be multiplying
    while it chooses anew, so a process that has other threads keeps what it has, as does a user who has chosen.
    """
    alone = len(sys._current_frames()) == 1  # pyright: ignore[reportPrivateUsage]  (documented all the same)
    if os.environ.get(_CHOICE) or not alone or not _has_avx512():
        return
    for info in _libraries().info():
        if info["internal_api"] == "openblas" and info.get("architecture") in ("Haswell", "Zen"):
            _choose(info["filepath"], "SkylakeX")


def _has_avx512() -> bool:
    """Whether CPU and operating system have it; up to NumPy 2.3 its name was that of the CPU."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return not {"X86_V4", "AVX512_SKX"}.isdisjoint(found)


def _choose(library: str, core: str) -> None:
    """Have OpenBLAS begin again with the code for a CPU, where it can; ``driver/others/dynamic.c`` of OpenBLAS."""
    # No other thread of Python runs during calls of this kind.
    blas = ctypes.PyDLL(library)
    needed = ("gotoblas_dynamic_quit", "gotoblas_dynamic_init", f"gotoblas_{core.upper()}")
    if not all(hasattr(blas, name) for name in needed):
        return
    os.environ[_CHOICE] = core
    try:
        blas.gotoblas_dynamic_quit()
        blas.gotoblas_dynamic_init()
    finally:
        del os.environ[_CHOICE]
