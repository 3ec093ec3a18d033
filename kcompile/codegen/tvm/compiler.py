"""The one door to the TVM package, which ships no types and is an optional dependency."""

import importlib
from typing import Any

from kcompile.errors import MissingExtra

try:
    tvm: Any = importlib.import_module("tvm")
except ImportError as error:
    raise MissingExtra('target "tvm" needs apache-tvm. Install it with: pip install "kcompile[tvm]"') from error

tirx: Any = tvm.tirx
