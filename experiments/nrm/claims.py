"""The NRM paper's sentences that can be checked, each with a verdict and its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from experiments.nrm.results import Results, overlap
from experiments.nrm.scored import LATENT, Key, reconstruction
from jaxood.report import label, number, percent
from jaxood.scores.nrm import statistics


class Claim(NamedTuple):
    """A sentence of the paper that was checked.

    Attributes:
        sentence: the sentence.
        source: its place in the paper.
        holds: whether it holds here; None where it could not be checked.
        evidence: the numbers.
    """

    sentence: str
    source: str
    holds: bool | None
    evidence: str

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return {True: "holds", False: "does not hold here", None: "not checked"}[self.holds]


SEPARATE = 0.75
"""From this AUROC on, or one as far below 0.5, two sets are called separate."""


def claims(results: Results, without: Results | None) -> list[Claim]:
    """Check the paper's sentences.

    Args:
        results: results of the models.
        without: results of a model trained without the negativity loss, or None.
    """
    return [
        _training_claim(results),
        *_latent_claims(results),
        _pixel_claim(results),
        _layer_claim(results),
        *_near_claims(results),
        *_family_claims(results),
        _label_claim(results),
        _dominated_claim(results),
        _switch_claim(results),
        _negativity_claim(results, without),
    ]


def _aurocs(results: Results, names: Iterable[str], key: Key) -> str:
    return ", ".join(f"{label(name)} {results.sentence(name, key)}" for name in names)


def _numbers(values: Mapping[str, float], digits: int = 2) -> str:
    return ", ".join(f"{label(name)} {number(value, digits)}" for name, value in values.items())


def _training_claim(results: Results) -> Claim:
    train = results.study.train
    return Claim(
        "Histograms of log p(z*|y*) of training and test images lie on top of each other.",
        "Section 3.3",
        abs(results.auroc(train, LATENT)[0] - 0.5) <= 0.02,
        f"AUROC of training against test images: {_aurocs(results, [train], LATENT)}",
    )


def _latent_claims(results: Results) -> list[Claim]:
    return [
        Claim(
            f"The mean of log p(z*|y*) is lower for {label(name)} than for trusted images.",
            "Section 3.3, Table 1",
            results.auroc(name, LATENT)[1] > 0.5,
            f"AUROC: {_aurocs(results, [name], LATENT)}",
        )
        for name in results.main
    ]


def _pixel_claim(results: Results) -> Claim:
    pixels = reconstruction(0)
    found = [results.auroc(name, pixels)[0] for name in results.main]
    return Claim(
        "The reconstruction loss of pixels does not separate the sets.",
        "Section 3.4",
        all(1 - SEPARATE < auroc < SEPARATE for auroc in found),
        f"AUROC: {_aurocs(results, results.main, pixels)}; separate from {SEPARATE} on",
    )


def _layer_claim(results: Results) -> Claim:
    by_layer = {
        layer: [results.auroc(name, reconstruction(layer)) for name in results.main]
        for layer in range(1, results.layers - 1)
    }
    best = max(by_layer, key=lambda layer: min(mean for mean, _, _ in by_layer[layer]))
    return Claim(
        "At some intermediate layer the OOD sets have the larger reconstruction loss.",
        "Section 3.4",
        all(low > 0.5 for _, low, _ in by_layer[best]),
        f"AUROC at layer {best}, the best for all at once: "
        + _aurocs(results, results.main, reconstruction(best)),
    )


def _near_claims(results: Results) -> list[Claim]:
    in_dist = results.study.in_dist
    if not (results.near and results.main):
        return []
    first, others = results.near[0], results.main
    latent = _latent(results)
    areas = {name: overlap(latent[in_dist], latent[name]) for name in (*results.near, *others)}
    return [
        Claim(
            f"{label(first)} overlaps with {label(in_dist)} more than the others do.",
            "Section 3.3, Figure 4a",
            all(areas[first] > areas[name] for name in others),
            f"Shared area of the histograms of log p(z*|y*): {_numbers(areas)}",
        )
    ]


def _family_claims(results: Results) -> list[Claim]:
    latent, in_dist, made = _latent(results), results.study.in_dist, []
    for family in results.study.families:
        if results.present(family) == list(family) and len(family) > 1:
            *others, last = family
            areas = {name: overlap(latent[name], latent[last]) for name in others}
            rest = overlap(latent[in_dist], latent[last])
            made.append(
                Claim(
                    f"Sets that look alike align: {', '.join(map(label, family))}.",
                    "Section 3.3, Figure 4b",
                    min(areas.values()) > rest,
                    f"Shared area with {label(last)}: {_numbers(areas)}; all of {label(in_dist)} "
                    f"{number(rest, 2)}; holds if the first are larger",
                )
            )
    return made


def _latent(results: Results) -> dict[str, np.ndarray]:
    """−log p(z*|y*) of each set by the first model."""
    return {n: by_key[LATENT] for n, by_key in results.scores[results.study.seeds[0]].items()}


def _label_claim(results: Results) -> Claim:
    found = [results.quality(seed) for seed in results.study.seeds]
    right = float(np.mean([q.reconstruction for q in found]))
    wrong = float(np.mean([q.wrong_label for q in found]))
    return Claim(
        "The label hardly matters for rendering.",
        "Appendix D, Figure D.3",
        wrong < 1.1 * right,
        f"Mean squared error of a pixel: {number(right, 4)} from y*, {number(wrong, 4)} from "
        "another class; holds below a tenth more",
    )


def _dominated_claim(results: Results) -> Claim:
    shares = []
    for by_set in results.measurements.values():
        m = by_set[results.study.in_dist]
        shares.append(np.corrcoef(m.reconstruction[:, 0], statistics.neg_log_prob(m))[0, 1] ** 2)
    share = float(np.mean(shares))
    return Claim(
        "log p(x) is dominated by the reconstruction loss.",
        "Section 3.2",
        share > 0.5,
        "Share of the variance of log p(x) over trusted images that the reconstruction loss of "
        f"pixels explains: {percent(share)}",
    )


def _switch_claim(results: Results) -> Claim:
    train = results.study.train
    test = results.active(results.study.in_dist)
    names = (train, *results.main)
    gaps = {name: float(np.abs(results.active(name) - test).max()) for name in names}
    return Claim(
        "Mean switches are almost the same for training and test images, and differ for OOD sets.",
        "Appendix E, Figure E.4",
        all(gaps[name] > 3 * gaps[train] for name in results.main),
        "Largest difference from test images at any layer, in percentage points: "
        + _numbers({name: 100 * gap for name, gap in gaps.items()}, 1)
        + "; holds from three times that of training images on",
    )


def _negativity_claim(results: Results, without: Results | None) -> Claim:
    sentence = "Negativity loss in training is crucial for detection by log p(z*|y*)."
    if without is None:
        return Claim(sentence, "Appendix B", None, "The model without it was not trained")
    seed = without.study.seeds[0]
    pairs = {
        name: [found.detections(name, LATENT)[0].auroc for found in (results, without)]
        for name in results.main
    }
    aurocs = ", ".join(
        f"{label(name)} {number(own, 2)} and {number(other, 2)}"
        for name, (own, other) in pairs.items()
    )
    negative = [percent(found.quality(seed).negative) for found in (results, without)]
    return Claim(
        sentence,
        "Appendix B",
        all(own > 0.5 >= other or own > other + 0.1 for own, other in pairs.values()),
        f"AUROC with and without it, same seed: {aurocs}; share of h below zero "
        f"{' and '.join(negative)}; holds if each set is found with it only, or better by 0.1",
    )
