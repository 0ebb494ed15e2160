"""The lines that the benchmark prints, one a comparison, as soon as it is made."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.benchmarks.timing import Times

OURS = "jaxood"
"""The name of our program in `Times`."""

PRODUCT = "product"
"""The name of the product of matrices in `Times`."""


class Line(NamedTuple):
    """One comparison.

    Attributes:
        title: what is measured.
        against: what it is compared with.
        ours: our seconds, median.
        theirs: seconds of the other, median.
        ratio: ours divided by theirs: below 1, jaxood is faster.
        range: lowest and highest ratio of a round.
    """

    title: str
    against: str
    ours: float
    theirs: float
    ratio: float
    range: tuple[float, float]


class Work(NamedTuple):
    """Operations, for the share of the peak that a program reaches.

    Attributes:
        program: operations of a call of the program.
        product: operations of the product of matrices.
    """

    program: int
    product: int


def head() -> None:
    """Print the heads of the columns."""
    print(_columns("", "jaxood", "other", "ratio", "of rounds", "of peak", "against"), flush=True)


def compare(
    title: str,
    times: Times,
    others: Mapping[str, Sequence[str]],
    work: Work | None = None,
    ours: str = OURS,
) -> list[Line]:
    """Print the ratio of our time to that of each group of other programs, its fastest one.

    Args:
        title: what is measured.
        times: times of our program and of the others.
        others: names of programs by the title of their group.
        work: operations of the program and of the product of matrices in ``times``.
        ours: name of our program.

    Returns:
        A line for each group.
    """
    lines = []
    for group, names in others.items():
        name = times.fastest(names)
        ratios, own, theirs = times.ratios(ours, name), times.median(ours), times.median(name)
        against = group if len(names) == 1 else f"{group}, {name}"
        shares = ""
        if work is not None:
            peak = work.product / times.median(PRODUCT)
            shares = ", ".join(f"{work.program / t / peak:.0%}" for t in (own, theirs))
        line = Line(title, against, own, theirs, own / theirs, (min(ratios), max(ratios)))
        lines.append(line)
        print(
            _columns(
                title, _time(own), _time(theirs), _ratio(line.ratio),
                " to ".join(map(_ratio, line.range)), shares, against + _note(times),
            ),
            flush=True,
        )  # fmt: skip
    return lines


def alone(title: str, times: Times, reason: str) -> list[Line]:
    """Print our time where there is nothing to compare it with, and why; return no lines."""
    ours = _time(times.median(OURS))
    print(_columns(title, ours, "", "", "", "", reason + _note(times)), flush=True)
    return []


def _columns(title, ours, theirs, ratio, spread, shares, against) -> str:
    return f"{title:<54}{ours:>9}{theirs:>9} {ratio:>6}  {spread:<13} {shares:<9} {against}"


def _note(times: Times) -> str:
    if times.loaded:
        return " (other processes ran all the time: do not rely on it)"
    return f" ({times.dropped} rounds left out: other processes ran)" if times.dropped else ""


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.1g}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"
