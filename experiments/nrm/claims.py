"""The NRM paper's sentences that can be checked, each with a verdict and its numbers."""

from typing import NamedTuple

import numpy as np

from experiments.nrm.results import Results, overlap
from jaxood.report.labels import label
from jaxood.scores import rendering


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


def claims(results: Results, without: Results | None) -> list[Claim]:
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
