"""Every number of the fooling experiment's report, from the log-likelihoods."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from experiments.batch_norm import paper
from experiments.batch_norm.judged import Judged
from experiments.batch_norm.settings import R1, R2, Sizes
from jaxood.report import interval, label, number
from jaxood.report.record import BpdRow, ResultRow

RATIOS = (0.0, R1, R2, 1.0)
"""Every ratio r at which sets are scored: evaluation mode, the test's two, training mode."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """One model that fools another.

    Attributes:
        model: name of both models.
        in_dist: name of the trusted set.
        other: name of the set that the model that fools was trained on.
        sizes: the amount of scoring.
        temperature: the temperature that was found.
        target: the median log-likelihood that it was found for, nats.
        tried: by temperature, log-likelihoods ``(n,)`` of samples, nats.
    """

    model: str
    in_dist: str
    other: str
    sizes: Sizes
    temperature: float
    target: float
    tried: Mapping[float, np.ndarray]

    @property
    def null(self) -> str:
        """Name of the calibration set."""
        return null_name(self.in_dist)

    @property
    def fooling(self) -> str:
        """Name of the samples at the temperature that was found."""
        return next(iter(self.temperatures))

    @property
    def temperatures(self) -> dict[str, float]:
        """Temperatures of all sets of samples by name, the one that was found first."""
        return {f"{self.model}({self.other}), T = {text}": t for text, t in self._samples}

    @property
    def titles(self) -> dict[str, str]:
        """Titles of all sets of samples by name."""
        return {
            name: f"{label(self.model)} ({label(self.other)}, T = {text})"
            for name, (text, _) in zip(self.temperatures, self._samples, strict=True)
        }

    @property
    def _samples(self) -> list[tuple[str, float]]:
        found = (f"{self.temperature:.2f}", self.temperature)
        return [found, *((str(t), t) for t in paper.TABLE_4)]


def null_name(in_dist: str) -> str:
    """Return the name of the held-out trusted images that ranks are taken among."""
    return f"{in_dist} (calibration)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results(Judged):
    """The results of one attack.

    Attributes:
        attack: the two models, and the temperature.
        sets: uint8 images ``(n, h, w, c)`` by set.
    """

    attack: Attack
    sets: Mapping[str, np.ndarray]

    def _rows(self, name: str) -> list[ResultRow]:
        temperature = self.attack.temperatures.get(name)
        return self.rows_of(name, {} if temperature is None else {"temperature": temperature})

    @property
    def main_rows(self) -> list[ResultRow]:
        """Rows of the other set itself, and of the samples that were made to fool."""
        return self._rows(self.attack.other) + self._rows(self.attack.fooling)

    @property
    def temperature_rows(self) -> list[ResultRow]:
        """Rows of the samples at the other temperatures."""
        others = [name for name in self.attack.temperatures if name != self.attack.fooling]
        return [row for name in others for row in self._rows(name)]

    @property
    def bpd_rows(self) -> list[BpdRow]:
        """Rows of the paper's Table 4, and of the samples that were made to fool."""
        return self.bpd_rows_of(self.scores)

    @property
    def table_4(self) -> dict[tuple[str, str, str], float]:
        """The paper's bits per dimension by (model, set, mode); empty for sets that it has not."""
        attack = self.attack
        if (attack.model, attack.in_dist) != ("realnvp", "cifar10"):
            return {}
        return paper.bpd(attack.in_dist, attack.model) | {
            (attack.model, name, mode): value
            for name, temperature in attack.temperatures.items()
            if name != attack.fooling
            for mode, value in zip(
                ("evaluation", "training"), paper.TABLE_4[temperature], strict=True
            )
        }

    def extra(self) -> dict[str, Any]:
        """Say how the temperature was found, and how likely fresh samples are."""
        attack = self.attack
        fresh = self.at(attack.fooling, 0).mean(0)
        below = int((fresh < attack.target).sum())
        ends = scipy.stats.binomtest(below, len(fresh)).proportion_ci()
        return {
            "temperature": attack.temperature,
            "paper_temperature": paper.TEMPERATURES[attack.model],
            "target_bpd": float(self.in_bits(attack.target)),
            "fresh_bpd": float(np.median(self.in_bits(fresh))),
            "less_likely_than_target": below / len(fresh),
            "less_likely_than_target_ci": [float(ends.low), float(ends.high)],
            "search": [
                {"temperature": t, "median_bpd": float(np.median(self.in_bits(v))), "n": len(v)}
                for t, v in attack.tried.items()
            ],
        }

    def headline(self) -> str:
        """Say in two sentences whether the likelihood is fooled, and whether Δ is."""
        attack = self.attack

        def auroc(name: str, score: str) -> str:
            found = self.detection(name, score)
            return interval(found.auroc, found.auroc_ci, digits=2, inline=True)

        fooled = self.detection(attack.fooling, "t_perm").auroc_ci[0] <= 0.5
        model, other = label(attack.model), label(attack.other)
        return (
            f"Samples of a {model} trained on {other}, drawn at temperature "
            f"{number(attack.temperature, 2)}, {'fool' if fooled else 'do not quite fool'} the "
            f"likelihood of a {model} trained on {label(attack.in_dist)}: AUROC of the permutation "
            f"test is {auroc(attack.fooling, 't_perm')}, and {auroc(attack.other, 't_perm')} on "
            f"{other} itself. The BatchNorm test on the same samples: AUROC of Δ is "
            f"{auroc(attack.fooling, 'batch_norm_delta')}."
        )
