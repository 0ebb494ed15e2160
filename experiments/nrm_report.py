"""Figures and report of the NRM experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments import nrm_study
from experiments.nrm_paper import RECONSTRUCTION, TABLE_1
from experiments.nrm_results import Claim, Results, overlap
from experiments.nrm_study import Images, Study, Trained
from jaxood import figures, record, report
from jaxood.layer_figures import layer_curves, layer_histograms
from jaxood.record import label
from jaxood.report import format_cell

LATENT = "log p(z*|y*), up to a constant (nats)"
MAIN = {
    score: label(score)
    for score in ("nrm_latent", "nrm_latent_mean", "nrm_neg_log_prob", "nrm_neg_log_prob_mean")
}
BEYOND = {
    "nrm_latent_two_sided": "two-sided",
    "nrm_latent_class_centred": "class-centred",
    "nrm_latent_per_energy": "per energy",
    "nrm_latent_waic": "WAIC",
    "nrm_profile": "profile",
}
_SHOWN = 25  # most and least likely images
_FEATURES, _TOP = 6, 9  # of Figure C.1


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
    for number, family in enumerate(_families(results)):
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


def _families(results: Results):
    families = [[n for n in family if n in results.sets] for family in results.study.families]
    return [family for family in families if len(family) > 1]


def _order(results: Results, name):
    """Indices of a set's images, the least likely by log p(x) first."""
    return np.argsort(-results.scores[results.study.seeds[0]][name]["nrm_neg_log_prob"])


def _extremes(results: Results):
    """Figure 3a: the most and the least likely trusted images."""
    name = results.study.in_dist
    order, images = _order(results, name), results.sets[name].images
    shown = min(_SHOWN, len(order) // 2)
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
        for feature in np.sort(rng.permutation(live)[:_FEATURES]):
            top = np.argsort(-found[:, feature])[:_TOP]
            groups[f"{label(name)}, feature {feature}"] = images[top]
    return figures.image_grid(groups, columns=_TOP)


# ------------------------------------------------------------------------------------- the page


def write(
    results: Results,
    made: record.Record,
    found: Sequence[Claim],
    without: Results | None,
    notes: str,
    out: Path,
) -> Path:
    """Write record and report; returns the path of the page."""
    study = results.study
    in_dist = label(study.in_dist)
    many = len(study.seeds) > 1
    brackets = (
        f"Numbers are means over {len(study.seeds)} seeds; brackets reach from the lowest to the "
        "highest end of their 95 % intervals."
        if many
        else "Brackets are 95 % intervals."
    )
    correlation, slope = results.energy_correlation()
    sections = [
        report.Section(
            "What the paper says, and what was found",
            "Each sentence of the paper that can be checked. An AUROC is of telling a set from "
            f"{study.images:,} test images of {in_dist}; above 0.5 the set scores as more OOD. "
            + brackets
            + "\n\n"
            + "\n".join(
                f"- **{c.verdict[0].upper()}{c.verdict[1:]}:** “{c.sentence}” ({c.source}.) "
                f"{c.evidence[0].upper()}{c.evidence[1:]}."
                for c in found
            ),
        ),
        report.Section(
            "The likelihood of the latents",
            "The paper's score: −log p(z*|y*) up to a constant, the latents being the ReLU and "
            "max-pool masks of the forward pass. Higher scores mean more OOD. " + brackets,
            tables=[_table_1(results), _auroc_table(results, MAIN, "AUROC of the paper's scores")],
            figures=[
                report.FigureFile(
                    "latent.png", "Likelihood of the latents (paper, Figure 1a), first seed."
                )
            ],
        ),
        report.Section(
            "Why it follows the energy of an image",
            "With the latents held fixed, the rendered image h(0) is the gradient of the logit of "
            "y, and the logit less its bias is ⟨x, h(0)⟩ + log p(z*|y) up to its constant. Where "
            "rendering is perfect, h(0) = x: a logit whose gradient is x is |x|²/2 and a constant, "
            "so log p(z*|y) = c − |x|²/2. *A network that renders well scores an image by its "
            f"energy*, whatever it shows. Measured over test images of {in_dist}: correlation of "
            f"log p(z*|y*) with |x|² {format_cell(round(correlation, 2))}, slope "
            f"{format_cell(round(slope, 2))} (perfect rendering: −1 "
            "and −0.5). "
            f"Mean energies: {_energies(results)}. A set of less energy than {in_dist} is then "
            "*more* likely, which is the failure of likelihoods that the paper set out to mend.",
        ),
        report.Section(
            "Beyond the paper",
            "Two-sided: distance from the trusted mean. Class-centred: less the trusted mean of "
            "the same y*, a stand-in for the normalizer, which depends on y. Divided by the "
            "energy. WAIC over the seeds. The profile: Mahalanobis distance of the latent and "
            "reconstruction terms of all layers from those of "
            f"{study.null_images:,} held-out trusted images; no layer and no sign to choose. "
            + brackets,
            tables=[_auroc_table(results, BEYOND, "AUROC of scores beyond the paper")],
            figures=[report.FigureFile("profile.png", "The profile of all layers, first seed.")],
        ),
        report.Section(
            "The likelihood of images",
            "The lower bound of log p(x) of Theorem 2 at σ = 1, up to a constant.",
            figures=[
                report.FigureFile("log_prob.png", "log p(x) (paper, Figure 3b), first seed."),
                report.FigureFile(
                    "extremes.png",
                    f"Test images of {in_dist} by log p(x) (paper, Figure 3a).",
                ),
                report.FigureFile(
                    "rendered.png",
                    "Images over their renderings (paper, Figure D.2): the first row of each group "
                    "is what went in, the second what is rendered from y* and the latents.",
                ),
            ],
        ),
        report.Section(
            "Sets that look alike",
            "The paper reads a large overlap of histograms as likeness of what the images show. "
            + " ".join(_family_text(results)),
            figures=[
                report.FigureFile("near.png", "Sets that are near (paper, Figure 4a), first seed."),
                *(
                    report.FigureFile(
                        f"family_{k}.png", f"{', '.join(map(label, f))} (paper, Figure 4b)."
                    )
                    for k, f in enumerate(_families(results))
                ),
            ],
        ),
        report.Section(
            "Reconstruction at every layer",
            "|g(l) − h(l)|², the features of the forward pass against those rendered from above.",
            figures=[
                report.FigureFile(
                    "reconstruction.png",
                    "Reconstruction loss by layer (paper, Figure 5); layer 0 is the image. First "
                    "seed.",
                ),
                report.FigureFile(
                    "reconstruction_auroc.png",
                    "AUROC of each layer's reconstruction loss; the bands reach from the lowest to "
                    "the highest end of the intervals.",
                ),
                report.FigureFile(
                    "features.png",
                    f"The {_TOP} images that move random features of layer {study.layer} most, in "
                    "each set (paper, Figure C.1).",
                ),
            ],
        ),
        report.Section(
            "Switches and labels",
            "What the forward pass chose, and how little the class matters to rendering.",
            figures=[
                report.FigureFile(
                    "switches.png", "Mean switches by layer (paper, Figure E.4), all seeds."
                ),
                report.FigureFile(
                    "wrong_label.png",
                    "The same latents, rendered from the right class and from others (paper, "
                    "Figure D.3).",
                ),
            ],
        ),
        report.Section(
            "The models",
            notes,
            tables=[_quality_table(results, without)],
            figures=[
                report.FigureFile("training.png", "Training of the first seed."),
                *(
                    [
                        report.FigureFile(
                            "negativity.png",
                            "Likelihood of the latents after training without the negativity loss.",
                        )
                    ]
                    if without is not None
                    else []
                ),
            ],
        ),
    ]
    return report.write(
        out,
        record=made,
        title="A classifier, read backwards",
        summary=results.headline(),
        sections=sections,
    )


def _auroc_table(results: Results, heads: Mapping[str, str], caption: str):
    heads = {name: head for name, head in heads.items() if name in results.names()}

    def cell(name, score):
        mean, low, high = results.auroc(name, score)
        return f"{mean:.3f}\n[{low:.3f}, {high:.3f}]"

    return report.Table(
        caption,
        ["set", *heads.values()],
        [[label(n), *(cell(n, score) for score in heads)] for n in results.judged],
    )


def _table_1(results: Results):
    lines = []
    for name, cells in results.table_1().items():
        paper = TABLE_1.get(name)
        lines.append([label(name)])
        for k, (mean, spread) in enumerate(cells):
            reported = "" if paper is None else f"\n(paper {paper[k]:.2f})".replace("-", "−")
            lines[-1].append(f"{format_cell(mean)} ± {format_cell(spread)}{reported}")
    return report.Table(
        "Means, and standard deviations over images (paper, Table 1; its scale is not stated)",
        [
            "set",
            "log p(x)",
            "log p(z*|y*)",
            f"− reconstruction loss, layer {results.study.layer}",
        ],
        lines,
    )


def _quality_table(results: Results, without: Results | None):
    runs = [(f"seed {seed}", results, seed) for seed in results.study.seeds]
    if without is not None:
        seed = without.study.seeds[0]
        runs.append((f"seed {seed}, no negativity loss", without, seed))
    lines = []
    for name, found, seed in runs:
        q = found.quality(seed)
        lines.append(
            [
                name,
                f"{100 * q.accuracy:.1f} %",
                f"{q.reconstruction:.4f}",
                f"{q.wrong_label:.4f}",
                f"{100 * q.negative:.0f} %",
                f"{100 * q.spread:.0f} %",
            ]
        )
    return report.Table(
        f"On trusted test images (Table 1 implies a mean squared error of {RECONSTRUCTION})",
        [
            "model",
            "accuracy",
            "error a pixel",
            "from a wrong class",
            "h below zero",
            "spread of log p(z*|y*)",
        ],
        lines,
    )


def _energies(results: Results):
    seed, study = results.study.seeds[0], results.study
    names = [n for n in (study.in_dist, *study.ood) if n in results.sets]
    return ", ".join(
        f"{label(n)} {results.measurements[seed][n].energy.mean():,.0f}" for n in names
    )


def _family_text(results: Results):
    """One sentence a family: its shared areas."""
    seed = results.study.seeds[0]
    for family in _families(results):
        *others, last = family
        log_prob = {n: results.scores[seed][n]["nrm_latent"] for n in family}
        areas = ", ".join(f"{label(n)} {overlap(log_prob[n], log_prob[last]):.2f}" for n in others)
        yield f"Shared area with {label(last)}: {areas}."


def study_notes(study: Study, notes: str, absent, images: Images) -> str:
    """What was trained, on what, and what was left out."""
    recipe, weights = study.recipe, study.recipe.weights
    terms = ", ".join(
        f"{name.replace('_', ' ')} {value:g}" for name, value in weights._asdict().items() if value
    )
    missing = "".join(f"\n\n{label(name)} was left out: {why}" for name, why in absent.items())
    return (
        f"{recipe.architecture}, width {recipe.width}, trained for {recipe.steps:,} steps of "
        f"{recipe.batch_size} on {len(images.images):,} images"
        f"{', cropped and flipped' if recipe.augment else ''}"
        f"{'' if recipe.labelled == 1 else f', {100 * recipe.labelled:.0f} % of them labelled'}"
        f", BatchNorm {'on' if recipe.batch_norm else 'off'}. Weights of the loss: {terms}; "
        f"temperature of the softmax {recipe.temperature:g}. {notes}{missing}"
    )
