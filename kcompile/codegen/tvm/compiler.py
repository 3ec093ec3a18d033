"""The one door to the TVM package, which ships no types and is an optional dependency."""

import importlib
from typing import Any

from kcompile.errors import MissingExtra

try:
    tvm: Any = importlib.import_module("tvm")
except ImportError as error:
    raise MissingExtra('target "tvm" needs apache-tvm. Install it with: pip install "kcompile[tvm]"') from error

tirx: Any = tvm.tirx


def load_text(path: str) -> Any:
    """The module whose LLVM text is in a file."""
    return tvm.get_global_func("ffi.Module.load_from_file.ll")(path, "ll")
