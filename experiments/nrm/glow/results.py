"""Every number of the Glow experiment's report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from experiments.nrm.claims import Claim
from experiments.nrm.settings import Study
from jaxood import metrics
from jaxood.density import bits_per_dim
from jaxood.report import interval, label, number
from jaxood.report.record import BpdRow, ResultRow


class Column(NamedTuple):
    """A score of one of the models.

    Attributes:
        model: name of the model.
        name: name of the score in the results record.
        params: settings of the score.
        head: heading of its column.
    """

    model: str
    name: str
    params: Mapping[str, Any]
    head: str


COLUMNS = {
    "glow_neg_log_prob": Column("glow", "neg_log_prob", {}, "Glow, −log p(x)"),
    "vae_neg_log_prob": Column("vae", "neg_log_prob", {}, "VAE, −log p(x)"),
    "glow_neg_log_pz_last": Column(
        "glow", "glow_neg_log_pz", {"levels": "last"}, "Glow, −log p(z), last level"
    ),
    "glow_neg_log_pz_all": Column(
        "glow", "glow_neg_log_pz", {"levels": "all"}, "Glow, −log p(z), all levels"
    ),
    "nrm_latent": Column("nrm", "nrm_latent", {}, "NRM, −log p(z*|y*)"),
    "nrm_neg_log_prob": Column("nrm", "nrm_neg_log_prob", {}, "NRM, −log p(x)"),
}
READINGS = {"last": "of the last level", "all": "summed over levels"}
"""The two readings of Glow's log p(z) in the paper."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """Scores of every set by every model.

    Attributes:
        study: the sets.
        values: by set and score ``(n,)``, higher = more OOD; the trusted set comes first.
        image_shape: ``(h, w, c)``.
    """

    study: Study
    values: Mapping[str, Mapping[str, np.ndarray]]
    image_shape: tuple[int, ...]

    @property
    def shown(self) -> list[str]:
        """Names of all sets."""
        return list(self.values)

    @property
    def judged(self) -> list[str]:
        """Names of the sets that are told from trusted test images."""
        return [name for name in self.shown if name != self.study.in_dist]

    @property
    def ood(self) -> list[str]:
        """Names of the OOD sets."""
        return [name for name in self.study.ood if name in self.values]

    @cached_property
    def detections(self) -> dict[tuple[str, str], metrics.Detection]:
        """Quality of each score on each set, by both."""
        trusted = self.values[self.study.in_dist]
        return {
            (name, score): metrics.detection(trusted[score], self.values[name][score])
            for name in self.judged
            for score in COLUMNS
        }

    def bpd(self, name: str, model: str) -> np.ndarray:
        """Return the bits per dimension of a set's images, ``(n,)``, under Glow or the VAE."""
        return bits_per_dim(-self.values[name][f"{model}_neg_log_prob"], self.image_shape)

    def bpd_rows(self) -> list[BpdRow]:
        """Make the rows of mean likelihoods."""
        return [
            BpdRow(
                model=model,
                dataset=name,
                mode="evaluation",
                bpd=float(bpd.mean()),
                stderr=float(bpd.std(ddof=1) / np.sqrt(len(bpd))),
                n=len(bpd),
            )
            for model in ("glow", "vae")
            for name in self.shown
            for bpd in [self.bpd(name, model)]
        ]

    def rows(self) -> list[ResultRow]:
        """Make a row for each set and score."""
        return [
            ResultRow.from_detection(
                found,
                model=COLUMNS[score].model,
                in_dist=self.study.in_dist,
                ood=name,
                score=COLUMNS[score].name,
                params=COLUMNS[score].params,
            )
            for (name, score), found in self.detections.items()
        ]

    def cell(self, name: str, score: str, *, inline: bool = True) -> str:
        """Write an AUROC with its interval."""
        found = self.detections[name, score]
        return interval(found.auroc, found.auroc_ci, inline=inline)

    def claims(self) -> list[Claim]:
        """Check the paper's sentences on Glow, the VAE and itself."""
        study, made = self.study, []
        first = self.ood[0]
        for model in ("glow", "vae"):
            score = f"{model}_neg_log_prob"
            made.append(
                Claim(
                    f"{label(model)} assigns higher likelihood to {label(first)} than to "
                    f"{label(study.in_dist)}.",
                    "Section 1, Figure 3",
                    self.detections[first, score].auroc_ci[1] < 0.5,
                    f"AUROC of −log p(x): {self.cell(first, score)}",
                )
            )
        for levels, words in READINGS.items():
            score = f"glow_neg_log_pz_{levels}"
            train, ood = (abs(self.detections[n, score].auroc - 0.5) for n in (study.train, first))
            made.append(
                Claim(
                    f"Glow's log p(z), {words}, separates training from test images about as much "
                    f"as {label(first)} from them.",
                    "Section 3.3, Figure 1b",
                    train >= ood / 2,
                    f"AUROC of training images {self.cell(study.train, score)}, of {label(first)} "
                    f"{self.cell(first, score)}; holds if the first is at least half as far from "
                    "0.5",
                )
            )
        made.append(
            Claim(
                "The NRM's log p(z*|y*) does not separate training from test images.",
                "Section 3.3, Figure 1a",
                abs(self.detections[study.train, "nrm_latent"].auroc - 0.5) <= 0.02,
                f"AUROC of training images: {self.cell(study.train, 'nrm_latent')}",
            )
        )
        made += [
            Claim(
                f"The NRM's log p(z*|y*) is lower for {label(name)}, unlike the likelihoods of "
                "Glow and the VAE.",
                "Section 3.3, Figure 1a",
                self.detections[name, "nrm_latent"].auroc_ci[0] > 0.5,
                f"AUROC: {self.cell(name, 'nrm_latent')}",
            )
            for name in self.ood
        ]
        return made

    def headline(self) -> str:
        """Say the result in one sentence, whichever way it went."""
        first = self.ood[0]
        found = ", ".join(
            f"{number(self.detections[first, score].auroc, 2)} by {column.head}"
            for score, column in COLUMNS.items()
        )
        return (
            f"How well {label(first)} is told from test images of {label(self.study.in_dist)} "
            f"(AUROC; below 0.5, {label(first)} looks less suspicious than they do): {found}."
        )
