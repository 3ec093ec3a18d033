"""What `make bench` measures by and writes."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks import readme, turns


class _Clocked:
    """An engine whose calls take as long as they say."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[tuple[int, int]] = []

    def results(self) -> Sequence[np.ndarray]:
        return []

    def turn(self, warm_up: int, calls: int) -> float:
        self.asked.append((warm_up, calls))
        return self.seconds


def test_short_calls_are_warmed_up_for_a_millisecond_and_timed_for_two():
    engine = _Clocked(1e-4)
    turns.turns([engine], 0.0, 1)
    assert engine.asked[-1] == (10, 20)


def test_long_calls_are_timed_one_by_one():
    engine = _Clocked(0.5)
    turns.turns([engine], 0.0, 1)
    assert engine.asked[-1] == (0, 1)


def test_engines_far_behind_take_fewer_turns_and_all_others_take_as_many_as_each_other():
    engines = [_Clocked(1e-3), _Clocked(5e-3), _Clocked(1e-1)]
    times = turns.turns(engines, 0.05, 1)
    assert len(times[0]) == len(times[1]) >= 5 > len(times[2]) == 2
    assert times[1][0] == 5e-3


def test_before_a_turn_of_several_threads_there_is_a_pause(monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr(turns.time, "sleep", slept.append)
    turns.turns([_Clocked(1e-3)], 0.0, 1)
    assert not slept
    engine = _Clocked(1e-3)
    turns.turns([engine], 0.0, 2)
    assert len(slept) == len(engine.asked)
    assert min(slept) >= 0.02


def test_a_turn_counts_the_calls_after_the_warm_up_alone(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(turns.time, "process_time", lambda: now[0] / 2)

    def run() -> None:
        now[0] += 8.0 if now[0] < 16 else 1.0

    assert turns.per_call(run, 1, 2, 4) == 0.5  # processor time, which was less
    assert turns.per_call(run, 2, 2, 4) == 1.0


def test_the_readme_quotes_the_results():
    rows = json.loads(readme.RESULTS.read_text())["rows"]
    text = readme.README.read_text()
    assert readme.quoted(text, readme.table(rows)) == text
