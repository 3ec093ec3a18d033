"""Bundles with code of their own for certain numbers of rows."""

import hashlib
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.errors import ArtifactError, InputError, TargetError, VerificationError
from kcompile.runtime.batches import BatchedSession
from kcompile.runtime.bundle import open_bundle
from kcompile.runtime.load import native_program
from kcompile.runtime.native import NativeProgram, NativeSession
from kcompile.runtime.profile import profile
from tests.runtime.harness import make_bundle, members, packed, small_graph, with_manifest


@pytest.fixture(scope="module")
def model() -> kcompile.Model:
    kcompile.utils.set_random_seed(0)
    hidden = [layers.Conv2D(8, 3, activation="relu"), layers.Flatten()]
    return kcompile.Sequential([kcompile.Input((8, 8, 3), name="x"), *hidden, layers.Dense(5, activation="softmax")])


@pytest.fixture(scope="module")
def made(model: kcompile.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kcompile.compile(model, "tvm", tmp_path_factory.mktemp("batches") / "m.kcb", batch=(2, 8)).path


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[NativeProgram, NativeProgram, Any]:
    """Two programs of one signature that compute different numbers, and the signature."""
    folder = tmp_path_factory.mktemp("halves")
    graphs = (small_graph(), small_graph(np.linspace(3, -2, 20, dtype=np.float32).reshape(5, 4)))
    bundles = [open_bundle(make_bundle(folder / f"{i}.kcb", graph, "tvm")) for i, graph in enumerate(graphs)]
    one, other = (NativeProgram(b.member("library"), b.member("weights"), ("N",), "1000*N") for b in bundles)
    return one, other, bundles[0].signature


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_with_as_many_rows_run_the_code_for_them_and_all_others_the_general_code(
    halves: tuple[NativeProgram, NativeProgram, Any], threads: int
) -> None:
    one, other, signature = halves
    general, special = (NativeSession(signature, p, threads) for p in (one, other))
    both = BatchedSession(signature, one, {3: other}, threads)
    x = np.random.default_rng(0).random((9, 10, 1), np.float32)
    for _ in range(2):  # the second time by the shorter way
        for rows in range(6):
            found = both.run({"x": x[:rows]})["probabilities"]
            expected = (special if rows == 3 else general).run({"x": x[:rows]})["probabilities"]
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(both.predict(x[:rows]), expected)
    assert not np.allclose(general.predict(x[:3]), special.predict(x[:3]), atol=1e-2)
    assert both.batches == (3,)


def test_predict_splits_rows_before_it_chooses(halves: tuple[NativeProgram, NativeProgram, Any]) -> None:
    one, other, signature = halves
    x = np.random.default_rng(0).random((8, 10, 1), np.float32)
    found = BatchedSession(signature, one, {3: other}, 1).predict(x, batch_size=3)
    general, special = (NativeSession(signature, p, 1) for p in (one, other))
    expected = np.concatenate([special.predict(x[:6]), general.predict(x[6:])])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_code_for_rows_takes_no_others_whose_results_it_would_write_beyond(made: Path) -> None:
    bundle = open_bundle(made)
    own = native_program(bundle.for_rows(8))
    assert own.symbols == ()
    with pytest.raises(ArtifactError, match="its program does not take N"):
        NativeSession(bundle.signature, own, 1)
    session = NativeSession(bundle.signature, replace(own, rows=8), 1)
    x = np.zeros((9, 8, 8, 3), np.float32)
    session.predict(x[:8])
    for rows in (1, 9):
        with pytest.raises(InputError, match="is for 8 rows"):
            session.predict(x[:rows])


@pytest.mark.parametrize("threads", [1, 2])
def test_every_number_of_rows_gives_what_the_model_gives(model: kcompile.Model, made: Path, threads: int) -> None:
    session = kcompile.load(made, threads)
    x = np.random.default_rng(1).random((17, 8, 8, 3), np.float32)
    for rows in (1, 2, 3, 8, 9, 17):
        np.testing.assert_allclose(session.predict(x[:rows]), model.predict(x[:rows]), rtol=1e-5, atol=1e-6)
    assert session.batches == (2, 8)
    kcompile.verify(made)
    kcompile.verify(made, against=model)


def test_code_for_rows_is_verified_too(model: kcompile.Model, made: Path, tmp_path: Path) -> None:
    def point_elsewhere(manifest: dict[str, Any]) -> None:
        record = {"bytes": len(wrong), "crc32": zlib.crc32(wrong), "sha256": hashlib.sha256(wrong).hexdigest()}
        manifest["members"]["other.bin"] = record
        manifest["program"]["batches"]["8"]["artifact"]["weights"] = "other.bin"

    own = open_bundle(made).for_rows(8).member("weights")
    wrong = (-np.frombuffer(own, np.float32)).tobytes()
    path = with_manifest(made, tmp_path / "w.kcb", point_elsewhere)
    packed(path, {**members(path), "other.bin": wrong})
    kcompile.verify(path)  # its two recorded rows run other code
    with pytest.raises(VerificationError, match="disagrees with the reference"):
        kcompile.verify(path, against=model)


def test_weights_that_are_equal_are_stored_once(made: Path) -> None:
    held = [content for name, content in members(made).items() if name.endswith("weights.bin")]
    assert len(held) == len(set(held))


def test_a_profile_is_of_the_code_that_runs(made: Path) -> None:
    programs = open_bundle(made).manifest["program"]
    x = np.zeros((8, 8, 8, 3), np.float32)
    (name,) = kcompile.load(made).inputs
    found = profile(made, {name: x}, 0.01)
    stages = programs["batches"]["8"]["program"]["stages"]
    assert [(s.name, s.macs, s.bytes) for s in found.stages] == [(s["function"], s["macs"], s["bytes"]) for s in stages]


def test_the_same_model_gives_the_same_bytes(model: kcompile.Model, made: Path, tmp_path: Path) -> None:
    again = kcompile.compile(model, "tvm", tmp_path / "m.kcb", batch=[8, 2, 8])
    assert again.path.read_bytes() == made.read_bytes()


@pytest.mark.parametrize("batch", [0, (1, -1), (1.5,), ("1",), True])
def test_numbers_that_are_no_rows_are_refused(model: kcompile.Model, batch: Any) -> None:
    with pytest.raises(TargetError, match="`batch` must be numbers of rows from 1 to 65536"):
        kcompile.compile(model, "tvm", batch=batch)


def test_a_model_of_fixed_rows_is_refused(model: kcompile.Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`batch` needs rows that are open"):
        kcompile.compile(model, "tvm", tmp_path / "m.kcb", batch=8, shapes={"x": (4, 8, 8, 3)})


@pytest.mark.parametrize("target", ["onnx", "tvm:cortex-m7"])
def test_targets_without_the_option_say_so(model: kcompile.Model, target: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"Received: `batch`"):
        kcompile.compile(model, target, tmp_path / "m.kcb", batch=8)


@pytest.mark.parametrize("batches", [[], {"x": {}}, {"0": {}}, {"3": None}, {"3": {}}])
def test_damaged_records_are_refused(made: Path, tmp_path: Path, batches: Any) -> None:
    path = with_manifest(made, tmp_path / "b.kcb", lambda manifest: manifest["program"].update(batches=batches))
    with pytest.raises(ArtifactError):
        kcompile.load(path)
