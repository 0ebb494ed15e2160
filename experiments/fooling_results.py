"""Every number of the fooling experiment's report, as functions of the log-likelihoods."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.stats

from experiments import batch_norm_paper
from experiments.batch_norm_study import R1, R2, Sizes
from jaxood import metrics, record, scores
from jaxood.density import bits_per_dim
from jaxood.record import label

RATIOS = (0.0, R1, R2, 1.0)
"""Every ratio r at which sets are scored: evaluation mode, the test's two, training mode."""
TEMPERATURES = (0.7, 1.0, 1.3)
"""The paper's Table 4."""
PAPER_TEMPERATURE = {"realnvp": 1.10, "pixelcnn": 1.17}
"""Appendix B: the temperatures that fool the paper's own models."""
TABLE_4 = {
    "cifar10": (3.48, 3.51),
    "svhn_cropped": (2.44, 11.10),
    "realnvp(svhn_cropped), T = 0.7": (1.51, 317),
    "realnvp(svhn_cropped), T = 1.0": (2.88, 328),
    "realnvp(svhn_cropped), T = 1.3": (5.43, 16.0),
}
"""Bits per dimension in evaluation and training mode, under RealNVP trained on CIFAR-10."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """One model that fools another.

    Attributes:
        model: kind of both.
        in_dist: name of the trusted set.
        other: name of the set behind the model that fools.
        sizes: how much is scored.
        temperature: that was found.
        target: the median that it was found for, nats.
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
    def null(self):
        """Name of the calibration set."""
        return null_name(self.in_dist)

    @property
    def fooling(self):
        """Name of the samples at the temperature that was found."""
        return self._samples(f"{self.temperature:.2f}")

    @property
    def temperatures(self):
        """Temperature by name of all sets of samples, the one that was found first."""
        return {self.fooling: self.temperature} | {self._samples(str(t)): t for t in TEMPERATURES}

    def _samples(self, temperature):
        return f"{self.model}({self.other}), T = {temperature}"


def null_name(in_dist: str) -> str:
    """Name of the held-out trusted images that ranks are taken among."""
    return f"{in_dist} (calibration)"


class Results:
    """Scores and likelihoods of one attack.

    Attributes:
        attack: what was done.
        sets: images by name.
        scores: ``{set: {score: (n,)}}``, higher = more OOD.
    """

    def __init__(self, attack: Attack, sets, log_probs, seconds):
        self.attack, self.sets = attack, sets
        self.log_probs, self.seconds = log_probs, seconds
        null, null_delta = self.at(attack.null, 0).mean(0), self.delta(attack.null)
        self.scores = {
            name: {
                "neg_log_prob": -self.at(name, 0).mean(0),
                "t_perm": scores.t_perm(self.at(name, 0).mean(0), null),
                "typicality": scores.typicality(self.at(name, 0).mean(0), null),
                "batch_norm_delta": self.delta(name),
                "batch_norm_rank": scores.batch_norm_rank(self.delta(name), null_delta),
            }
            for name in (attack.in_dist, attack.other, *attack.temperatures)
        }

    def at(self, name, ratio):
        """Log-likelihoods ``(draws, n)`` at one ratio, nats."""
        return self.log_probs[name][:, RATIOS.index(ratio)]

    def delta(self, name):
        return scores.delta(self.at(name, R1), self.at(name, R2)).mean

    def in_bits(self, log_prob):
        """Nats to bits per dimension."""
        return bits_per_dim(log_prob, self.sets[self.attack.in_dist].shape[1:])

    def bpd(self, name, ratio=0):
        """Bits per dimension, one an image: ``(n,)``."""
        return self.in_bits(self.at(name, ratio).mean(0))

    def detection(self, name, score):
        return metrics.detection(self.scores[self.attack.in_dist][score], self.scores[name][score])

    def rows(self, name, params):
        """One row a score of one set; `params` are added to the score's own."""
        attack, sizes = self.attack, self.attack.sizes
        noise, null = (
            {"draws": sizes.draws},
            {"null_images": len(self.log_probs[attack.null][0, 0])},
        )
        batch = {"b": sizes.batch_size, "r1": R1, "r2": R2} | noise
        own = {
            "neg_log_prob": noise,
            "t_perm": noise | null,
            "typicality": noise | null,
            "batch_norm_delta": batch,
            "batch_norm_rank": batch | null,
        }
        # The paper calls the rank "ours"; Delta orders images as the rank does, but for ties.
        same = {"batch_norm_rank": "batch_norm_delta"}
        paper = batch_norm_paper.auroc(attack.in_dist, attack.model)
        return [
            record.ResultRow.from_detection(
                self.detection(name, score),
                model=attack.model,
                in_dist=attack.in_dist,
                ood=name,
                score=score,
                params=own[score] | params,
                paper=paper.get((name, same.get(score, score))),
                seconds=self.seconds[name],
            )
            for score in self.scores[name]
        ]

    def main_rows(self):
        """The other set itself, and the samples that were made to fool."""
        attack = self.attack
        fooling = self.rows(attack.fooling, {"temperature": attack.temperature})
        return self.rows(attack.other, {}) + fooling

    def temperature_rows(self):
        """The samples at the other temperatures."""
        return [
            row
            for name, temperature in self.attack.temperatures.items()
            if name != self.attack.fooling
            for row in self.rows(name, {"temperature": temperature})
        ]

    def bpd_rows(self):
        """The paper's Table 4, and the samples that were made to fool."""

        def row(name, mode, ratio):
            bpd = self.bpd(name, ratio)
            stderr = float(bpd.std(ddof=1) / np.sqrt(len(bpd)))
            return record.BpdRow(self.attack.model, name, mode, float(bpd.mean()), stderr, len(bpd))

        modes = (("evaluation", 0), ("training", 1.0))
        return [row(name, mode, ratio) for name in self.scores for mode, ratio in modes]

    def extra(self):
        """How the temperature was found, and what fresh samples say of it."""
        attack = self.attack
        fresh = self.at(attack.fooling, 0).mean(0)
        below = int((fresh < attack.target).sum())
        interval = scipy.stats.binomtest(below, len(fresh)).proportion_ci()
        return {
            "temperature": attack.temperature,
            "paper_temperature": PAPER_TEMPERATURE[attack.model],
            "target_bpd": float(self.in_bits(attack.target)),
            "fresh_bpd": float(np.median(self.in_bits(fresh))),
            "less_likely_than_target": below / len(fresh),
            "less_likely_than_target_ci": [float(interval.low), float(interval.high)],
            "search": [
                {"temperature": t, "median_bpd": float(np.median(self.in_bits(v))), "n": len(v)}
                for t, v in attack.tried.items()
            ],
        }

    def headline(self):
        """The result in two sentences, whichever way it went."""
        attack = self.attack

        def auroc(name, score):
            found = self.detection(name, score)
            low, high = found.auroc_ci
            return f"{found.auroc:.2f} [{low:.2f}, {high:.2f}]"

        fooled = self.detection(attack.fooling, "t_perm").auroc_ci[0] <= 0.5
        model, other = label(attack.model), label(attack.other)
        return (
            f"Samples of a {model} trained on {other}, drawn at temperature "
            f"{attack.temperature:.2f}, {'fool' if fooled else 'do not quite fool'} the likelihood "
            f"of a {model} trained on {label(attack.in_dist)}: AUROC of the permutation test is "
            f"{auroc(attack.fooling, 't_perm')}, and {auroc(attack.other, 't_perm')} on {other} "
            f"itself. The BatchNorm test on the same samples: AUROC of Δ is "
            f"{auroc(attack.fooling, 'batch_norm_delta')}."
        )
