"""Profiles: what they count, and that each stage is timed by itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ArtifactError, InputError
from kcompile.runtime.profile import profile, typical
from tests.runtime.harness import long_graph, make_bundle, with_manifest

FEEDS = {"x": np.linspace(-1, 1, 30, dtype=np.float32).reshape(3, 10, 1)}


def test_the_middle_half_is_averaged() -> None:
    assert typical([1000, 4, 1, 2, 0, 3, 900, 2]) == 2.75


def test_stages_belong_to_layers_and_count_their_work(native: Path) -> None:
    found = profile(native, FEEDS, 0.02)
    assert [layer.layer for layer in found.layers] == ["pool", "dense", "softmax"]
    assert [layer.kinds for layer in found.layers] == [("pool",), ("matrix",), ("softmax",)]
    assert [layer.macs for layer in found.layers] == [0, 3 * 5 * 4, 0]
    pool, dense, softmax = found.layers
    assert (pool.bytes, softmax.bytes) == (3 * (10 + 5) * 4, 3 * (4 + 4) * 4)
    assert dense.bytes >= 3 * (5 + 4) * 4 + 5 * 4 * 2  # weights are packed, and in float16 where that is exact
    assert pool.flops is None
    assert dense.flops == pytest.approx(2 * 60 / dense.seconds)
    assert found.peak is not None
    assert dense.flops is not None
    assert dense.peak_share == pytest.approx(dense.flops / found.peak)
    assert (found.engine, found.extents) == ("native", {"N": 3})


def test_equal_layers_take_equal_parts_of_the_time(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "long.kcb", long_graph(), "tvm")
    found = profile(path, {"x": np.ones((512, 128), np.float32)}, 0.1)
    assert [layer.layer for layer in found.layers] == [f"layer_{i}" for i in range(6)]
    assert all(1 / 15 < layer.share < 1 / 3 for layer in found.layers), found.layers
    assert found.total.seconds == pytest.approx(found.seconds, rel=0.5)
    assert {layer.macs for layer in found.layers} == {512 * 128 * 128}
    assert found.total.peak_share is not None
    assert 0.02 < found.total.peak_share < 1.1


def test_onnx_nodes_belong_to_layers_and_count_their_work(onnx: Path) -> None:
    found = profile(onnx, FEEDS, 0.02)
    macs = {layer.layer: layer.macs for layer in found.layers}
    assert macs["dense"] == 3 * 5 * 4
    assert macs["softmax"] == 0
    assert found.passes >= 9
    assert found.peak is None
    assert found.total.peak_share is None


@pytest.mark.parametrize("target", ["native", "onnx"])
def test_a_profile_needs_rows(target: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(target)
    with pytest.raises(InputError, match="a profile needs at least one row"):
        profile(path, {"x": np.zeros((0, 10, 1), np.float32)}, 0.01)


def test_a_bundle_without_stages_is_to_be_compiled_again(native: Path, tmp_path: Path) -> None:
    path = with_manifest(native, tmp_path / "b.kcb", lambda m: m["program"].pop("stages"))
    with pytest.raises(ArtifactError, match=r"b\.kcb was made by an earlier version of kcompile: compile it again"):
        profile(path, FEEDS, 0.01)


@pytest.mark.parametrize(("key", "value"), [("macs", "Q"), ("bytes", -1), ("layer", 3), ("family", None)])
def test_a_damaged_stage_is_refused(native: Path, tmp_path: Path, key: str, value: object) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["program"]["stages"][0][key] = value

    with pytest.raises(ArtifactError):
        profile(with_manifest(native, tmp_path / "b.kcb", change), FEEDS, 0.01)
