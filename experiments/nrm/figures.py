"""Figures of the NRM experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.nrm.measured import activations, rendered
from experiments.nrm.results import Results
from experiments.nrm.scored import LATENT, NEG_LOG_PROB, PROFILE, Key
from jaxood.report import figures, label
from jaxood.train import Trained

LATENT_LABEL = "log p(z*|y*), up to a constant (nats)"
SHOWN = 25
"""Number of most and of least likely images (the paper's Figure 3a)."""
FEATURES, TOP = 6, 9
"""Numbers of features, and of images that move each most (the paper's Figure C.1)."""


def drawings(
    results: Results, model: Trained, without: Results | None
) -> dict[str, Callable[[], Figure]]:
    """List the figures of the page.

    Args:
        results: results of the models.
        model: the first model.
        without: results of a model trained without the negativity loss, or None.

    Returns:
        By name, functions that draw.
    """
    in_dist = results.study.in_dist
    main = [in_dist, results.study.train, *results.main]

    def latent(of: Results, names: Iterable[str], trusted: str = in_dist) -> Figure:
        return figures.score_histograms(_minus(of, names, LATENT), trusted, xlabel=LATENT_LABEL)

    drawn: dict[str, Callable[[], Figure]] = {
        "latent": partial(latent, results, main),
        "log_prob": lambda: figures.score_histograms(
            _minus(results, main, NEG_LOG_PROB),
            in_dist,
            xlabel="lower bound of log p(x), up to a constant (nats)",
        ),
        "near": partial(latent, results, [in_dist, *results.near]),
        "profile": lambda: figures.score_histograms(
            {name: _of_first(results, name)[PROFILE] for name in main},
            in_dist,
            xlabel="squared distance of the profile from trusted images",
            log=True,
        ),
        "reconstruction": lambda: figures.layer_histograms(
            {name: _mean_errors(results, name) for name in main},
            in_dist,
            xlabel="reconstruction loss (mean over features)",
        ),
        "reconstruction_auroc": partial(_reconstruction_auroc, results),
        "switches": lambda: figures.layer_curves(
            {name: 100 * results.active(name) for name in main},
            in_dist,
            ylabel="switches that are on (%)",
            first=1,
        ),
        "extremes": partial(_extremes, results),
        "rendered": partial(_rendered, results, model),
        "wrong_label": partial(_wrong_label, results, model),
        "features": partial(_features, results, model),
        "training": lambda: figures.training_curve(model.losses, ylabel="training loss"),
    }
    for number, family in enumerate(results.families):
        drawn[f"family_{number}"] = partial(latent, results, family, family[0])
    if without is not None:
        drawn["negativity"] = partial(latent, without, main)
    return drawn


def _of_first(results: Results, name: str) -> dict[Key, np.ndarray]:
    """The scores of a set by the first model."""
    return results.scores[results.study.seeds[0]][name]


def _minus(results: Results, names: Iterable[str], key: Key) -> dict[str, np.ndarray]:
    return {name: -_of_first(results, name)[key] for name in names}


def _mean_errors(results: Results, name: str) -> np.ndarray:
    scores = _of_first(results, name)
    return np.stack([scores[key] for key in results.layer_keys("mean")], axis=1)


def _reconstruction_auroc(results: Results) -> Figure:
    keys = results.layer_keys()
    auroc = {n: np.array([results.auroc(n, key) for key in keys]) for n in results.judged}
    return figures.layer_curves(
        {name: a[:, 0] for name, a in auroc.items()},
        ylabel="AUROC of the reconstruction loss",
        chance=0.5,
        bands={name: (a[:, 1], a[:, 2]) for name, a in auroc.items()},
    )


def _order(results: Results, name: str) -> np.ndarray:
    """Indices of a set's images, the least likely by log p(x) first."""
    return np.argsort(-_of_first(results, name)[NEG_LOG_PROB])


def _extremes(results: Results) -> Figure:
    """Figure 3a: the most and the least likely trusted images."""
    name = results.study.in_dist
    order, images = _order(results, name), results.sets[name].images
    shown = min(SHOWN, len(order) // 2)
    return figures.image_grid(
        {"most likely": images[order[::-1][:shown]], "least likely": images[order[:shown]]},
        columns=13,
    )


def _rendered(results: Results, model: Trained) -> Figure:
    """Figure D.2: the most and the least likely images over their renderings."""
    groups = {}
    for name in results.present([results.study.in_dist, results.study.ood[0]]):
        order, images = _order(results, name), results.sets[name].images
        for which, chosen in (("most", order[::-1][:10]), ("least", order[:10])):
            title = f"{label(name)}, {which} likely: images, and what is rendered"
            groups[title] = np.concatenate([images[chosen], rendered(model, images[chosen])])
    return figures.image_grid(groups, columns=10)


def _wrong_label(results: Results, model: Trained) -> Figure:
    """Figure D.3: the same latents, rendered from the right class and from others."""
    study = results.study
    images, labels = results.sets[study.in_dist]
    m = results.measurements[study.seeds[0]][study.in_dist]
    right = np.flatnonzero(m.label == labels)[:8]
    chosen = right if len(right) else np.arange(min(8, len(images)))
    x, y = images[chosen], m.label[chosen]
    classes = m.logits.shape[1]
    groups = {"images": x, "rendered from their own class": rendered(model, x, y)}
    for step in sorted({1, classes // 2} - {0, classes}):
        title = f"rendered from another class (y + {step})"
        groups[title] = rendered(model, x, (y + step) % classes)
    return figures.image_grid(groups, columns=8)


def _features(results: Results, model: Trained) -> Figure:
    """Figure C.1: the images that move random features most."""
    study, groups = results.study, {}
    for name in results.present([study.in_dist, study.ood[0]]):
        images = results.sets[name].images
        found = activations(model, images, study.layer)
        live = np.flatnonzero(found.std(0) > 0)
        rng = np.random.default_rng(study.seeds[0])
        for feature in np.sort(rng.permutation(live)[:FEATURES]):
            top = np.argsort(-found[:, feature])[:TOP]
            groups[f"{label(name)}, feature {feature}"] = images[top]
    return figures.image_grid(groups, columns=TOP)
