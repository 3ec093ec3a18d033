"""Target "auto" keeps the fastest program that agrees, and remembers which."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen import auto
from kcompile.errors import TargetError
from kcompile.runtime.bundle import open_bundle


@pytest.fixture(scope="module")
def model() -> kcompile.Model:
    return kcompile.Sequential([kcompile.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(3)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KCOMPILE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "auto.json"


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What measuring gives, in the place of this machine's times."""
    given = {"tvm": 0.002, "onnx": 0.001}
    monkeypatch.setattr(auto, "_measured", lambda sessions, signature: {name: given[name] for name in sessions})
    return given


def made(model: kcompile.Model, folder: Path, **options: Any) -> kcompile.Artifact:
    return kcompile.compile(model, "auto", folder / "m.kcb", **options)


@pytest.mark.parametrize(("slow", "fast", "kind"), [("tvm", "onnx", "onnx"), ("onnx", "tvm", "native")])
def test_the_faster_program_is_kept(
    slow: str, fast: str, kind: str, model: kcompile.Model, times: dict[str, float], tmp_path: Path
) -> None:
    times.update({slow: 0.002, fast: 0.001})
    artifact = made(model, tmp_path, threads=1)
    assert artifact.choice.startswith(f"{fast} is the fastest on 1 threads: ")
    assert f"{slow} 2 ms" in artifact.choice
    bundle = open_bundle(artifact.path)
    assert bundle.kind == kind
    assert bundle.manifest["notes"]["kcompile.auto"] == artifact.choice
    x = np.ones((2, 6), np.float32)
    np.testing.assert_allclose(kcompile.load(artifact.path).predict(x), model.predict(x), rtol=1e-5, atol=1e-6)


def test_this_machine_is_measured(model: kcompile.Model, tmp_path: Path) -> None:
    choice = made(model, tmp_path).choice
    assert "tvm " in choice
    assert "onnx " in choice
    assert choice.count(" ms") == 2


def test_what_was_measured_is_remembered_by_model_and_threads(
    model: kcompile.Model, times: dict[str, float], tmp_path: Path
) -> None:
    assert made(model, tmp_path, threads=1).choice.startswith("onnx")
    times["tvm"] = 0.0001
    again = made(model, tmp_path, threads=1).choice
    assert again.startswith("onnx")
    assert again.endswith("measured before")
    assert made(model, tmp_path, threads=2).choice.startswith("tvm")
    other = kcompile.Sequential([kcompile.Input((6,)), layers.Dense(8)])
    assert made(other, tmp_path, threads=1).choice.startswith("tvm")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "null"])
def test_a_damaged_memory_is_no_memory(
    content: str, cache: Path, model: kcompile.Model, times: dict[str, float], tmp_path: Path
) -> None:
    cache.parent.mkdir()
    cache.write_text(content)
    assert made(model, tmp_path, threads=1).choice.startswith("onnx")
    assert made(model, tmp_path, threads=1).choice.endswith("measured before")


@pytest.mark.usefixtures("times")
def test_a_program_that_disagrees_is_left_out(
    model: kcompile.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = auto.check_graph

    def check(graph: Any, session: Any) -> Any:
        return type("Report", (), {"agrees": False}) if session.engine.startswith("onnx") else right(graph, session)

    monkeypatch.setattr(auto, "check_graph", check)
    choice = made(model, tmp_path, threads=1).choice
    assert choice.startswith("tvm is the fastest")
    assert choice.endswith("onnx: it disagrees with the reference")
    monkeypatch.setattr(auto, "check_graph", lambda graph, session: type("Report", (), {"agrees": False}))
    with pytest.raises(TargetError, match=r"found no engine for .*tvm: it disagrees .*onnx: it disagrees"):
        made(model, tmp_path, threads=2)


def test_it_takes_no_options_of_others(model: kcompile.Model, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="target 'auto' takes no options"):
        made(model, tmp_path, opset=17)
