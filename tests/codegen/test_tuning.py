"""`tune` measures what kernels may do otherwise, keeps what is faster and right, and remembers it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen import tuning_search
from kcompile.codegen.backends import backend
from kcompile.codegen.tuning_search import Timed
from kcompile.codegen.tvm.kernels import convolution
from kcompile.codegen.tvm.plan import Plan
from kcompile.codegen.tvm.variants import ANALYTIC, Variant
from kcompile.errors import TargetError
from kcompile.runtime.bundle import open_bundle

# What a group of nodes takes, by its variant.
Costs = Mapping[str, float]
SetCosts = Callable[..., None]

CONV_FASTER = {"": 10.0, "other sums": 8.0, "loops exchanged": 10.1}
ALL_FASTER = {"": 10.0, "other sums": 8.0, "loops exchanged": 9.0}


@pytest.fixture(scope="module")
def model() -> kcompile.Model:
    kcompile.utils.set_random_seed(0)
    hidden = [layers.Conv2D(32, 3, activation="relu", name="conv"), layers.Flatten()]
    return kcompile.Sequential([kcompile.Input((10, 10, 16), name="x"), *hidden, layers.Dense(20, name="dense")])


@pytest.fixture(autouse=True)
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KCOMPILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning_search, "ALTERNATIVES", (Variant(sums=True), Variant(turned=True)))
    return tmp_path / "cache" / "tune.json"


@pytest.fixture
def set_costs(monkeypatch: pytest.MonkeyPatch) -> SetCosts:
    """Sets what groups take in the place of this machine's times, and what calls with choices take beside them."""

    def set_costs(costs: Costs, beside: float = 0.0) -> None:
        def turn(timed: Timed, shift: int) -> tuple[dict[int, float], float]:
            groups = {c.number: costs[str(timed.variants.get(c.number, ANALYTIC))] for c in timed.compiled.calls}
            return groups, sum(groups.values()) + (beside if timed.variants else 0.0)

        monkeypatch.setattr(Timed, "turn", turn)

    return set_costs


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, measuring fails."""

    def fail(timed: Timed, shift: int) -> None:
        raise AssertionError(f"measured {timed.variants}")

    return lambda: monkeypatch.setattr(Timed, "turn", fail)


def made(model: kcompile.Model, path: Path, **options: Any) -> kcompile.Artifact:
    return kcompile.compile(model, "tvm", path, tune=True, **options)


def families(artifact: kcompile.Artifact) -> dict[str, str]:
    stages = open_bundle(artifact.path).manifest["program"]["stages"]
    return {stage["layer"]: stage["family"] + ("*" if stage.get("choice") else "") for stage in stages}


def check(model: kcompile.Model, artifact: kcompile.Artifact) -> None:
    x = np.random.default_rng(0).random((5, 10, 10, 16), np.float32)
    for threads in (1, 2):
        session = kcompile.load(artifact.path, threads)
        for rows in (1, 3, 4, 5):
            np.testing.assert_allclose(session.predict(x[:rows]), model.predict(x[:rows]), rtol=1e-4, atol=1e-5)


def test_what_is_faster_by_more_than_noise_is_kept_named_and_remembered(
    model: kcompile.Model, set_costs: SetCosts, unmeasured: Callable[[], None], tmp_path: Path, notebook: Path
) -> None:
    set_costs(CONV_FASTER)
    stages: list[str] = []
    found = made(model, tmp_path / "m.kcb", on_stage=stages.append)
    assert families(found) == {"conv": "conv*", "dense": "matrix"}
    law = "1 of 2 kernels take less time than as the models of costs choose them"
    assert found.choice == f"{law}: conv 0.80 (other sums)"
    assert open_bundle(found.path).manifest["notes"]["kcompile.tune"] == found.choice
    assert [stage for stage in stages if "tuning" in stage] == ["tuning, 1 of at most 1", "tuning, what was faster"]
    check(model, found)
    assert notebook.exists()
    unmeasured()
    assert made(model, tmp_path / "again.kcb").path.read_bytes() == found.path.read_bytes()
    other = kcompile.Sequential([kcompile.Input((10, 10, 16)), layers.Conv2D(32, 3, activation="relu", name="same")])
    assert families(made(other, tmp_path / "other.kcb")) == {"same": "conv*"}


def test_code_for_numbers_of_rows_is_tuned_for_them(model: kcompile.Model, set_costs: SetCosts, tmp_path: Path) -> None:
    set_costs(ALL_FASTER)
    artifact = made(model, tmp_path / "m.kcb", batch=(3, 4))
    assert families(artifact) == {"conv": "conv*", "dense": "matrix*"}
    own = open_bundle(artifact.path).manifest["program"]["batches"]["4"]["program"]["stages"]
    assert [stage.get("choice") for stage in own] == ["other sums", "loops exchanged"]
    check(model, artifact)


@pytest.mark.parametrize(("costs", "beside"), [(CONV_FASTER, 2.0), ({**CONV_FASTER, "other sums": 9.8}, 0.0)])
def test_what_gains_nothing_in_a_whole_call_or_no_more_than_noise_is_dropped(
    model: kcompile.Model, set_costs: SetCosts, tmp_path: Path, costs: Costs, beside: float
) -> None:
    set_costs(costs, beside)
    artifact = made(model, tmp_path / "m.kcb")
    assert artifact.choice == "none of 2 kernels takes less time than as the models of costs choose it"
    assert families(artifact) == {"conv": "winograd", "dense": "matrix"}


def test_a_wrong_alternative_is_never_kept(
    model: kcompile.Model, set_costs: SetCosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit = convolution.emit_conv

    def wrong(plan: Plan, x: Any, windows: Any, groups: int, weights: Any, *rest: Any, **more: Any) -> None:
        emit(plan, x, windows, groups, weights * np.float32(1.001), *rest, **more)

    monkeypatch.setattr(convolution, "emit_conv", wrong)
    set_costs(ALL_FASTER)
    artifact = made(model, tmp_path / "m.kcb")
    assert families(artifact) == {"conv": "winograd", "dense": "matrix"}
    check(model, artifact)


def test_a_damaged_notebook_means_measuring_again(
    model: kcompile.Model, set_costs: SetCosts, tmp_path: Path, notebook: Path
) -> None:
    notebook.parent.mkdir()
    notebook.write_text("[1")
    set_costs(CONV_FASTER)
    made(model, tmp_path / "m.kcb")
    content = notebook.read_text()
    notebook.write_text(content.replace("0.8", '"0.8"'))
    assert families(made(model, tmp_path / "m.kcb")) == {"conv": "conv*", "dense": "matrix"}
    assert notebook.read_text() == content


def test_an_interruption_leaves_nothing(
    model: kcompile.Model, tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(timed: Timed, shift: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Timed, "turn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made(model, tmp_path / "m.kcb")
    assert list(tmp_path.iterdir()) == []


def test_this_machine_is_measured_within_the_time(
    model: kcompile.Model, tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_search, "_SHIFTS", (0, 64))
    assert "of 2 kernels" in made(model, tmp_path / "m.kcb").choice
    measured: list[Timed] = []
    monkeypatch.setattr(Timed, "turn", lambda timed, shift: measured.append(timed) or ({}, 1.0))
    monkeypatch.setattr("kcompile.codegen.tuning.SECONDS", -1.0)
    notebook.unlink()
    made(model, tmp_path / "m.kcb")
    assert not measured


def test_what_is_only_looked_at_is_not_tuned(model: kcompile.Model, unmeasured: Callable[[], None]) -> None:
    unmeasured()
    graph = model.trace()
    assert backend("tvm", tune=True).session(graph).run({"x": np.zeros((1, 10, 10, 16), np.float32)})


@pytest.mark.parametrize("target", ["onnx", "auto", "c", "tvm:cortex-m7"])
def test_targets_that_are_not_measured_here_say_so(target: str, model: kcompile.Model, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"Received: `tune`\. Kernels are tuned by measuring them on this machine"):
        kcompile.compile(model, target, tmp_path / "m.kcb", tune=True)


def test_code_for_several_cpus_is_refused(model: kcompile.Model, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="`tune` measures the code for one CPU"):
        made(model, tmp_path / "m.kcb", cpu="all")
