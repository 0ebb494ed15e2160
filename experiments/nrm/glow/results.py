"""Every number of the Glow experiment's report."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.nrm.claims import Claim
from experiments.nrm.settings import Study
from jaxood import metrics
from jaxood.density import bits_per_dim
from jaxood.report import record
from jaxood.report.labels import label


class Score(NamedTuple):
    """A score of one of the models.

    Attributes:
        model: its name.
        name: of the score, in the results record.
        params: that tell it from others of that name.
        head: of its column.
    """

    model: str
    name: str
    params: dict
    head: str


SCORES = {
    "glow_neg_log_prob": Score("glow", "neg_log_prob", {}, "Glow, −log p(x)"),
    "vae_neg_log_prob": Score("vae", "neg_log_prob", {}, "VAE, −log p(x)"),
    "glow_neg_log_pz_last": Score(
        "glow", "glow_neg_log_pz", {"levels": "last"}, "Glow, −log p(z), last level"
    ),
    "glow_neg_log_pz_all": Score(
        "glow", "glow_neg_log_pz", {"levels": "all"}, "Glow, −log p(z), all levels"
    ),
    "nrm_latent": Score("nrm", "nrm_latent", {}, "NRM, −log p(z*|y*)"),
    "nrm_neg_log_prob": Score("nrm", "nrm_neg_log_prob", {}, "NRM, −log p(x)"),
}
READINGS = {"last": "of the last level", "all": "summed over levels"}


class Results:
    """Scores of every set by every model: ``values[set][score]``, ``(n,)``, higher = more OOD."""

    def __init__(self, study: Study, values: Mapping[str, Mapping[str, np.ndarray]], image_shape):
        """Judge every set against trusted test images."""
        self.study, self.values, self.image_shape = study, values, image_shape
        self.shown = list(values)
        self.ood = [name for name in study.ood if name in values]
        self.detections = {
            (name, score): metrics.detection(values[study.in_dist][score], values[name][score])
            for name in self.shown
            if name != study.in_dist
            for score in SCORES
        }

    def bpd(self, name, model):
        """Bits per dimension of a set's images, ``(n,)``, under Glow or the VAE."""
        return bits_per_dim(-self.values[name][f"{model}_neg_log_prob"], self.image_shape)

    def bpd_rows(self):
        """Mean likelihoods."""
        return [
            record.BpdRow(
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

    def rows(self):
        """One row a set and a score."""
        return [
            record.ResultRow.from_detection(
                found,
                model=SCORES[score].model,
                in_dist=self.study.in_dist,
                ood=name,
                score=SCORES[score].name,
                params=SCORES[score].params,
            )
            for (name, score), found in self.detections.items()
        ]

    def cell(self, name, score):
        """An AUROC with its interval, as text."""
        found = self.detections[name, score]
        low, high = found.auroc_ci
        return f"{found.auroc:.3f} [{low:.3f}, {high:.3f}]"

    def claims(self) -> list[Claim]:
        """The paper's sentences on Glow, the VAE and itself, each with a verdict."""
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

    def headline(self):
        """The result in one sentence, whichever way it went."""
        first = self.ood[0]
        found = ", ".join(
            f"{self.detections[first, score].auroc:.2f} by {SCORES[score].head}" for score in SCORES
        )
        return (
            f"How well {label(first)} is told from test images of {label(self.study.in_dist)} "
            f"(AUROC; below 0.5, {label(first)} looks less suspicious than they do): {found}."
        )
