"""Times of programs that take turns, so that ratios hold when the machine's speed drifts."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

FOREIGN = 0.05
"""The share of the machine's cores that other processes may take in a round that counts."""

PAUSE = 0.02
"""Seconds between samples: the threads of one library spin a while after their last work."""

ENOUGH = 3
"""Rounds that are enough where the time is up."""

Run = Callable[[int], float | None]
"""Do something so many times, and return when it is done; or return the seconds that count."""


class Amount(NamedTuple):
    """How much to measure.

    Attributes:
        rounds: rounds that count; in a round every program is timed once, in turn.
        sample: seconds that a timed sample lasts at least, by repetition; 0 for one call.
        budget: seconds after which three rounds are enough.
        fewest: repetitions of a sample at least.
    """

    rounds: int
    sample: float
    budget: float
    fewest: int = 1


class Times(NamedTuple):
    """Times of programs.

    Attributes:
        seconds: seconds a call by program, one for each round that counts.
        dropped: rounds that do not count, because other processes ran.
        loaded: whether too few rounds were quiet, so that all of them count.
    """

    seconds: Mapping[str, Sequence[float]]
    dropped: int
    loaded: bool

    def median(self, name: str) -> float:
        """Return the median seconds of a call."""
        return statistics.median(self.seconds[name])

    def fastest(self, names: Iterable[str]) -> str:
        """Return the program with the smallest median."""
        return min(names, key=self.median)

    def ratios(self, name: str, other: str) -> list[float]:
        """Return the time of one program divided by that of another, round by round."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return [a / b for a, b in pairs]

    def multiplied(self, factors: Mapping[str, float]) -> "Times":
        """Return the times of so many calls of each program, one where no number is given."""
        seconds = {
            name: [factors.get(name, 1) * value for value in values]
            for name, values in self.seconds.items()
        }
        return self._replace(seconds=seconds)


def in_turn(
    programs: Mapping[str, Run], amount: Amount, *, warm: bool = True, children: Iterable[int] = ()
) -> Times:
    """Time programs in turn.

    Rounds with foreign load are repeated, until there are twice as many as wanted.

    Args:
        programs: programs by name.
        amount: how much to measure.
        warm: first call each program, untimed, to compile it and to find out how often a sample
            has to repeat it. Otherwise a sample is one call.
        children: process ids of this benchmark's own processes, whose load is not foreign.

    Returns:
        The times of the rounds that count.
    """
    children, counts = tuple(children), dict.fromkeys(programs, 1)
    if warm:
        for name, run in programs.items():
            run(1)
            repeats = amount.sample / _seconds(run, 1) if amount.sample else 0
            counts[name] = max(amount.fewest, round(repeats))
    rounds: list[tuple[dict[str, float], bool]] = []
    enough, started = min(ENOUGH, amount.rounds), time.perf_counter()
    while len(rounds) < 2 * amount.rounds:
        seconds, quiet = {}, True
        for name, run in programs.items():
            time.sleep(PAUSE)
            before = _foreign_seconds(children)
            took = _seconds(run, counts[name])
            load = (_foreign_seconds(children) - before) / took / (os.cpu_count() or 1)
            seconds[name], quiet = took / counts[name], quiet and load <= FOREIGN
        rounds.append((seconds, quiet))
        found = sum(quiet for _, quiet in rounds)
        late = time.perf_counter() - started > amount.budget
        if found == amount.rounds or (late and (found >= enough or len(rounds) >= 2 * enough)):
            break
    loaded = sum(quiet for _, quiet in rounds) < enough
    kept = [seconds for seconds, quiet in rounds if quiet or loaded]
    by_name = {name: [seconds[name] for seconds in kept] for name in programs}
    return Times(by_name, len(rounds) - len(kept), loaded)


def _seconds(run: Run, count: int) -> float:
    start = time.perf_counter()
    found = run(count)
    return time.perf_counter() - start if found is None else found


def _foreign_seconds(children: Iterable[int]) -> float:
    """Core-seconds that other processes have used since the start, where the system tells."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    ticks = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]  # without idle, and waiting for disks
    for child in children:
        words = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        busy -= sum(map(int, words[11:15]))
    return busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
