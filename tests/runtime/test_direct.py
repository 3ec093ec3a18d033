"""Calls that go past ctypes, and that they give what all other calls give."""

import gc
import os
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.types import TensorType
from kcompile.runtime import load
from kcompile.runtime.native import NativeSession
from tests.runtime.harness import make_bundle, members

X = np.random.default_rng(0).standard_normal((3, 10, 1), np.float32)


def _opened(path: Path) -> NativeSession:
    session = load(path, threads=1)
    assert isinstance(session, NativeSession)
    return session


def _mixed_graph() -> Graph:
    """Three inputs and two outputs of different dtypes: ``sum = a + b``, ``picked = where(c, a, b)``."""
    b = Builder("mixed")
    x, y = (b.input(name, TensorType("float32", ("N", 4))) for name in ("a", "b"))
    chosen = b.input("c", TensorType("bool", ("N", 4)))
    total = b(ops.Add(), x, y)
    return b.build({"sum": total, "picked": b(ops.Cast("int64"), b(ops.Where(), chosen, total, y))})


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("mixed") / "mixed.kcb", _mixed_graph(), "tvm")


def _mixed_feeds(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    a, b = (rng.integers(-9, 9, (rows, 4)).astype(np.float32) for _ in range(2))
    return {"a": a, "b": b, "c": rng.random((rows, 4)) < 0.5}


def test_shapes_that_came_before_are_known_and_others_are_not(native: Path) -> None:
    session = _opened(native)
    known = session._direct.run
    assert known({"x": X}) is None
    expected = session.run({"x": X})["probabilities"]
    given = known({"x": X})
    assert given is not None
    np.testing.assert_array_equal(given["probabilities"], expected)
    doubled = np.repeat(X, 2, axis=1)[:, ::2]
    for feeds in (
        {"x": X[:2]},
        {"y": X},
        {},
        {"x": X, "y": X},
        {"x": X.astype("f8")},
        {"x": doubled},
        {"x": X.tolist()},
    ):
        assert known(feeds) is None  # type: ignore[arg-type]
    assert known({"x": X.astype(">f4")}) is None
    assert known(OrderedDict(x=X)) is None
    assert known({"x": np.ma.masked_array(X)}) is None


def test_several_arrays_of_several_dtypes_come_and_go(mixed: Path) -> None:
    session = _opened(mixed)
    for rows in (1, 2, 5) * 2:
        feeds = _mixed_feeds(rows)
        for results in (session.run(feeds), session.run(dict(reversed(feeds.items())))):
            assert list(results) == ["sum", "picked"]
            np.testing.assert_array_equal(results["sum"], feeds["a"] + feeds["b"])
            chosen = np.where(feeds["c"], feeds["a"] + feeds["b"], feeds["b"])
            np.testing.assert_array_equal(results["picked"], chosen.astype(np.int64))
    assert session._direct.run(_mixed_feeds(5)) is not None


def test_calls_that_share_the_work_among_threads_are_known_too(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kcompile.runtime.native._WORTH_THREADS", 1)
    session = load(native, threads=3)
    assert isinstance(session, NativeSession)
    expected = _opened(native).predict(X)
    session.predict(X)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: session._direct.predict(X, 32, None), range(200)):
            np.testing.assert_array_equal(result, expected)


def test_brief_calls_take_threads_that_are_awake_and_give_the_same_bits(
    native: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcompile.runtime.native._WORTH_WAITING_THREADS", 1)
    session = load(native, threads=3)
    assert isinstance(session, NativeSession)
    x = np.random.default_rng(1).standard_normal((24, 10, 1), np.float32)
    expected = _opened(native).predict(x)
    session.predict(x)
    assert len(session._free[3]) == 1  # the pool is there
    for _ in range(3000):  # close after each other, so that the threads are woken on the way
        np.testing.assert_array_equal(session._direct.predict(x, 32, None), expected)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: session._direct.predict(x, 32, None), range(200)):
            np.testing.assert_array_equal(result, expected)


def test_memory_that_kernels_cannot_take_goes_another_way(native: Path) -> None:
    session = _opened(native)
    expected = session.predict(X)
    raw = np.zeros(X.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(X.shape)
    unaligned[...] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    for x in (unaligned, read_only):
        np.testing.assert_array_equal(session.predict(x), expected)
        np.testing.assert_array_equal(session.run({"x": x})["probabilities"], expected)
    shared = np.zeros(30, np.float32)
    x, out = shared.reshape(X.shape), shared[4:16].reshape(expected.shape)
    x[...] = X
    assert session._direct.predict(x, 32, out) is None
    np.testing.assert_array_equal(session.predict(x, out=out), expected)
    read_only = expected.copy()
    read_only.flags.writeable = False
    assert session._direct.predict(X, 32, read_only) is None


def test_more_shapes_than_are_remembered_still_work(native: Path) -> None:
    session = _opened(native)
    for rows in [*range(1, 60), *range(1, 60)]:
        x = np.full((rows, 10, 1), rows / 60, np.float32)
        np.testing.assert_allclose(session.predict(x, 100), np.repeat(session.predict(x[:1]), rows, axis=0), rtol=1e-5)


def test_calls_keep_nothing_alive(native: Path) -> None:
    session = _opened(native)
    out = session.predict(X)
    names = session.signature.inputs
    before = [sys.getrefcount(item) for item in (X, out, names)]
    for _ in range(500):
        session.predict(X, out=out)
        session.run({"x": X})
        session.predict(X, 1)
        session._direct.predict(X, "many", out)
    assert [sys.getrefcount(item) for item in (X, out, names)] == before
    weights = session._weights
    held = sys.getrefcount(weights)
    del session
    gc.collect()
    assert sys.getrefcount(weights) < held - 1


def test_brief_and_long_calls_run_at_once(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for brief in (0, 10**9):
        monkeypatch.setattr("kcompile.runtime.direct._BRIEF", brief)
        session = _opened(native)
        expected = session.predict(X)
        with ThreadPoolExecutor(4) as pool:
            for result in pool.map(lambda _, s=session: s.predict(X), range(400)):
                np.testing.assert_array_equal(result, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="the loader is Linux's")
def test_a_program_without_python_can_load_the_library(native: Path, tmp_path: Path) -> None:
    library = tmp_path / "model.so"
    library.write_bytes(members(native)["model.so"])
    done = subprocess.run(
        ["/bin/true"], env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_library_of_another_version_is_called_through_ctypes(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _opened(native).predict(X)
    monkeypatch.setattr("kcompile.runtime.direct._VERSION", -1)
    session = _opened(native)
    for _ in range(3):
        np.testing.assert_array_equal(session.predict(X), expected)
    assert session._direct.run({"x": X}) is None


def test_a_library_without_the_entry_is_called_through_ctypes(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _opened(native).predict(X)

    def missing(*_: object) -> object:
        raise AttributeError("kc_python")

    monkeypatch.setattr("kcompile.runtime.direct.ctypes.PYFUNCTYPE", lambda *_: missing)
    session = _opened(native)
    for _ in range(3):
        np.testing.assert_array_equal(session.predict(X), expected)
        np.testing.assert_array_equal(session.run({"x": X})["probabilities"], expected)
    assert session._direct.run({"x": X}) is None


def test_results_that_cannot_be_written_end_the_call_alone(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[np.ndarray] = []

    def frozen(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        array = np.zeros(shape, dtype)
        array.flags.writeable = False
        made.extend([array] * 3)  # so that it outlives being let go too often
        return array

    with monkeypatch.context() as patched:
        patched.setattr(np, "empty", frozen)
        session = _opened(native)
    session.run({"x": X})
    made.clear()
    for call in (lambda: session._direct.run({"x": X}), lambda: session._direct.predict(X, 9, None)):
        with pytest.raises((BufferError, ValueError)):
            call()
    alone = [np.zeros(1)] * 3
    assert [sys.getrefcount(array) for array in made] == [sys.getrefcount(array) for array in alone] * 2
