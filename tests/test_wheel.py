"""The wheel, built and installed away from the sources: what users get is what is tested."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEPENDENCIES = Path(sysconfig.get_path("purelib"))

SAVE_A_MODEL = """
import kcompile
from kcompile.layers import Dense
model = kcompile.Sequential([kcompile.Input((6,)), Dense(5, activation="relu"), Dense(3, activation="softmax")])
model.save("model.keras")
"""

PREDICT = """
import sys
import numpy as np
import kcompile
x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)
y = kcompile.load(sys.argv[1]).predict(x)
print(kcompile.__file__)
print(*(format(value, ".4f") for value in y.ravel()))
"""


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel, and a folder to work in that is not the repository."""

    folder: Path
    environment: Path

    def run(self, *command: str | Path) -> str:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        path = f"{self.environment / 'bin'}{os.pathsep}{clean['PATH']}"
        done = subprocess.run(command, cwd=self.folder, env={**clean, "PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str, *arguments: str) -> str:
        return self.run(self.environment / "bin" / "python", "-c", code, *arguments)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def installed(folder: Path, wheel: Path, dependencies: Path) -> Installed:
    """A fresh environment with the wheel, where ``dependencies`` come after it on the path."""
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(f"{dependencies}\n")
    (folder / "work").mkdir()
    return Installed(folder / "work", environment)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    """The wheel with every dependency and extra, and a model to compile."""
    machine = installed(tmp_path_factory.mktemp("complete"), wheel, DEPENDENCIES)
    machine.python(SAVE_A_MODEL)
    return machine


def test_the_wheel_holds_the_package_and_its_licence_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"kcompile", f"kcompile-{version('kcompile')}.dist-info"}
    assert "kcompile/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_the_c_files_that_a_bundle_links(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kcompile").rglob("*.[ch]")}
    assert sources <= names


def test_the_command_tells_its_version(complete: Installed) -> None:
    assert version("kcompile") in complete.run("kcompile", "--version")


@pytest.mark.parametrize(("target", "artifact"), [("onnx", "model.onnx"), ("tvm", "model.kcb")])
def test_the_command_compiles_a_model_that_the_runtime_loads(complete: Installed, target: str, artifact: str) -> None:
    complete.run("kcompile", "model.keras", "--target", target, "-o", artifact)
    origin, probabilities = complete.python(PREDICT, artifact).splitlines()
    _, expected = complete.python(PREDICT, "model.keras").splitlines()
    assert Path(origin).is_relative_to(complete.environment)
    assert floats(probabilities) == pytest.approx(floats(expected), abs=2e-4)


def floats(line: str) -> list[float]:
    return [float(word) for word in line.split()]


def test_a_deployed_machine_needs_numpy_alone(complete: Installed, wheel: Path, tmp_path: Path) -> None:
    complete.run("kcompile", "model.keras", "--target", "tvm", "-o", "deployed.kcb")
    expected = complete.python(PREDICT, "deployed.kcb").splitlines()[1]

    numpy_alone = tmp_path / "numpy alone"
    numpy_alone.mkdir()
    for part in ("numpy", "numpy.libs"):
        if (DEPENDENCIES / part).exists():
            (numpy_alone / part).symlink_to(DEPENDENCIES / part)
    machine = installed(tmp_path, wheel, numpy_alone)
    assert machine.python(PREDICT, str(complete.folder / "deployed.kcb")).splitlines()[1] == expected
