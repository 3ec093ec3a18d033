"""`tune` measures what kernels may do otherwise, keeps what is faster, and remembers it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen import tuning
from kcompile.codegen.tvm.variants import ALTERNATIVES, Variant
from kcompile.errors import TargetError
from kcompile.runtime.bundle import open_bundle

TRIED = (Variant(tile=1), Variant(direct=True))


@pytest.fixture(scope="module")
def model() -> kcompile.Model:
    kcompile.utils.set_random_seed(0)
    hidden = [layers.Conv2D(32, 3, activation="relu"), layers.Conv2D(48, 3), layers.Flatten()]
    return kcompile.Sequential([kcompile.Input((12, 12, 16), name="x"), *hidden, layers.Dense(40)])


@pytest.fixture(autouse=True)
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KCOMPILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "ALTERNATIVES", TRIED)
    return tmp_path / "cache" / "tune.json"


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[list[list[float]]]:
    """What measuring gives, call by call, in the place of this machine's times: those of each program's stages."""
    given: list[list[list[float]]] = []
    monkeypatch.setattr(tuning, "_measured", lambda clocks: [np.array(own) for own in given.pop(0)])
    return given


def made(model: kcompile.Model, folder: Path, **options: Any) -> kcompile.Artifact:
    return kcompile.compile(model, "tvm", folder / "m.kcb", tune=True, **options)


# Two convolutions, a dense layer, nothing, a call: by the models of costs, with other tiles, without Winograd.
STAGES = [[10, 20, 5, 1, 35], [9, 25, 5, 1, 40], [20, 10, 4.9, 1, 36]]


def test_each_kernel_takes_the_alternative_that_is_fastest_by_more_than_noise(
    model: kcompile.Model, times: list[Any], tmp_path: Path
) -> None:
    times += [STAGES, [[35e6], [24e6]]]
    artifact = made(model, tmp_path)
    assert artifact.choice == "2 of 3 stages by other choices: 24 ms instead of 35 ms"
    bundle = open_bundle(artifact.path)
    families = [stage["family"] for stage in bundle.manifest["program"]["stages"]]
    assert families == ["winograd", "conv", "matrix"]
    assert bundle.manifest["notes"]["kcompile.tune"] == artifact.choice
    x = np.random.default_rng(0).random((3, 12, 12, 16), np.float32)
    np.testing.assert_allclose(kcompile.load(artifact.path).predict(x), model.predict(x), rtol=1e-4, atol=1e-5)


def test_what_was_found_is_remembered_and_gives_the_same_bytes(
    model: kcompile.Model, times: list[Any], tmp_path: Path, notebook: Path
) -> None:
    times += [STAGES, [[35e6], [24e6]]]
    first = made(model, tmp_path)
    content = first.path.read_bytes()
    assert notebook.exists()
    again = made(model, tmp_path)  # measuring would fail now
    assert again.path.read_bytes() == content
    assert again.choice == first.choice


def test_a_damaged_notebook_means_measuring_again(
    model: kcompile.Model, times: list[Any], tmp_path: Path, notebook: Path
) -> None:
    notebook.parent.mkdir()
    notebook.write_text("[1")
    times += [[STAGES[0]] * 3]
    assert made(model, tmp_path).choice == "none of 2 alternatives is faster"


def test_a_mixture_that_is_no_faster_as_a_whole_is_dropped(
    model: kcompile.Model, times: list[Any], tmp_path: Path
) -> None:
    times += [STAGES, [[35e6], [34.9e6]]]
    artifact = made(model, tmp_path)
    assert artifact.choice.startswith("no mixture of 2 alternatives is faster")
    plain = kcompile.compile(model, "tvm", tmp_path / "plain.kcb").path
    assert open_bundle(plain).member("library") == open_bundle(artifact.path).member("library")


def test_a_mixture_that_disagrees_with_the_reference_is_dropped(
    model: kcompile.Model, times: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times += [STAGES, [[35e6], [24e6]]]
    monkeypatch.setattr(tuning, "check_graph", lambda graph, session: type("Report", (), {"agrees": False}))
    assert made(model, tmp_path).choice.startswith("no mixture")


def test_this_machine_is_measured(model: kcompile.Model, tmp_path: Path) -> None:
    assert made(model, tmp_path).choice


def test_stages_that_share_a_kernel_choose_together() -> None:
    class Call:
        def __init__(self, function: str, number: int) -> None:
            self.function, self.number = function, number

    base: Any = type("Compiled", (), {"calls": [Call("a", 0), Call("b", 1), Call("a", 3)]})
    times = {
        Variant(): np.array([10, 5, 10.0]),
        ALTERNATIVES[0]: np.array([8, 5, 13.0]),
        TRIED[1]: np.array([11, 4, 8.0]),
    }
    found: Callable[..., Any] = tuning._fastest  # pyright: ignore[reportPrivateUsage]
    assert found(base, times) == {0: TRIED[1], 1: TRIED[1], 3: TRIED[1]}


@pytest.mark.parametrize("target", ["onnx", "auto", "tvm:cortex-m7"])
def test_targets_without_the_option_say_so(target: str, model: kcompile.Model, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="Received: `tune`"):
        kcompile.compile(model, target, tmp_path / "m.kcb", tune=True)
