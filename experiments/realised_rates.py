"""At which rates are trusted images, and sets of them, really reported?

Takes the model of a finished run (bn_fashion_mnist or bn_cifar) and trusted test images, which it
splits again and again into images to calibrate on and fresh ones. Prints a table of the rates that
a detector realises, each with the interval in which a rate that is kept lies 99 times in 100:

- scores of one image, at three rates;
- sets by Δ, of images that arrive shuffled and of images that arrive sorted by class, both dealt by
  a shuffle, in three sizes;
- for comparison what Δ must not be used for: sets that are cut as the images arrive, sorted by
  class, and single images beside OOD ones. Nothing is promised there.

Example: python -m experiments.realised_rates --run runs/bn_fashion_mnist-realnvp-small --ood mnist
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import betabinom

from experiments.batch_norm.settings import R2
from experiments.lab import common
from experiments.lab.common import UsageError
from experiments.screen import finished_run, model_of
from jaxood import data, detector, progress, scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Flags):
    """Flags of the measurement; --out is not used."""

    run: Path
    """Folder of a finished run of quickstart, bn_fashion_mnist or bn_cifar."""
    ood: str = "mnist"
    """OOD images for the mixed sets."""
    images: int = 5120
    """Trusted test images, fewer where there are fewer."""
    splits: int = 20
    """How often they are split into calibration and fresh ones, each time anew."""
    sizes: tuple[int, ...] = (64, 128, 256)
    """Sizes of the sets."""
    share: float = 0.1
    """Share of OOD images in mixed sets."""


RATES = (0.01, 0.05, 0.1)
"""Rates that are asked for, of images; of sets the middle one, or the smallest that they hold."""


def main(config: Config):
    """Measure, and print the table."""
    common.start(config)
    study, seed = finished_run(config.run)
    trusted, _ = data.load(study.in_dist, "train", config.data_dir)
    test, labels = data.load(study.in_dist, "test", config.data_dir)
    ood, _ = data.load(config.ood, "test", config.data_dir)
    if labels is None:
        raise UsageError(f"{study.in_dist} has no labels to sort by: take another run")
    fit = model_of(config.run, study, seed, trusted, config.devices)
    rng = np.random.default_rng(config.seed)
    chosen = rng.permutation(len(test))[: config.images]
    test, labels, ood = test[chosen], labels[chosen], rng.permutation(ood)
    neg_log_prob = -scores.log_prob(fit.model, fit.variables, test, show_progress=True)
    delta = scores.batch_norm_delta(
        fit.model, fit.variables, trusted, r2=R2, draws=1, batch_size=study.sizes.batch_size
    )

    table = Table(
        title=f"{study.in_dist}, {len(test):,} trusted test images, {config.splits} splits"
    )
    for head in ("what is judged", "asked", "realised", "99 % of kept rates", "kept"):
        table.add_column(head, justify="left" if head == "what is judged" else "right")
    for rate in RATES:
        found = _rate(neg_log_prob, rate, config.splits, rng)
        _add(table, "images by −log p(x)", rate, found)
    for size in config.sizes:
        for arrival, order in (
            ("shuffled", np.arange(len(test))),
            ("sorted by class", np.argsort(labels, kind="stable")),
        ):
            places, means = _whole(len(test), size, config.seed), []
            with progress.bar(f"sets of {size}, {arrival}", len(places)) as advance:
                for place in places:
                    means.append(delta(test[order][np.sort(place)]).mean())
                    advance(1)
            found = _rate(np.array(means), 0.05, config.splits, rng)
            _add(table, f"sets of {size} by Δ, {arrival} and dealt", found.asked, found)
    table.add_section()
    for name, flagged in _misuses(config, delta, test, labels, ood).items():
        table.add_row(name, "5.0 %", f"{flagged:.1%}", "", "no promise")
    Console().print(table)
    return table


@dataclasses.dataclass(frozen=True)
class Found:
    """How many of the fresh ones were reported, over all splits.

    Attributes:
        asked: the rate that was asked for.
        reported: a count for each split.
        fresh: how many fresh ones there are in a split.
        null: how many were calibrated on.
    """

    asked: float
    reported: np.ndarray
    fresh: int
    null: int


def _rate(values: np.ndarray, rate: float, splits: int, rng: np.random.Generator) -> Found:
    """Split values in two halves, again and again, and count the second's p-values up to a rate."""
    half = len(values) // 2
    rate = max(rate, 1 / (half + 1))
    reported = []
    for _ in range(splits):
        null, fresh = np.split(rng.permutation(values), [half])
        reported.append(np.sum(detector.p_values_of(fresh, null) <= rate))
    return Found(rate, np.array(reported), len(values) - half, half)


def _add(table: Table, name: str, rate: float, found: Found):
    """A row: the mean rate over the splits, against what one split alone may give.

    Splits share images, so their mean is held to the interval of a single split: a count of fresh
    ones beyond one threshold is beta-binomial.
    """
    k = int(np.floor(rate * (found.null + 1) + 1e-9))
    low, high = betabinom.interval(0.99, found.fresh, k, found.null + 1 - k)
    mean = found.reported.mean()
    inside = np.mean((low <= found.reported) & (found.reported <= high))
    table.add_row(
        name,
        f"{rate:.1%}",
        f"{mean / found.fresh:.1%}",
        f"{low / found.fresh:.1%} to {high / found.fresh:.1%}",
        f"{inside:.0%} of splits",
    )


def _whole(n: int, size: int, seed: int) -> list[np.ndarray]:
    """The sets of `detector.deal` without the last, where that is not whole."""
    return list(detector.deal(n, size, seed))[: n // size]


def _misuses(config: Config, delta: Callable, test, labels, ood) -> dict[str, float]:
    """Shares of trusted images reported where a batch score is taken for a score of images."""
    size = config.sizes[0]
    places = _whole(len(test), size, config.seed)
    half = len(places) // 2
    null = np.concatenate([delta(test[np.sort(place)]) for place in places[:half]])

    def reported(sets, trusted=slice(None)):
        flagged = [detector.p_values_of(delta(x)[trusted], null) <= 0.05 for x in sets]
        return float(np.mean(np.concatenate(flagged)))

    fresh = np.concatenate(places[half:])
    by_class = fresh[np.argsort(labels[fresh], kind="stable")]
    count = round(config.share * size)
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
        f"{kind}, {config.share:.0%} {config.ood}": reported(mixed, slice(count, None)),
    }


if __name__ == "__main__":
    common.run(main, Config, __doc__)
