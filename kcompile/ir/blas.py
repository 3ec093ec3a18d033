"""What NumPy's BLAS computes in one pass, and NumPy in several."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from kcompile.ir.types import Array

# The names of the C functions for a kind of numbers, in NumPy's wheels and in libraries of systems.
_NAMES = ("scipy_cblas_{}axpby64_", "scipy_cblas_{}axpby", "cblas_{}axpby64_", "cblas_{}axpby")
# By the letters of NumPy's dtypes.
_KINDS = {"f": ("s", ctypes.c_float), "d": ("d", ctypes.c_double)}
# Sizes are of 32 or 64 bits, which a register holds alike.
_SIZE = ctypes.c_int64


@cache
def libraries() -> ThreadpoolController:
    """The libraries that this process multiplies with."""
    return ThreadpoolController()


@cache
def _axpby(dtype: str) -> Callable[..., None] | None:
    """``y <- a * x + b * y``, for (n, a, address of x, step, b, address of y, step); None where no library has it."""
    kind, number = _KINDS.get(dtype, ("", None))
    files = [info["filepath"] for info in libraries().info() if info["user_api"] == "blas"] if number else []
    for library in map(ctypes.CDLL, files):
        for name in _NAMES:
            function: Any = getattr(library, name.format(kind), None)
            if function is not None:
                vector = (ctypes.c_void_p, _SIZE)
                function.argtypes, function.restype = (_SIZE, number, *vector, number, *vector), None
                return function
    return None


def scaled_sum(x: Array, a: Any, y: Array, b: Any, out: Array) -> None:
    """Write ``a * x + b * y`` to `out`, which may be `x` or `y`: one pass, where it is one of them."""
    bound_scaled_sum(x, y, out)(a, b)


def bound_scaled_sum(x: Array, y: Array, out: Array) -> Callable[[Any, Any], None]:
    """What writes ``a * x + b * y`` to `out` for numbers a and b, while the arrays live."""
    whole = out.size and x.flags.c_contiguous and y.flags.c_contiguous and out.flags.c_contiguous
    add = _axpby(x.dtype.char) if whole else None
    first, second, result = (_address(array) if add else 0 for array in (x, y, out))
    if add is None or result not in (first, second):
        return lambda a, b: _scaled_sum(x, a, y, b, out)
    size, swapped = out.size, result == first

    def write(a: Any, b: Any) -> None:
        if not (a and b):  # BLAS takes nothing times 0 for 0, what is no number too
            _scaled_sum(x, a, y, b, out)
        elif swapped:
            add(size, b, second, 1, a, result, 1)
        else:
            add(size, a, first, 1, b, result, 1)

    return write


def _scaled_sum(x: Array, a: Any, y: Array, b: Any, out: Array) -> None:
    scaled = np.multiply(x, a)
    np.add(np.multiply(y, b, out=out), scaled, out=out)


def _address(array: Array) -> int:
    """Where the first element stands; `ctypes.data` of an array takes four times as long."""
    buffer: Any = array
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if array.flags.writeable else array.ctypes.data
