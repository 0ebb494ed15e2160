"""Times of programs that take turns, so that ratios hold when the machine's speed drifts."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOREIGN = 0.05
"""The share of the machine's cores that other processes may take in a sample that counts."""

PAUSE = 0.02
"""Seconds between samples: the threads of one library spin a while after their last work."""

Run = Callable[[int], Any]
"""Do something so many times, and return when it is done."""


class Settings(NamedTuple):
    """How long to measure.

    Attributes:
        rounds: rounds that count; in a round every program is timed once, in turn.
        sample: seconds that a timed sample lasts at least, by repetition.
        budget: seconds after which three rounds are enough.
    """

    rounds: int = 7
    sample: float = 0.3
    budget: float = 60.0


class Times(NamedTuple):
    """Times of programs.

    Attributes:
        seconds: seconds a call by program, one for each round that counts.
        dropped: rounds that do not count, because other processes ran.
        loaded: whether too few rounds were quiet, so that all of them count.
    """

    seconds: dict[str, list[float]]
    dropped: int
    loaded: bool

    def median(self, name: str) -> float:
        """Return the median seconds of a call."""
        return statistics.median(self.seconds[name])

    def fastest(self, names: list[str]) -> str:
        """Return the program with the smallest median."""
        return min(names, key=self.median)

    def ratios(self, name: str, other: str) -> list[float]:
        """Return the time of one program divided by that of another, round by round."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return [a / b for a, b in pairs]


def in_turn(programs: Mapping[str, Run], settings: Settings) -> Times:
    """Time programs in turn, after one call of each that is not timed.

    Rounds with foreign load are repeated, at most as often as rounds are wanted.
    """
    counts = {}
    for name, run in programs.items():
        run(1)  # compiles
        counts[name] = max(1, round(settings.sample / _seconds(run, 1)))
    rounds: list[tuple[dict[str, float], float]] = []
    started = time.perf_counter()
    while len(rounds) < 2 * settings.rounds:
        seconds, foreign = {}, 0.0
        for name, run in programs.items():
            time.sleep(PAUSE)
            before = _foreign_seconds()
            took = _seconds(run, counts[name])
            share = (_foreign_seconds() - before) / took / (os.cpu_count() or 1)
            seconds[name], foreign = took / counts[name], max(foreign, share)
        rounds.append((seconds, foreign))
        quiet = sum(foreign <= FOREIGN for _, foreign in rounds)
        spent = time.perf_counter() - started > settings.budget
        if quiet == settings.rounds or (quiet >= 3 and spent):
            break
        if spent and len(rounds) >= 2 * min(3, settings.rounds):
            break
    quiet = [seconds for seconds, foreign in rounds if foreign <= FOREIGN]
    loaded = len(quiet) < min(3, settings.rounds)
    kept = [seconds for seconds, _ in rounds] if loaded else quiet
    by_name = {name: [seconds[name] for seconds in kept] for name in programs}
    return Times(by_name, len(rounds) - len(kept), loaded)


def _seconds(run: Run, count: int) -> float:
    start = time.perf_counter()
    run(count)
    return time.perf_counter() - start


def _foreign_seconds() -> float:
    """Core-seconds that other processes have used since the start, where the system tells."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    ticks = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]  # but for idle and waiting for disks
    own = os.times()
    return busy / os.sysconf("SC_CLK_TCK") - own.user - own.system - own.children_user
