"""One bundle for several CPUs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen.tvm.targets import host, host_machines
from kcompile.errors import ArtifactError
from kcompile.runtime import bundle as bundle_module
from kcompile.runtime.bundle import open_bundle
from tests.runtime.harness import with_manifest

LEVELS = [machine.name for machine in host_machines("all")]
several = pytest.mark.skipif(len(LEVELS) < 2, reason="this CPU has the instructions of the least of its kind alone")


@pytest.fixture(scope="module")
def model() -> kcompile.Model:
    kcompile.utils.set_random_seed(0)
    hidden = [layers.Conv2D(8, 3, activation="relu"), layers.Flatten()]
    return kcompile.Sequential([kcompile.Input((8, 8, 3)), *hidden, layers.Dense(5, activation="softmax")])


@pytest.fixture(scope="module")
def made(model: kcompile.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kcompile.compile(model, "tvm", tmp_path_factory.mktemp("builds") / "all.kcb", cpu="all").path


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the CPU seem to lack instructions."""
    here = bundle_module._cpu_flags()  # pyright: ignore[reportPrivateUsage]
    return lambda *flags: monkeypatch.setattr(bundle_module, "_cpu_flags", lambda: here - set(flags))


@several
@pytest.mark.parametrize("level", LEVELS)
def test_loading_takes_the_best_build_that_the_cpu_can_run(
    level: str, model: kcompile.Model, made: Path, without: Callable[..., None]
) -> None:
    lacking = {"x86-64-v4": [], "x86-64-v3": ["avx512f"], "x86-64-v2": ["avx512f", "avx2"]}[level]
    without(*lacking)
    assert open_bundle(made).manifest["target"]["name"] == level
    x = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    np.testing.assert_allclose(kcompile.load(made).predict(x), model.predict(x), rtol=1e-5, atol=1e-6)


@several
def test_a_cpu_below_all_builds_is_refused(made: Path, without: Callable[..., None]) -> None:
    without("avx512f", "avx2", "sse4_2")
    with pytest.raises(ArtifactError, match=r"is for x86-64-v2\. Received: a CPU without sse4_2"):
        kcompile.load(made)


def test_the_manifest_names_the_builds_the_best_first(made: Path) -> None:
    assert open_bundle(made).manifest["builds"] == LEVELS


def test_code_for_any_cpu_is_that_of_the_least(model: kcompile.Model, tmp_path: Path) -> None:
    found = kcompile.compile(model, "tvm", tmp_path / "any.kcb", cpu="baseline").path
    assert open_bundle(found).manifest["target"]["name"] == LEVELS[-1]
    native = kcompile.compile(model, "tvm", tmp_path / "native.kcb", cpu="native").path
    assert native.read_bytes() == kcompile.compile(model, "tvm", tmp_path / "default.kcb").path.read_bytes()
    assert open_bundle(native).manifest["target"]["name"] == host().name


@several
@pytest.mark.parametrize("builds", ["v4", [3], [{"target": None}], [{}]])
def test_damaged_records_of_builds_are_refused(made: Path, tmp_path: Path, builds: Any) -> None:
    with pytest.raises(ArtifactError, match="is damaged: in its manifest"):
        kcompile.load(with_manifest(made, tmp_path / "b.kcb", lambda manifest: manifest.update(better=builds)))


@several
def test_a_build_without_its_parts_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is damaged: in its manifest"):
        kcompile.load(with_manifest(made, tmp_path / "b.kcb", lambda manifest: manifest["better"][0].pop("memory")))
