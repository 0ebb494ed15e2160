"""Every number of the NRM experiment's report, as functions of the measurements."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from experiments.nrm.scored import (
    LATENT,
    NEG_LOG_PROB,
    PROFILE,
    WAIC,
    Key,
    reconstruction,
    scored,
)
from experiments.nrm.sets import Images
from experiments.nrm.settings import Study
from jaxood import metrics
from jaxood.report import interval, label, number, percent
from jaxood.report.record import ResultRow
from jaxood.scores.nrm import Measurement, statistics
from jaxood.scores.nrm.statistics import Reduction
from jaxood.scores.statistics import waic


class Quality(NamedTuple):
    """The work of one model on trusted test images; nothing else may choose a recipe.

    Attributes:
        accuracy: share of images whose y* is right.
        reconstruction: mean squared error of a pixel, in the range [-1, 1].
        negative: share of h(l) below zero, mean over layers.
        spread: standard deviation over mean of log p(z*|y*).
        share: mean of |log p(z*|y*)| over that of <x, h(0)>, the other part of the logit: near 0
            the biases have collapsed.
        wrong_label: mean squared error of a pixel, rendered from another class.
    """

    accuracy: float
    reconstruction: float
    negative: float
    spread: float
    share: float
    wrong_label: float


class Energy(NamedTuple):
    """The tie between log p(z*|y*) and the energy |x|^2 of trusted images; means over models.

    Where h(0) = x throughout, log p(z*|y) is a constant less |x|^2 / 2.

    Attributes:
        correlation: correlation of the two.
        slope: slope of the first over the second.
    """

    correlation: float
    slope: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """The results of several models, one a seed.

    Attributes:
        study: the sets and the models.
        sets: images by name.
        measurements: by seed and set.
        wrong: by seed, of the trusted set, rendered from another class than y*.
    """

    study: Study
    sets: Mapping[str, Images]
    measurements: Mapping[int, Mapping[str, Measurement]]
    wrong: Mapping[int, Measurement]

    @property
    def layers(self) -> int:
        """Number of reconstruction losses, L + 1."""
        return len(self.measurements[self.study.seeds[0]][self.study.in_dist].sizes)

    @property
    def judged(self) -> list[str]:
        """Names of the sets that are told from trusted test images."""
        return self.present((self.study.train, *self.study.ood))

    @property
    def main(self) -> list[str]:
        """Names of the OOD sets of the paper's main claim."""
        return self.present(self.study.ood[: self.study.main])

    @property
    def near(self) -> list[str]:
        """Names of the other OOD sets, which are nearer to the trusted set."""
        return self.present(self.study.ood[self.study.main :])

    @property
    def families(self) -> list[list[str]]:
        """Sets that are to look alike, as far as they are there."""
        families = map(self.present, self.study.families)
        return [family for family in families if len(family) > 1]

    def present(self, names: Iterable[str]) -> list[str]:
        """Return the names of sets that are there, in their order."""
        return [name for name in names if name in self.sets]

    @cached_property
    def scores(self) -> dict[int, dict[str, dict[Key, np.ndarray]]]:
        """By seed and set every score ``(n,)``, higher = more OOD."""
        found = {
            seed: {name: scored(m, by_set[self.study.null]) for name, m in by_set.items()}
            for seed, by_set in self.measurements.items()
        }
        if len(self.study.seeds) > 1:
            # A score of all models, which stands with those of each.
            for name in self.sets:
                values = waic(np.stack([self._centred(seed, name) for seed in self.study.seeds]))
                for by_set in found.values():
                    by_set[name][WAIC] = values
        return found

    def _centred(self, seed: int, name: str) -> np.ndarray:
        """Log p(z*|y*) less its trusted mean, which stands in for the normalizer of each model."""
        own, null = (self.measurements[seed][n] for n in (name, self.study.null))
        return statistics.latent(null).mean() - statistics.latent(own)

    @property
    def keys(self) -> list[Key]:
        """Every score."""
        return list(self.scores[self.study.seeds[0]][self.study.in_dist])

    def layer_keys(self, reduction: Reduction = "sum") -> list[Key]:
        """Return the reconstruction losses, l = 0..L."""
        return [reconstruction(layer, reduction) for layer in range(self.layers)]

    def values(self, name: str, key: Key) -> np.ndarray:
        """Return a score of a set by every model, ``(seeds, n)``."""
        return np.stack([self.scores[seed][name][key] for seed in self.study.seeds])

    @cached_property
    def detections(self) -> Callable[[str, Key], list[metrics.Detection]]:
        """Measure, for each seed, how well a score tells a set from trusted test images.

        A function of the set's name and the score, which measures each pair once.
        """
        return functools.cache(self._detect)

    def _detect(self, name: str, key: Key) -> list[metrics.Detection]:
        return [
            metrics.detection(by_set[self.study.in_dist][key], by_set[name][key])
            for by_set in self.scores.values()
        ]

    def auroc(self, name: str, key: Key) -> tuple[float, float, float]:
        """Return the mean AUROC over seeds, and the outermost ends of its 95 % intervals."""
        found = self.detections(name, key)
        low, high = zip(*(d.auroc_ci for d in found), strict=True)
        return float(np.mean([d.auroc for d in found])), min(low), max(high)

    def rows(self, keys: Sequence[Key]) -> list[ResultRow]:
        """Make a row of the results record for each set, score and seed."""
        return [
            ResultRow.from_detection(
                found,
                model="nrm",
                in_dist=self.study.in_dist,
                ood=name,
                score=key.name,
                params={"seed": seed} | key.params,
            )
            for name in self.judged
            for key in keys
            for seed, found in zip(self.study.seeds, self.detections(name, key), strict=True)
        ]

    def quality(self, seed: int) -> Quality:
        """Judge one model on trusted test images."""
        m, images = self.measurements[seed][self.study.in_dist], self.sets[self.study.in_dist]
        log_prob = -statistics.latent(m)
        logit = np.take_along_axis(m.logits, m.label[:, None], axis=1)[:, 0]

        def pixel_error(m: Measurement) -> float:
            return float(m.reconstruction[:, 0].mean() / m.sizes[0])

        return Quality(
            accuracy=float((m.label == images.labels).mean()),
            reconstruction=pixel_error(m),
            negative=float(m.negative.mean()),
            spread=float(abs(log_prob.std() / log_prob.mean())),
            share=float(np.abs(log_prob).mean() / np.abs(logit - log_prob).mean()),
            wrong_label=pixel_error(self.wrong[seed]),
        )

    def table_1(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """Compute the paper's Table 1.

        Returns:
            By set, mean over images and models and mean standard deviation over images of
            log p(x), of log p(z*|y*) and of minus the reconstruction loss at the study's layer.
        """

        def both(name: str, key: Key) -> tuple[float, float]:
            values = -self.values(name, key)
            return float(values.mean()), float(values.std(1).mean())

        columns = (NEG_LOG_PROB, LATENT, reconstruction(self.study.layer))
        names = self.present((self.study.train, self.study.in_dist, *self.study.ood))
        return {name: tuple(both(name, key) for key in columns) for name in names}

    def energy(self) -> Energy:
        """Measure how closely log p(z*|y*) follows the energy of trusted images."""
        found = []
        for by_set in self.measurements.values():
            m = by_set[self.study.in_dist]
            log_prob = -statistics.latent(m)
            found.append(
                (np.corrcoef(log_prob, m.energy)[0, 1], np.polyfit(m.energy, log_prob, 1)[0])
            )
        return Energy(*map(float, np.mean(found, axis=0)))

    def agreement(self) -> float | None:
        """Return the mean correlation of log p(z*|y*) of trusted images between two models.

        Near 0 the score is noise: what one model says of an image says nothing of what another
        does. Of one model there is none.
        """
        by_seed = self.values(self.study.in_dist, LATENT)
        if len(by_seed) < 2:
            return None
        return float(np.corrcoef(by_seed)[np.triu_indices(len(by_seed), 1)].mean())

    def active(self, name: str) -> np.ndarray:
        """Return the mean share of switches that are on, over images and models: ``(L,)``."""
        return np.mean(
            [by_set[name].active.mean(0) for by_set in self.measurements.values()], axis=0
        )

    def headline(self) -> str:
        """Say the result in three sentences, whichever way it went."""
        qualities = [self.quality(seed) for seed in self.study.seeds]
        accuracy = float(np.mean([q.accuracy for q in qualities]))
        error = float(np.mean([q.reconstruction for q in qualities]))

        def found(key: Key) -> str:
            return ", ".join(f"{self.sentence(n, key)} on {label(n)}" for n in self.main)

        return (
            f"One network classifies {label(self.study.in_dist)} ({percent(accuracy)} of test "
            f"images right) and renders it back (mean squared error {number(error, 3)} a pixel). "
            f"AUROC of the paper's score, −log p(z*|y*): {found(LATENT)}. AUROC of the profile of "
            f"all layers: {found(PROFILE)}."
        )

    def sentence(self, name: str, key: Key) -> str:
        """Write an AUROC with its interval on one line."""
        mean, low, high = self.auroc(name, key)
        return interval(mean, (low, high), digits=2, inline=True)


def overlap(a: np.ndarray, b: np.ndarray, bins: int = 30) -> float:
    """Compute the area that two histograms share, in [0, 1]: 1 where they are the same.

    Args:
        a: ``(n,)``.
        b: ``(m,)``.
        bins: number of bins, over the range of both between their 0.5 and 99.5 percentiles; what
            lies outside counts with the first and the last.
    """
    low, high = np.quantile(np.concatenate([a, b]), [0.005, 0.995])
    if not low < high:
        return 1.0
    shares = []
    for values in (a, b):
        counts = np.histogram(np.clip(values, low, high), bins, (low, high))[0]
        shares.append(counts / counts.sum())
    return float(np.minimum(*shares).sum())
