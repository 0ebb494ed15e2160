"""Figures of the NRM experiment."""

from pathlib import Path

import numpy as np

from experiments.nrm import settings as nrm_study
from experiments.nrm.results import Results
from experiments.nrm.settings import Trained
from jaxood.report import figures
from jaxood.report.figures import layer_curves, layer_histograms
from jaxood.report.labels import label

LATENT = "log p(z*|y*), up to a constant (nats)"
SHOWN = 25
"""Most and least likely images (the paper's Figure 3a)."""
FEATURES, TOP = 6, 9
"""Of the paper's Figure C.1."""


def draw(results: Results, model: Trained, without: Results | None, folder: Path) -> None:
    """Write every figure."""
    study, sets = results.study, results.sets
    seed = study.seeds[0]
    judged = [study.in_dist, study.train, *study.ood]
    judged = [name for name in judged if name in sets]
    main = [n for n in judged if n in (study.in_dist, study.train, *study.ood[: study.main])]
    near = [n for n in (study.in_dist, *study.ood[study.main :]) if n in sets]
    by_score = results.scores[seed]

    def log_prob(names, score="nrm_latent", of=by_score):
        return {name: -of[name][score] for name in names}

    errors = {
        name: np.stack([by_score[name][s] for s in results.layer_scores("_mean")], axis=1)
        for name in main
    }
    auroc = {
        name: np.array([results.auroc(name, s) for s in results.layer_scores()])
        for name in judged[1:]
    }
    drawings = {
        "latent": figures.score_histograms(log_prob(main), study.in_dist, xlabel=LATENT),
        "log_prob": figures.score_histograms(
            log_prob(main, "nrm_neg_log_prob"),
            study.in_dist,
            xlabel="lower bound of log p(x), up to a constant (nats)",
        ),
        "near": figures.score_histograms(log_prob(near), study.in_dist, xlabel=LATENT),
        "profile": figures.score_histograms(
            {name: by_score[name]["nrm_profile"] for name in main},
            study.in_dist,
            xlabel="squared distance of the profile from trusted images",
            log=True,
        ),
        "reconstruction": layer_histograms(
            errors, study.in_dist, xlabel="reconstruction loss (mean over features)"
        ),
        "reconstruction_auroc": layer_curves(
            {name: a[:, 0] for name, a in auroc.items()},
            ylabel="AUROC of the reconstruction loss",
            chance=0.5,
            bands={name: (a[:, 1], a[:, 2]) for name, a in auroc.items()},
        ),
        "switches": layer_curves(
            {name: 100 * results.active(name) for name in main},
            study.in_dist,
            ylabel="switches that are on (%)",
            first=1,
        ),
        "extremes": _extremes(results),
        "rendered": _rendered(results, model),
        "wrong_label": _wrong_label(results, model),
        "features": _features(results, model),
        "training": figures.training_curve(model.fit.losses, ylabel="training loss"),
    }
    for number, family in enumerate(families(results)):
        drawings[f"family_{number}"] = figures.score_histograms(
            log_prob(family), family[0], xlabel=LATENT
        )
    if without is not None:
        drawings["negativity"] = figures.score_histograms(
            log_prob(main, of=without.scores[without.study.seeds[0]]),
            study.in_dist,
            xlabel=LATENT,
        )
    for name, figure in drawings.items():
        figures.save(figure, folder / f"{name}.png")


def families(results: Results):
    """Sets that are to look alike, as far as they are at hand."""
    families = [[n for n in family if n in results.sets] for family in results.study.families]
    return [family for family in families if len(family) > 1]


def _order(results: Results, name):
    """Indices of a set's images, the least likely by log p(x) first."""
    return np.argsort(-results.scores[results.study.seeds[0]][name]["nrm_neg_log_prob"])


def _extremes(results: Results):
    """Figure 3a: the most and the least likely trusted images."""
    name = results.study.in_dist
    order, images = _order(results, name), results.sets[name].images
    shown = min(SHOWN, len(order) // 2)
    return figures.image_grid(
        {"most likely": images[order[::-1][:shown]], "least likely": images[order[:shown]]},
        columns=13,
    )


def _rendered(results: Results, model: Trained):
    """Figure D.2: most and least likely images over what is rendered of them."""
    names = [results.study.in_dist, results.study.ood[0]]
    groups = {}
    for name in (n for n in names if n in results.sets):
        order, images = _order(results, name), results.sets[name].images
        for which, chosen in (("most", order[::-1][:10]), ("least", order[:10])):
            both = [images[chosen], nrm_study.rendered(model, images[chosen])]
            groups[f"{label(name)}, {which} likely: images, and what is rendered"] = np.concatenate(
                both
            )
    return figures.image_grid(groups, columns=10)


def _wrong_label(results: Results, model: Trained):
    """Figure D.3: the same latents, rendered from the right class and from others."""
    study = results.study
    images, labels = results.sets[study.in_dist]
    seed = study.seeds[0]
    m = results.measurements[seed][study.in_dist]
    right = np.flatnonzero(m.label == labels)[:8]
    chosen = right if len(right) else np.arange(min(8, len(images)))
    x, y = images[chosen], m.label[chosen]
    classes = m.logits.shape[1]
    groups = {"images": x, "rendered from their own class": nrm_study.rendered(model, x, y)}
    for step in sorted({1, classes // 2} - {0, classes}):
        other = (y + step) % classes
        groups[f"rendered from another class (y + {step})"] = nrm_study.rendered(model, x, other)
    return figures.image_grid(groups, columns=8)


def _features(results: Results, model: Trained):
    """Figure C.1: the images that move random features most."""
    study = results.study
    groups = {}
    for name in (study.in_dist, study.ood[0]):
        if name not in results.sets:
            continue
        images = results.sets[name].images
        found = nrm_study.activations(model, images, study.layer)
        live = np.flatnonzero(found.std(0) > 0)
        rng = np.random.default_rng(study.seeds[0])
        for feature in np.sort(rng.permutation(live)[:FEATURES]):
            top = np.argsort(-found[:, feature])[:TOP]
            groups[f"{label(name)}, feature {feature}"] = images[top]
    return figures.image_grid(groups, columns=TOP)
