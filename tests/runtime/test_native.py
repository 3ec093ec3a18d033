"""Native sessions under several threads and processes."""

import copy
import multiprocessing
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kcompile.errors import InputError, KCompileError
from kcompile.frontend import Functional, Input, layers
from kcompile.runtime import Session, load
from kcompile.runtime.reference import ReferenceSession
from tests.runtime.harness import long_graph, make_bundle, small_graph

BATCHES = [np.random.default_rng(rows).standard_normal((rows, 10, 1), np.float32) for rows in range(1, 60)]


@pytest.fixture(autouse=True)
def worth_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use threads from 27 rows on (38 operations each), so that both ways are taken."""
    monkeypatch.setattr("kcompile.runtime.native._WORTH_THREADS", 1000)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("target", ["native", "onnx"])
def test_four_threads_at_once_give_what_one_gives(target: str, threads: int, request: pytest.FixtureRequest) -> None:
    session = load(request.getfixturevalue(target), threads=threads)
    expected = [session.predict(x) for x in BATCHES]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(session.predict, BATCHES * 5))
    for result, one in zip(results, expected * 5, strict=True):
        np.testing.assert_array_equal(result, one)


@pytest.mark.parametrize("threads", [1, 3])
def test_callers_at_once_do_not_share_memory_and_share_one_pool(threads: int, tmp_path: Path) -> None:
    session = load(make_bundle(tmp_path / "long.kcb", long_graph(), "tvm"), threads=threads)
    batches = [np.random.default_rng(i).standard_normal((64, 128), np.float32) for i in range(40)]
    expected = [session.predict(x, batch_size=64) for x in batches]
    before = _threads()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: session.predict(x, batch_size=64), batches * 5))
    assert _settles_at(before)
    for result, one in zip(results, expected * 5, strict=True):
        np.testing.assert_array_equal(result, one)


@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_changes_no_bit(native: Path, threads: int) -> None:
    one, more = load(native, threads=1), load(native, threads=threads)
    for x in BATCHES:
        np.testing.assert_array_equal(more.predict(x), one.predict(x))


def test_calls_of_other_numbers_of_slices_follow_each_other(tmp_path: Path) -> None:
    """A thread that leaves a call late must not take part in the next one before it has begun it."""
    x = Input((64, 64, 4), name="x")
    y = layers.Conv2D(32, 3, activation="relu")(layers.Conv2D(32, 3, activation="relu")(x))
    graph = Functional(x, layers.GlobalAveragePooling2D()(y)).trace()
    path = make_bundle(tmp_path / "slices.kcb", graph, "tvm")
    one, more = load(path, threads=1), load(path, threads=2)
    batches = [np.random.default_rng(rows).standard_normal((rows, 64, 64, 4), np.float32) for rows in (4, 7, 1)]
    expected = [one.run({"x": batch}) for batch in batches]
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(free)})  # where two threads share a CPU, one leaves late
    try:
        for _ in range(40):
            for batch, results in zip(batches, expected, strict=True):
                for name, result in more.run({"x": batch}).items():
                    np.testing.assert_array_equal(result, results[name])
    finally:
        os.sched_setaffinity(0, free)


def test_every_batch_size_agrees_with_the_reference(native: Path) -> None:
    session, reference = load(native, threads=1), ReferenceSession(small_graph())
    for x in BATCHES:
        np.testing.assert_allclose(session.predict(x), reference.predict(x), rtol=2e-5, atol=1e-7)


def test_no_rows_give_no_rows(native: Path) -> None:
    assert load(native).predict(np.zeros((0, 10, 1), np.float32)).shape == (0, 4)


def test_a_session_is_freed_with_its_threads(native: Path) -> None:
    before = _threads()
    session = load(native, threads=4)
    session.predict(BATCHES[0])
    assert _threads() == before, "a call with little work wakes no threads"
    session.predict(BATCHES[-1], batch_size=100)
    assert _threads() == before + 3
    del session
    assert _settles_at(before)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _settles_at(count: int) -> bool:
    """Whether there are no more than `count` threads, once those that have been joined are gone from the kernel too."""
    end = time.monotonic() + 2
    while _threads() > count and time.monotonic() < end:
        time.sleep(0.01)
    return _threads() <= count


def _in_child(session: Session, expected: np.ndarray, queue: "multiprocessing.SimpleQueue[bool]") -> None:
    queue.put(bool(np.array_equal(session.predict(BATCHES[40]), expected)))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_goes_on_with_a_session(native: Path, threads: int) -> None:
    session = load(native, threads=threads)
    expected = session.predict(BATCHES[40])
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(session, expected, queue))
    child.start()
    child.join(20)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert child.exitcode == 0
    assert queue.get()
    np.testing.assert_array_equal(session.predict(BATCHES[40]), expected)


def test_small_arrays_take_a_shorter_way_that_gives_the_same(native: Path) -> None:
    session, reference = load(native, threads=1), ReferenceSession(small_graph())
    (name,), (result,) = session.inputs, session.outputs
    for x in BATCHES[:5] * 2:
        expected = reference.predict(x)
        np.testing.assert_allclose(session.predict(x), expected, rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(session.predict(x, batch_size=2), expected, rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(session.predict(np.asfortranarray(x)), expected, rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(session.predict(x.astype(np.float64)), expected, rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(session.run({name: x})[result], expected, rtol=2e-5, atol=1e-7)
    first = session.predict(BATCHES[3])
    kept = first.copy()
    session.predict(BATCHES[3] + 1)
    np.testing.assert_array_equal(first, kept)  # results are the caller's own


@pytest.mark.parametrize("target", ["native", "onnx"])
def test_results_are_written_where_the_caller_wants(target: str, request: pytest.FixtureRequest) -> None:
    session = load(request.getfixturevalue(target), threads=1)
    for x in BATCHES[:3] * 2:
        expected = session.predict(x)
        out = np.full_like(expected, np.nan)
        assert session.predict(x, out=out) is out
        np.testing.assert_array_equal(out, expected)
        strided = np.full((*expected.shape, 2), np.nan, np.float32)[..., 0]
        np.testing.assert_array_equal(session.predict(x, out=strided), expected)


@pytest.mark.parametrize("out", [np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float64), [[0.0] * 4] * 2])
def test_results_do_not_go_where_they_do_not_fit(native: Path, out: object) -> None:
    session = load(native, threads=1)
    for _ in range(2):
        with pytest.raises(InputError, match="`out` must"):
            session.predict(BATCHES[1], out=out)  # type: ignore[arg-type]
        session.predict(BATCHES[1])


def test_results_do_not_go_where_nothing_may_be_written(native: Path) -> None:
    session, out = load(native, threads=1), np.empty_like(load(native).predict(BATCHES[1]))
    out.flags.writeable = False
    for _ in range(2):
        with pytest.raises(InputError, match="`out` must be writeable"):
            session.predict(BATCHES[1], out=out)


@pytest.mark.parametrize("target", ["native", "onnx"])
def test_a_session_says_why_it_cannot_be_pickled_or_copied(target: str, request: pytest.FixtureRequest) -> None:
    session = load(request.getfixturevalue(target), threads=1)
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(KCompileError, match=r"cannot be pickled or copied: .* Give the artifact's path on"):
            function(session)


def test_the_shorter_way_does_not_take_wrong_extents_or_batch_sizes(native: Path) -> None:
    session = load(native, threads=1)
    session.predict(BATCHES[0])
    for call in (lambda: session.predict(BATCHES[0], batch_size=0), lambda: session.predict(np.zeros((1, 9, 1), "f4"))):
        with pytest.raises(InputError):
            call()
