"""The rates at which detectors really report trusted images, and sets of them."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from scipy.stats import betabinom

from experiments import lab
from experiments.batch_norm.settings import R2
from experiments.screening.runs import FinishedRun
from jaxood import data, detector, progress, scores
from jaxood.report import percent

RATES = (0.01, 0.05, 0.1)
"""Rates that are asked for, of images; of sets the middle one, or the smallest that they hold."""
HEADS = ("what is judged", "asked", "realised", "99 % of kept rates", "kept")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the measurement; --out is not used."""

    run: Path
    """Folder of a finished run of quickstart, bn_fashion_mnist or bn_cifar."""
    ood: str = "mnist"
    """OOD images for the mixed sets."""
    images: int = 5120
    """Trusted test images, fewer where there are fewer."""
    splits: int = 20
    """Number of times that they are split into calibration and fresh ones, each time anew."""
    sizes: tuple[int, ...] = (64, 128, 256)
    """Sizes of the sets."""
    share: float = 0.1
    """Share of OOD images in mixed sets."""


def measure(flags: Config, run: FinishedRun) -> Table:
    """Measure the rates of the model of a finished run.

    Args:
        flags: flags of the command line.
        run: the run.

    Returns:
        A table: three rows of images, two of sets of each size, and three of misuses.

    Raises:
        UsageError: if the trusted images have no labels to sort by.
    """
    trusted, _ = run.images("train", flags.data_dir)
    test, labels = run.images("test", flags.data_dir)
    ood, _ = data.load(flags.ood, "test", flags.data_dir)
    if labels is None:
        raise lab.UsageError(f"{run.study.in_dist} has no labels to sort by: take another run")
    trained = run.study.recipe.train(
        trusted, seed=run.seed, directory=run.directory, devices=flags.devices
    )
    rng = np.random.default_rng(flags.seed)
    chosen = rng.permutation(len(test))[: flags.images]
    test, labels, ood = test[chosen], labels[chosen], rng.permutation(ood)
    log_prob = scores.log_prob(trained.model, trained.variables, test, show_progress=True)
    size = run.study.sizes.batch_size
    delta = scores.batch_norm_delta(
        trained.model, trained.variables, trusted, r2=R2, draws=1, batch_size=size
    )
    table = Table(
        title=f"{run.study.in_dist}, {len(test):,} trusted test images, {flags.splits} splits"
    )
    for head in HEADS:
        table.add_column(head, justify="left" if head == HEADS[0] else "right")
    for rate in RATES:
        found = realised(-log_prob, rate, flags.splits, rng)
        table.add_row("images by −log p(x)", *found.cells(rate))
    for size in flags.sizes:
        for arrival, order in (
            ("shuffled", np.arange(len(test))),
            ("sorted by class", np.argsort(labels, kind="stable")),
        ):
            means = means_of_sets(delta, test[order], size, flags.seed, f"{size}, {arrival}")
            found = realised(means, 0.05, flags.splits, rng)
            table.add_row(f"sets of {size} by Δ, {arrival} and dealt", *found.cells(found.asked))
    table.add_section()
    for name, flagged in misuses(flags, delta, test, labels, ood).items():
        table.add_row(name, percent(0.05, 1), percent(flagged, 1), "", "no promise")
    return table


@dataclasses.dataclass(frozen=True)
class Realised:
    """Counts of the fresh ones that were reported, over all splits.

    Attributes:
        asked: the rate that was asked for, or the smallest that can be held.
        reported: int ``(splits,)``, the counts.
        fresh: number of fresh ones in a split.
        null: number of those that were calibrated on.
    """

    asked: float
    reported: np.ndarray
    fresh: int
    null: int

    def cells(self, asked: float) -> list[str]:
        """Write a row: the mean rate over the splits, against what one split alone may give.

        Splits share images, so their mean is held to the interval of a single split: a count of
        fresh ones beyond one threshold is beta-binomial.
        """
        k = int(np.floor(self.asked * (self.null + 1) + 1e-9))
        low, high = betabinom.interval(0.99, self.fresh, k, self.null + 1 - k)
        inside = np.mean((low <= self.reported) & (self.reported <= high))
        return [
            percent(asked, 1),
            percent(self.reported.mean() / self.fresh, 1),
            f"{percent(low / self.fresh, 1)} to {percent(high / self.fresh, 1)}",
            f"{percent(float(inside))} of splits",
        ]


def realised(values: np.ndarray, rate: float, splits: int, rng: np.random.Generator) -> Realised:
    """Split values in two halves again and again, and count the second's p-values up to a rate.

    Args:
        values: ``(n,)``, scores of trusted images, or of sets of them.
        rate: the rate that is asked for.
        splits: number of splits.
        rng: random generator of the splits.
    """
    half = len(values) // 2
    rate = max(rate, 1 / (half + 1))
    reported = []
    for _ in range(splits):
        null, fresh = np.split(rng.permutation(values), [half])
        reported.append(np.sum(detector.p_values_of(fresh, null) <= rate))
    return Realised(rate, np.array(reported), len(values) - half, half)


def means_of_sets(
    delta: scores.Score, images: np.ndarray, size: int, seed: int, what: str
) -> np.ndarray:
    """Score sets to which images are dealt: ``(sets,)``, their mean scores."""
    places, means = whole(len(images), size, seed), []
    with progress.bar(f"sets of {what}", len(places)) as advance:
        for place in places:
            means.append(delta(images[np.sort(place)]).mean())
            advance(1)
    return np.array(means)


def whole(n: int, size: int, seed: int) -> Sequence[np.ndarray]:
    """Deal n images to sets, and leave the last set out where it is not whole."""
    return list(detector.deal(n, size, seed))[: n // size]


def misuses(
    flags: Config, delta: scores.Score, test: np.ndarray, labels: np.ndarray, ood: np.ndarray
) -> dict[str, float]:
    """Measure rates where a batch score is taken for a score of images.

    Args:
        flags: flags of the command line.
        delta: the batch score.
        test: trusted images, uint8 ``(n, h, w, c)``.
        labels: labels of these.
        ood: OOD images.

    Returns:
        By a title, the share of trusted images that are reported at a rate of 5 %.
    """
    size = flags.sizes[0]
    places = whole(len(test), size, flags.seed)
    half = len(places) // 2
    null = np.concatenate([delta(test[np.sort(place)]) for place in places[:half]])

    def reported(sets: Iterable[np.ndarray], trusted: slice = slice(None)) -> float:
        flagged = [detector.p_values_of(delta(x)[trusted], null) <= 0.05 for x in sets]
        return float(np.mean(np.concatenate(flagged)))

    fresh = np.concatenate(places[half:])
    by_class = fresh[np.argsort(labels[fresh], kind="stable")]
    count = round(flags.share * size)
    mixed = [
        np.concatenate([ood[i * count : (i + 1) * count], test[np.sort(place)][count:]])
        for i, place in enumerate(places[half:])
    ]
    kind = f"single trusted images by Δ in sets of {size}"
    return {
        f"{kind}, shuffled": reported(test[np.sort(place)] for place in places[half:]),
        f"{kind}, sorted by class": reported(
            test[by_class[i : i + size]] for i in range(0, len(fresh) - size + 1, size)
        ),
        f"{kind}, {percent(flags.share)} {flags.ood}": reported(mixed, slice(count, None)),
    }
