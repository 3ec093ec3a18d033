"""What an import loads, seen from a fresh interpreter: import-linter reads the sources, this watches what happens."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COMPILERS_AND_FRAMEWORKS = ["tvm", "onnx", "onnxruntime", "h5py", "click", "keras", "tensorflow", "jax", "torch"]

REPORT = """
import sys
before = set(sys.modules)
import {module}
roots = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(roots - set(sys.stdlib_module_names)))
"""


def roots_loaded_by(module: str) -> set[str]:
    """Top-level modules outside the standard library that `import module` adds to a fresh interpreter."""
    command = [sys.executable, "-c", REPORT.format(module=module)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["kcompile", "kcompile.runtime", "kcompile.ir"])
def test_import_loads_numpy_and_no_other_third_party(module: str) -> None:
    loaded = roots_loaded_by(module)
    assert loaded.isdisjoint(COMPILERS_AND_FRAMEWORKS)
    assert {root for root in loaded if not root.startswith(("_cython", "cython"))} <= {"kcompile", "numpy"}


@pytest.mark.parametrize("module", ["kcompile.frontend", "kcompile.cli"])
def test_import_loads_no_backend(module: str) -> None:
    backends = set(COMPILERS_AND_FRAMEWORKS) - {"h5py", "click"}
    assert roots_loaded_by(module).isdisjoint(backends)


def test_loading_what_is_compiled_reads_neither_the_ops_nor_the_compiler() -> None:
    command = (
        "import sys, kcompile; kcompile.load; print(*(name for name in sys.modules if name.startswith('kcompile.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    rooms = {".".join(name.split(".")[:2]) for name in loaded.stdout.split()}
    assert rooms == {"kcompile.api", "kcompile.errors", "kcompile.ir", "kcompile.runtime"}
    assert {name for name in loaded.stdout.split() if name.startswith("kcompile.ir.")} == {
        "kcompile.ir.dims",
        "kcompile.ir.types",
    }


def test_the_report_sees_what_a_module_loads() -> None:
    assert "h5py" in roots_loaded_by("h5py")
