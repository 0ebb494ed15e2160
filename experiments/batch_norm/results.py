"""Every number of the BatchNorm test's report, from the log-likelihoods."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import scipy.stats

from experiments.batch_norm import paper
from experiments.batch_norm.judged import Judged
from experiments.batch_norm.settings import R2, SWEEP_R2, Study
from jaxood import detector, metrics
from jaxood.report import label, number
from jaxood.report.record import BpdRow, ResultRow

FALSE_POSITIVE_RATE = 0.05
"""The rate that p-values are compared with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results(Judged):
    """The results of one study: scores of the OOD sets, and of trusted images as a control.

    Attributes:
        study: the study.
        mixed: by OOD set and its share of a mixed test set, Δ (r1 -> 0) of the trusted and of the
            OOD images.
    """

    study: Study
    mixed: Mapping[tuple[str, float], tuple[np.ndarray, np.ndarray]]

    def auroc(self, name: str, score: str) -> float:
        """Return how well a score tells a set from the trusted one, as AUROC."""
        return self.detection(name, score).auroc

    @property
    def judged(self) -> tuple[str, ...]:
        """Names of the trusted set and of the OOD sets, without the control."""
        return (self.study.in_dist, *self.study.ood)

    @cached_property
    def rows(self) -> list[ResultRow]:
        """A row for each set and each score, at the main setting."""
        return [row for name in self.ood for row in self.rows_of(name)]

    @cached_property
    def sweep_rows(self) -> list[ResultRow]:
        """Rows of Table 5: Δ with r1 -> 0 against r2."""
        reported = paper.auroc(self.in_dist, self.model)
        return [
            self.row(
                name,
                "batch_norm_delta",
                metrics.detection(
                    self.delta(self.in_dist, 0, r2).mean, self.delta(name, 0, r2).mean
                ),
                self._limit(r2),
                paper=reported.get((name, f"batch_norm_delta@{r2}")),
            )
            for name in self.study.ood
            for r2 in SWEEP_R2
        ]

    @cached_property
    def mixed_rows(self) -> list[ResultRow]:
        """Rows of the mixed test sets, inside which Δ has to tell the images apart."""
        return [
            self.row(
                name,
                "batch_norm_delta",
                metrics.detection(trusted, ood),
                self._limit(R2) | {"contamination": share},
            )
            for (name, share), (trusted, ood) in self.mixed.items()
        ]

    def _limit(self, r2: float) -> dict[str, Any]:
        sizes = self.sizes
        return {"b": sizes.batch_size, "r1": 0, "r2": r2, "draws": sizes.draws}

    @cached_property
    def bpd_rows(self) -> list[BpdRow]:
        """Rows of Table 1."""
        return self.bpd_rows_of(self.judged)

    @property
    def delta_stderr(self) -> float:
        """Median standard error of an image's Δ, nats."""
        return float(np.median([self.delta(name).stderr for name in self.judged]))

    @cached_property
    def p_values(self) -> np.ndarray:
        """p-values of fresh trusted images by −log p(x), ``(n,)``."""
        return detector.p_values_of(self.scores[self.in_dist]["neg_log_prob"], -self.null_log_prob)

    def calibration(self) -> dict[str, Any]:
        """Measure what p-values of fresh trusted images do, by a per-image and by a batch score.

        Those of −log p(x) are uniform by construction, up to chance. Δ of images of one set move
        together, so the share of a trusted set beyond the calibration set's 95 % quantile may be
        anything; it is given for both trusted sets.
        """
        fresh = self.scores[self.in_dist]["neg_log_prob"]
        flagged = int((self.p_values <= FALSE_POSITIVE_RATE).sum())
        interval = scipy.stats.binomtest(flagged, len(fresh)).proportion_ci()

        def beyond(name: str) -> float:
            p_values = detector.p_values_of(self.delta(name).mean, self.null_delta)
            return float((p_values <= FALSE_POSITIVE_RATE).mean())

        return {
            # Two samples, since the null is a sample too.
            "ks_p_value": float(np.asarray(scipy.stats.ks_2samp(fresh, -self.null_log_prob))[1]),
            "chosen_fpr": FALSE_POSITIVE_RATE,
            "realised_fpr": flagged / len(fresh),
            "realised_fpr_ci": [float(interval.low), float(interval.high)],
            "delta_fpr": {name: beyond(name) for name in (self.in_dist, self.study.control)},
            "n": len(fresh),
            "null_images": len(self.null_log_prob),
        }

    def headline(self) -> str:
        """Say how the likelihood and Δ fare on the OOD set that the likelihood finds worst."""
        worst = min(self.study.ood, key=lambda name: self.auroc(name, "neg_log_prob"))
        likelihood = self.auroc(worst, "neg_log_prob")
        verdict = "prefers them to" if likelihood < 0.5 else "cannot be relied on to tell them from"
        if likelihood > 0.9:
            verdict = "tells them from"
        return (
            f"Trained on {label(self.study.in_dist)} and shown {label(worst)}, the likelihood "
            f"{verdict} trusted images: AUROC of −log p(x) is {number(likelihood, 3)}. The "
            "BatchNorm test on the same images: AUROC of Δ is "
            f"{number(self.auroc(worst, 'batch_norm_delta'), 3)}."
        )
