"""Report of the NRM experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.nrm.claims import Claim
from experiments.nrm.figures import TOP, families
from experiments.nrm.paper import RECONSTRUCTION, TABLE_1
from experiments.nrm.results import Results, overlap
from experiments.nrm.settings import Images, Study
from jaxood import report
from jaxood.report import format_cell, record
from jaxood.report.labels import label

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
    "nrm_switches": "switches",
}


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
            "max-pool masks of the forward pass. Higher scores mean more OOD. "
            + brackets
            + _agreement_text(results),
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
            "Switches: the same distance of the share of switches that are on at every layer, of "
            "which the paper says that it differs (Appendix E). " + brackets,
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
                    for k, f in enumerate(families(results))
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
                    f"The {TOP} images that move random features of layer {study.layer} most, in "
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
                f"{100 * q.share:.1f} %",
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
            "its share of the logit",
        ],
        lines,
    )


def _agreement_text(results: Results):
    agreement = results.agreement()
    if np.isnan(agreement):
        return ""
    return (
        f" Two models of different seeds agree on test images of {label(results.study.in_dist)} "
        f"with a correlation of {format_cell(round(agreement, 2))}: a score that is noise would "
        "have 0."
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
    for family in families(results):
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
        f", BatchNorm {'on' if recipe.batch_norm else 'off'}. LossWeights of the loss: {terms}; "
        f"temperature of the softmax {recipe.temperature:g}. {notes}{missing}"
    )
