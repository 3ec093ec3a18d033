"""How NumPy's matrix products run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import ctypes, sys, threading
import numpy as np
from threadpoolctl import ThreadpoolController
from kcompile.ir.products import use_wide_vectors

def core():
    for info in ThreadpoolController().info():
        if info["internal_api"] == "openblas":
            blas = ctypes.CDLL(info["filepath"])
            names = ("scipy_openblas_get_corename64_", "openblas_get_corename")
            name = next(getattr(blas, n) for n in names if hasattr(blas, n))
            name.restype = ctypes.c_char_p
            return name().decode()
    return "another"

rng = np.random.default_rng(0)
x, y = rng.normal(size=(2, 300, 300)).astype(np.float32)
before, first = core(), x @ y
stop = threading.Event()
if "beside" in sys.argv:
    threading.Thread(target=stop.wait).start()
use_wide_vectors()
stop.set()
exact = x.astype(np.float64) @ y
print(before, core(), bool(abs(x @ y - exact).max() < 1e-3), bool(abs(first - exact).max() < 1e-3))
"""


def _cores(*arguments: str, choice: str = "") -> tuple[str, str]:
    environment = {**os.environ, "OPENBLAS_CORETYPE": choice}
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    before, after, *agree = done.stdout.split()
    assert agree == ["True", "True"]
    return before, after


def _is_underrated(core: str) -> bool:
    """Whether the CPU has AVX-512, and OpenBLAS takes it for one that has not."""
    described = Path("/proc/cpuinfo")
    flags = described.read_text().split() if described.exists() else []
    return core in ("Haswell", "Zen") and {"avx512f", "avx512bw", "avx512vl"} <= set(flags)


@pytest.fixture(scope="module")
def native_core() -> str:
    """The CPU whose code NumPy's OpenBLAS chooses by itself."""
    return _cores("beside")[0]


def test_products_use_the_widest_vectors_of_the_cpu(native_core: str) -> None:
    assert _cores() == (native_core, "SkylakeX" if _is_underrated(native_core) else native_core)


def test_products_stay_as_they_are_beside_other_threads(native_core: str) -> None:
    assert _cores("beside") == (native_core, native_core)


@pytest.mark.parametrize("choice", ["Haswell", "Sandybridge"])
def test_the_users_choice_of_a_cpu_stays(native_core: str, choice: str) -> None:
    if native_core not in ("Haswell", "Zen", "SkylakeX"):
        choice = native_core
    assert _cores(choice=choice) == (choice, choice)
