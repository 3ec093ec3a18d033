"""Turns that engines take, so that whatever else the machine does slows all alike, and none slows the next.

A turn is some calls that are not timed, in which caches fill, the processor's clock rises and threads wake, and then
the timed ones. With several threads a pause comes first: the threads of an engine wait for its next call busily, for
milliseconds, and would take a core from whoever comes next.

With one thread a turn's time is the processor time of the process or the time on the clock, whichever is less: the
first leaves out other programs, the second what threads did beside it. With more it is the time on the clock.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

Runner: TypeAlias = Callable[[], Sequence[np.ndarray]]

# Seconds: until threads that wait for work have gone to sleep, of the warm-up at least, and of the timed calls.
_PAUSE, _WARM_UP, _TIMED = 0.02, 1e-3, 2e-3
_FEWEST_CALLS, _FEWEST_TURNS = 3, 5
# Calls this long fill the caches themselves, and are timed one by one; some are too long to be made for a guess.
_LONG, _VERY_LONG = 0.03, 0.5
# Engines this many times slower than the fastest take so few turns.
_FAR_BEHIND, _TURNS_BEHIND = 8, 2


class Engine(Protocol):
    """Something that takes turns."""

    def results(self) -> Sequence[np.ndarray]:
        """What one call gives."""
        ...

    def turn(self, warm_up: int, calls: int) -> float:
        """Seconds per call of `calls` calls, after `warm_up` others."""
        ...


class Local:
    """A function of this process."""

    def __init__(self, run: Runner, threads: int) -> None:
        self._run = run
        self._threads = threads

    def results(self) -> Sequence[np.ndarray]:
        return self._run()

    def turn(self, warm_up: int, calls: int) -> float:
        return per_call(self._run, self._threads, warm_up, calls)


def per_call(run: Callable[[], object], threads: int, warm_up: int, calls: int) -> float:
    """Seconds per call of `calls` calls, after `warm_up` others."""
    for _ in range(warm_up):
        run()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(calls):
        run()
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    return max(min(wall, processor) if threads == 1 else wall, 1e-9) / calls


def turns(engines: Sequence[Engine], seconds: float, threads: int) -> list[list[float]]:
    """Seconds per call in each turn of each engine; they begin turns for about `seconds`."""
    guesses = [_guess(engine, threads) for engine in engines]
    times: list[list[float]] = [[] for _ in engines]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or max(map(len, times)) < _FEWEST_TURNS:
        for engine, guess, own in zip(engines, guesses, times, strict=True):
            if len(own) < _TURNS_BEHIND or guess < _FAR_BEHIND * min(guesses):
                own.append(_turn(engine, *_counts(guess), threads))
    return times


def _guess(engine: Engine, threads: int) -> float:
    """About how long a call takes, by as few calls as will do."""
    guess = _turn(engine, 0, 1, threads)
    if guess < _VERY_LONG:
        guess = min(guess, _turn(engine, 0, 1, threads))
    return guess if guess > _LONG else _turn(engine, *_counts(guess), threads)


def _turn(engine: Engine, warm_up: int, calls: int, threads: int) -> float:
    if threads > 1:
        time.sleep(_PAUSE)
    return engine.turn(warm_up, calls)


def _counts(guess: float) -> tuple[int, int]:
    """Calls of the warm-up, and timed ones, for calls of about this length."""
    if guess > _LONG:
        return 0, 1
    return max(_FEWEST_CALLS, math.ceil(_WARM_UP / guess)), max(_FEWEST_CALLS, math.ceil(_TIMED / guess))
