"""What was measured on this machine, remembered in JSON files of the folder that ``KCOMPILE_CACHE`` names.

By default that is ``~/.cache/kcompile``.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kcompile.codegen.bundle import replacing
from kcompile.errors import ArtifactError

_PACKAGES = ("kcompile", "numpy", "apache-tvm", "onnxruntime")


class Notebook:
    """Entries by key, in the file ``<name>.json``, of which the latest `most` are kept."""

    def __init__(self, name: str, most: int = 1000) -> None:
        self._name = name
        self._most = most

    def read(self) -> dict[str, Any]:
        """All entries; none where the file is missing or damaged."""
        try:
            content = json.loads(self._file().read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def add(self, entries: Mapping[str, Any]) -> None:
        """Add entries; where the folder may not be written, measuring again is all that it costs."""
        kept = dict(list({**self.read(), **entries}.items())[-self._most :])
        try:
            self._file().parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._file()) as file:
                file.write(json.dumps(kept, indent=1).encode())
        except (OSError, ArtifactError):
            return

    def _file(self) -> Path:
        return Path(os.environ.get("KCOMPILE_CACHE") or Path.home() / ".cache" / "kcompile") / f"{self._name}.json"


def key_of(*facts: object) -> str:
    """The key of what is measured by `facts`, this machine and the versions of all that makes code."""
    here = [platform.machine(), _cpu(), *(f"{name} {_version(name)}" for name in _PACKAGES)]
    return hashlib.sha256("\0".join([*map(str, facts), *here]).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    """The CPU's name and its number, as Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return f"{next((line for line in lines if line.startswith(('model name', 'CPU part'))), '')} x {os.cpu_count()}"
