"""Every number of the NRM experiment's report, as functions of the measurements."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.nrm_study import Images, Study
from jaxood import metrics, record, scores
from jaxood.record import label
from jaxood.scores import rendering
from jaxood.scores.rendering import Measurement


class Quality(NamedTuple):
    """What one model does on trusted test images; nothing else may choose a recipe.

    Attributes:
        accuracy: of y*.
        reconstruction: mean squared error of a pixel, in the range [-1, 1].
        negative: share of h(l) below zero, mean over layers.
        spread: standard deviation over mean of log p(z*|y*).
        wrong_label: mean squared error of a pixel, rendered from another class.
    """

    accuracy: float
    reconstruction: float
    negative: float
    spread: float
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
                | ({"nrm_latent_waic": scores.waic(members[name])} if len(study.seeds) > 1 else {})
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

        def pixel_error(m):
            return float(m.reconstruction[:, 0].mean() / m.sizes[0])

        return Quality(
            accuracy=float((m.label == images.labels).mean()),
            reconstruction=pixel_error(m),
            negative=float(m.negative.mean()),
            spread=float(abs(log_prob.std() / log_prob.mean())),
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


class Claim(NamedTuple):
    """A sentence of the paper that was checked.

    Attributes:
        sentence: what it says.
        source: where.
        holds: here; None where it could not be checked.
        evidence: the numbers.
    """

    sentence: str
    source: str
    holds: bool | None
    evidence: str

    @property
    def verdict(self):
        """In words."""
        return {True: "holds", False: "does not hold here", None: "not checked"}[self.holds]


SEPARATE = 0.75
"""From this AUROC on, or one as far below 0.5, two sets are called separate."""


def claims(results: Results, without: "Results | None") -> list[Claim]:
    """The paper's sentences, each with a verdict and its numbers.

    Args:
        results: of the models.
        without: of a model trained without the negativity loss, or None.
    """
    study = results.study
    main = [name for name in study.ood[: study.main] if name in results.sets]

    def cell(name, score):
        mean, low, high = results.auroc(name, score)
        return f"{label(name)} {mean:.2f} [{low:.2f}, {high:.2f}]"

    def cells(names, score):
        return ", ".join(cell(name, score) for name in names)

    def is_above(name, score):
        return results.auroc(name, score)[1] > 0.5

    made = [
        Claim(
            "Histograms of log p(z*|y*) of training and test images lie on top of each other.",
            "Section 3.3",
            abs(results.auroc(study.train, "nrm_latent")[0] - 0.5) <= 0.02,
            f"AUROC of training against test images: {cell(study.train, 'nrm_latent')}",
        )
    ]
    made += [
        Claim(
            f"The mean of log p(z*|y*) is lower for {label(name)} than for trusted images.",
            "Section 3.3, Table 1",
            is_above(name, "nrm_latent"),
            f"AUROC: {cell(name, 'nrm_latent')}",
        )
        for name in main
    ]
    pixel = [results.auroc(name, "nrm_reconstruction_0")[0] for name in main]
    made.append(
        Claim(
            "The reconstruction loss of pixels does not separate the sets.",
            "Section 3.4",
            all(1 - SEPARATE < auroc < SEPARATE for auroc in pixel),
            f"AUROC: {cells(main, 'nrm_reconstruction_0')}; separate from {SEPARATE} on",
        )
    )
    inner = range(1, results.layers - 1)
    by_layer = {k: [results.auroc(n, f"nrm_reconstruction_{k}") for n in main] for k in inner}
    best = max(inner, key=lambda k: min(mean for mean, _, _ in by_layer[k]))
    made.append(
        Claim(
            "At some intermediate layer the OOD sets have the larger reconstruction loss.",
            "Section 3.4",
            all(low > 0.5 for _, low, _ in by_layer[best]),
            f"AUROC at layer {best}, the best for all at once: "
            + cells(main, f"nrm_reconstruction_{best}"),
        )
    )
    made += _overlap_claims(results, main)
    made.append(_label_claim(results))
    made.append(_dominated_claim(results))
    made.append(_switch_claim(results, main))
    made.append(_negativity_claim(results, without, main))
    return made


def _overlap_claims(results: Results, main):
    study = results.study
    seed = study.seeds[0]

    def log_prob(name):
        return results.scores[seed][name]["nrm_latent"]

    made = []
    near = [name for name in study.ood[study.main :] if name in results.sets]
    if near and main:
        areas = {n: overlap(log_prob(study.in_dist), log_prob(n)) for n in (*near, *main)}
        made.append(
            Claim(
                f"{label(near[0])} overlaps with {label(study.in_dist)} more than the others do.",
                "Section 3.3, Figure 4a",
                all(areas[near[0]] > areas[name] for name in main),
                "shared area of the histograms of log p(z*|y*): "
                + ", ".join(f"{label(name)} {area:.2f}" for name, area in areas.items()),
            )
        )
    for family in study.families:
        present = [name for name in family if name in results.sets]
        if len(present) == len(family) > 1:
            *others, last = present
            areas = {name: overlap(log_prob(name), log_prob(last)) for name in others}
            rest = overlap(log_prob(study.in_dist), log_prob(last))
            made.append(
                Claim(
                    f"Sets that look alike align: {', '.join(map(label, present))}.",
                    "Section 3.3, Figure 4b",
                    min(areas.values()) > rest,
                    f"shared area with {label(last)}: "
                    + ", ".join(f"{label(name)} {area:.2f}" for name, area in areas.items())
                    + f"; all of {label(study.in_dist)} {rest:.2f}; holds if the first are larger",
                )
            )
    return made


def _label_claim(results: Results):
    found = [results.quality(seed) for seed in results.study.seeds]
    right = float(np.mean([q.reconstruction for q in found]))
    wrong = float(np.mean([q.wrong_label for q in found]))
    return Claim(
        "The label hardly matters for rendering.",
        "Appendix D, Figure D.3",
        wrong < 1.1 * right,
        f"mean squared error of a pixel: {right:.4f} from y*, {wrong:.4f} from another class; "
        "holds below a tenth more",
    )


def _dominated_claim(results: Results):
    shares = []
    for by_set in results.measurements.values():
        m = by_set[results.study.in_dist]
        shares.append(np.corrcoef(m.reconstruction[:, 0], rendering.neg_log_prob(m))[0, 1] ** 2)
    share = float(np.mean(shares))
    return Claim(
        "log p(x) is dominated by the reconstruction loss.",
        "Section 3.2",
        share > 0.5,
        f"share of the variance of log p(x) over trusted images that the reconstruction loss of "
        f"pixels explains: {100 * share:.0f} %",
    )


def _switch_claim(results: Results, main):
    study = results.study
    test = results.active(study.in_dist)
    gaps = {name: float(np.abs(results.active(name) - test).max()) for name in (study.train, *main)}
    return Claim(
        "Mean switches are almost the same for training and test images, and differ for OOD sets.",
        "Appendix E, Figure E.4",
        all(gaps[name] > 3 * gaps[study.train] for name in main),
        "largest difference from test images at any layer, in percentage points: "
        + ", ".join(f"{label(name)} {100 * gap:.1f}" for name, gap in gaps.items())
        + "; holds from three times that of training images on",
    )


def _negativity_claim(results: Results, without, main):
    sentence = "Negativity loss in training is crucial for detection by log p(z*|y*)."
    if without is None:
        return Claim(sentence, "Appendix B", None, "the model without it was not trained")
    seed = without.study.seeds[0]

    def one(found, name):
        return found.detections(name, "nrm_latent")[0].auroc

    pairs = {name: (one(results, name), one(without, name)) for name in main}
    quality = [found.quality(seed) for found in (results, without)]
    return Claim(
        sentence,
        "Appendix B",
        all(own > 0.5 >= other or own > other + 0.1 for own, other in pairs.values()),
        "AUROC with and without it, same seed: "
        + ", ".join(f"{label(n)} {own:.2f} and {other:.2f}" for n, (own, other) in pairs.items())
        + f"; share of h below zero {100 * quality[0].negative:.0f} % and "
        f"{100 * quality[1].negative:.0f} %; holds if each set is found with it only, or better by "
        "0.1",
    )
