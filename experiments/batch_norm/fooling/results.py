"""Every number of the fooling experiment's report, as functions of the log-likelihoods."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.stats

from experiments.batch_norm.results import Judged
from experiments.batch_norm.settings import R1, R2, Sizes
from jaxood.report.labels import label

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


class Results(Judged):
    """What one attack came to.

    Attributes:
        attack: what was done.
        sets: images by name.
    """

    def __init__(self, attack: Attack, sets, log_probs, seconds):
        super().__init__(
            attack.model,
            attack.in_dist,
            attack.null,
            (attack.other, *attack.temperatures),
            image_shape=sets[attack.in_dist].shape[1:],
            log_probs=log_probs,
            ratios=RATIOS,
            sizes=attack.sizes,
        )
        self.attack, self.sets, self.seconds = attack, sets, seconds

    def _rows(self, name):
        temperature = self.attack.temperatures.get(name)
        params = None if temperature is None else {"temperature": temperature}
        return self.rows_of(name, self.seconds[name], params)

    def main_rows(self):
        """The other set itself, and the samples that were made to fool."""
        return self._rows(self.attack.other) + self._rows(self.attack.fooling)

    def temperature_rows(self):
        """The samples at the other temperatures."""
        others = [name for name in self.attack.temperatures if name != self.attack.fooling]
        return [row for name in others for row in self._rows(name)]

    def bpd_rows(self):
        """The paper's Table 4, and the samples that were made to fool."""
        return self.bpd_rows_of(self.scores)

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
