"""Every number of the NRM experiment's report, as functions of the measurements."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.lab.store import Scores, identity
from experiments.nrm.settings import Images, Study, Trained, measured, trained
from jaxood import metrics, scores
from jaxood.report import record
from jaxood.report.labels import label
from jaxood.scores import rendering
from jaxood.scores.rendering import Measurement


class Quality(NamedTuple):
    """What one model does on trusted test images; nothing else may choose a recipe.

    Attributes:
        accuracy: of y*.
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


class Results:
    """Scores of several models, one a seed.

    Attributes:
        scores: ``{seed: {set: {score: (n,)}}}``, higher = more OOD.
        measurements: ``{seed: {set: Measurement}}``.
    """

    def __init__(
        self,
        study: Study,
        sets: Mapping[str, Images],
        measurements: Mapping[int, Mapping[str, Measurement]],
        wrong: Mapping[int, Measurement],
    ):
        """Score every set.

        Args:
            study: what was done.
            sets: images by name.
            measurements: by seed and set.
            wrong: by seed, of the trusted set, rendered from another class than y*.
        """
        self.study, self.sets, self.measurements, self.wrong = study, sets, measurements, wrong
        self.layers = measurements[study.seeds[0]][study.in_dist].reconstruction.shape[1]
        self.judged = [name for name in (study.train, *study.ood) if name in sets]
        members = {
            name: np.stack([self._centred(seed, name) for seed in study.seeds]) for name in sets
        }
        self.scores = {
            seed: {
                name: rendering.all_scores(m)
                | rendering.calibrated_scores(m, by_set[study.null])
                | ({"nrm_latent_waic": scores.statistics.waic(members[name])} if len(study.seeds) > 1 else {})
                for name, m in by_set.items()
            }
            for seed, by_set in measurements.items()
        }

    def _centred(self, seed, name):
        """Log p(z*|y*) less its trusted mean, which stands in for the normalizer of each model."""
        own, null = (self.measurements[seed][n] for n in (name, self.study.null))
        return rendering.latent(null).mean() - rendering.latent(own)

    def values(self, name, score):
        """A score of a set by every model: ``(seeds, n)``."""
        return np.stack([self.scores[seed][name][score] for seed in self.study.seeds])

    def detections(self, name, score):
        """How well a score tells a set from trusted test images, one `metrics.Detection` a seed."""
        return [
            metrics.detection(by_set[self.study.in_dist][score], by_set[name][score])
            for by_set in self.scores.values()
        ]

    def auroc(self, name, score):
        """Mean over seeds; and the lowest and the highest end of their 95 % intervals."""
        found = self.detections(name, score)
        low, high = zip(*(d.auroc_ci for d in found), strict=True)
        return float(np.mean([d.auroc for d in found])), min(low), max(high)

    def layer_scores(self, reduction=""):
        """Names of the reconstruction scores, l = 0..L."""
        return [f"nrm_reconstruction_{number}{reduction}" for number in range(self.layers)]

    def rows(self, names: Sequence[str]):
        """One row a set, a score and a seed."""
        return [
            record.ResultRow.from_detection(
                found,
                model="nrm",
                in_dist=self.study.in_dist,
                ood=name,
                score=score,
                params={"seed": seed},
            )
            for name in self.judged
            for score in names
            for seed, found in zip(self.study.seeds, self.detections(name, score), strict=True)
        ]

    def names(self):
        """Of all scores: WAIC is one score of all models, and stands with the others."""
        return list(self.scores[self.study.seeds[0]][self.study.in_dist])

    def quality(self, seed) -> Quality:
        """On trusted test images."""
        m, images = self.measurements[seed][self.study.in_dist], self.sets[self.study.in_dist]
        log_prob = -rendering.latent(m)
        logit = np.take_along_axis(m.logits, m.label[:, None], axis=1)[:, 0]

        def pixel_error(m):
            return float(m.reconstruction[:, 0].mean() / m.sizes[0])

        return Quality(
            accuracy=float((m.label == images.labels).mean()),
            reconstruction=pixel_error(m),
            negative=float(m.negative.mean()),
            spread=float(abs(log_prob.std() / log_prob.mean())),
            share=float(np.abs(log_prob).mean() / np.abs(logit - log_prob).mean()),
            wrong_label=pixel_error(self.wrong[seed]),
        )

    def table_1(self):
        """By set, (mean over images and models, mean standard deviation over images), thrice.

        log p(x), log p(z*|y*) and minus the reconstruction loss at the study's layer.
        """

        def both(name, score):
            values = -self.values(name, score)
            return float(values.mean()), float(values.std(1).mean())

        columns = ("nrm_neg_log_prob", "nrm_latent", f"nrm_reconstruction_{self.study.layer}")
        return {
            name: tuple(both(name, score) for score in columns)
            for name in (self.study.train, self.study.in_dist, *self.study.ood)
            if name in self.sets
        }

    def energy_correlation(self):
        """Of log p(z*|y*) with |x|^2 over trusted images, and the slope; means over models.

        Where h(0) = x throughout, log p(z*|y) is a constant less |x|^2 / 2.
        """
        found = []
        for by_set in self.measurements.values():
            m = by_set[self.study.in_dist]
            log_prob = -rendering.latent(m)
            found.append(
                (np.corrcoef(log_prob, m.energy)[0, 1], np.polyfit(m.energy, log_prob, 1)[0])
            )
        correlation, slope = np.mean(found, axis=0)
        return float(correlation), float(slope)

    def agreement(self) -> float:
        """Mean correlation of log p(z*|y*) of trusted images between two models; NaN for one.

        Near 0, what one model makes of an image says nothing of what another does: noise.
        """
        by_seed = self.values(self.study.in_dist, "nrm_latent")
        if len(by_seed) < 2:
            return np.nan
        return float(np.corrcoef(by_seed)[np.triu_indices(len(by_seed), 1)].mean())

    def active(self, name):
        """Mean share of switches that are on, by layer, over images and models: ``(L,)``."""
        return np.mean(
            [by_set[name].active.mean(0) for by_set in self.measurements.values()], axis=0
        )

    def headline(self):
        """The result in two sentences, whichever way it went."""
        qualities = [self.quality(seed) for seed in self.study.seeds]
        accuracy, error = (
            np.mean([getattr(q, field) for q in qualities])
            for field in ("accuracy", "reconstruction")
        )

        def found(score):
            parts = []
            for name in self.study.ood[: self.study.main]:
                if name in self.sets:
                    mean, low, high = self.auroc(name, score)
                    parts.append(f"{mean:.2f} [{low:.2f}, {high:.2f}] on {label(name)}")
            return ", ".join(parts)

        return (
            f"One network classifies {label(self.study.in_dist)} ({100 * accuracy:.0f} % of test "
            f"images right) and renders it back (mean squared error {error:.3f} a pixel). AUROC of "
            f"the paper's score, −log p(z*|y*): {found('nrm_latent')}. AUROC of the profile of all "
            f"layers: {found('nrm_profile')}."
        )


def overlap(a, b, bins=30):
    """Area that two histograms share, in [0, 1]: 1 where they are the same.

    Args:
        a: ``(n,)``.
        b: ``(m,)``.
        bins: over the range of both between their 0.5 and 99.5 percentiles; what lies outside
            counts with the first and the last.
    """
    low, high = np.quantile(np.concatenate([a, b]), [0.005, 0.995])
    if not low < high:
        return 1.0
    shares = []
    for values in (a, b):
        counts = np.histogram(np.clip(values, low, high), bins, (low, high))[0]
        shares.append(counts / counts.sum())
    return float(np.minimum(*shares).sum())


def fitted(
    study: Study,
    images: Images,
    sets: Mapping[str, Images],
    store: Scores,
    out: Path,
    place="seed",
    devices: int | None = None,
) -> tuple[dict[int, Trained], Results]:
    """Train a model a seed, and measure every set; resume what ``out`` and ``store`` hold.

    Args:
        study: what to do.
        images: to train on.
        sets: to measure, by name.
        store: where measurements are kept.
        out: the run folder.
        place: what checkpoints and measurements are named after, with the seed behind it.
        devices: to train and score on, of each process; all by default.

    Returns:
        The models by seed, and their results.
    """
    models, measurements, wrong = {}, {}, {}
    own = sets[study.in_dist].images
    for seed in study.seeds:
        prefix = f"{place}_{seed}"
        model = models[seed] = trained(
            study.recipe, images, seed=seed, devices=devices, directory=out / prefix
        )
        pixels = {name: chosen.images for name, chosen in sets.items()}
        store.expect(identity(pixels, **{prefix: model.fit.variables}))
        measurements[seed] = {
            name: measured(model, name, chosen.images, store, prefix)
            for name, chosen in sets.items()
        }
        m = measurements[seed][study.in_dist]
        other = (m.label + 1) % m.logits.shape[1]
        wrong[seed] = measured(model, study.in_dist, own, store, prefix, y=other)
    return models, Results(study, sets, measurements, wrong)
