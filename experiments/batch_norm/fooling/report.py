"""The fooling experiment's figures and report."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from experiments.batch_norm.fooling.results import TABLE_4, Results
from experiments.batch_norm.settings import R1, R2
from jaxood import report
from jaxood.report import figures, record
from jaxood.report.figures.style import (
    DASHED,
    IN_DIST,
    LINE,
    OOD,
    STYLE,
    new_figure,
    plain_text,
)
from jaxood.report.labels import label

_LIKELIHOOD_SCORES = ("neg_log_prob", "t_perm", "typicality")
_TEMPERATURE = {
    "realnvp": "RealNVP draws at temperature T from latents that are multiplied by T.",
    "pixelcnn": (
        "PixelCNN++ draws at temperature T with the logits of its mixture divided by T, and the "
        "noise of a component multiplied by it."
    ),
}
_SHOWN = 8
"""Images of a group."""


def draw(results: Results, p_losses, q_losses, folder: Path):
    """Draw every figure of the report into ``folder``."""
    attack = results.attack
    judged = (attack.in_dist, attack.other, attack.fooling)
    curves = ("t_perm", "neg_log_prob", "typicality", "batch_norm_delta")
    by_temperature = sorted(attack.temperatures, key=lambda name: attack.temperatures[name])
    drawings = {
        "detection": figures.auroc_dots(
            [r for r in results.main_rows() if r.score != "batch_norm_rank"]
        ),
        "roc": figures.roc_curves(
            {s: {name: results.scores[name][s] for name in judged} for s in curves},
            attack.in_dist,
        ),
        "search": temperature_search(results),
        "likelihood": figures.score_histograms(
            {name: -results.bpd(name) for name in judged},
            attack.in_dist,
            xlabel="log p(x), evaluation mode (bits per dimension)",
        ),
        "look_alike": _with_bpd(results, _look_alikes(results)),
        "samples": _with_bpd(
            results,
            {attack.other: range(_SHOWN)} | {name: range(_SHOWN) for name in by_temperature},
        ),
        "delta": figures.score_histograms(
            {name: results.scores[name]["batch_norm_delta"] for name in judged},
            attack.in_dist,
            xlabel="Δ (nats)",
            log=True,
        ),
        "training": figures.training_curve(p_losses),
        "training_attacker": figures.training_curve(q_losses),
    }
    for name, figure in drawings.items():
        figures.save(figure, folder / f"{name}.png")


def _look_alikes(results: Results):
    """By set, indices: samples from unlikely to likely, each over a trusted image as likely."""
    attack = results.attack
    bpd, trusted = results.bpd(attack.fooling), results.bpd(attack.in_dist).copy()
    chosen = sorted(range(_SHOWN), key=lambda i: bpd[i])
    matches = []
    for i in chosen:
        matches.append(int(np.argmin(np.abs(trusted - bpd[i]))))
        trusted[matches[-1]] = np.inf  # none serves twice
    return {attack.fooling: chosen, attack.in_dist: matches}


def _with_bpd(results: Results, groups) -> Figure:
    """Images by set name and indices, with their bits per dimension under p."""
    return figures.image_grid(
        {name: results.sets[name][list(indices)] for name, indices in groups.items()},
        columns=_SHOWN,
        captions={
            name: [f"{results.bpd(name)[i]:.2f}" for i in indices]
            for name, indices in groups.items()
        },
    )


def temperature_search(results: Results) -> Figure:
    """Median bits per dimension of samples at every temperature that the search tried."""
    attack = results.attack
    temperatures = np.array(sorted(attack.tried))
    quartiles = results.in_bits(
        np.array([np.quantile(attack.tried[t], [0.75, 0.5, 0.25]) for t in temperatures]).T
    )
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7, 3.4)
        axes.fill_between(
            temperatures, quartiles[0], quartiles[2], color=OOD[1], alpha=0.15, linewidth=0
        )
        axes.plot(temperatures, quartiles[1], "o-", color=OOD[1], markersize=4)
        axes.axhline(results.in_bits(attack.target), color=IN_DIST, linewidth=1.4)
        axes.axvline(attack.temperature, **DASHED)
        axes.annotate(
            f"T = {attack.temperature:.2f}", (attack.temperature, 1), xytext=(5, -4),
            xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
        )  # fmt: skip
        # The name of the line: at the end that is far from the crossing, on the side without curve.
        right = attack.temperature < temperatures[[0, -1]].mean()
        above = right == (quartiles[1, 0] > quartiles[1, -1])
        axes.annotate(
            f"median of {plain_text(attack.in_dist)}",
            (1 if right else 0, results.in_bits(attack.target)),
            xytext=(-5 if right else 5, 4 if above else -4),
            xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right" if right else "left", va="bottom" if above else "top",
            color=IN_DIST, fontweight="bold",
        )  # fmt: skip
        axes.set(xlabel="temperature T of the samples", ylabel="bits per dimension under p")
        axes.grid(axis="y", color=LINE, linewidth=0.6)
    return figure


def write(results: Results, made: record.Record, note: str, out: Path):
    """Write record and report; returns the path of the page."""
    attack, extra, sizes = results.attack, made.extra, results.attack.sizes
    in_dist, other, model = label(attack.in_dist), label(attack.other), label(attack.model)
    low, high = extra["less_likely_than_target_ci"]
    is_paper = (attack.model, attack.in_dist) == ("realnvp", "cifar10")
    paper = {
        (attack.model, name, mode): value
        for name, values in TABLE_4.items()
        for mode, value in zip(("evaluation", "training"), values, strict=True)
    }
    likelihood_rows = [r for r in made.results if r.score in _LIKELIHOOD_SCORES]
    test_rows = [r for r in made.results if r.score not in _LIKELIHOOD_SCORES]
    table_4 = "Mean bits per dimension under p in the two modes"
    printed = ""
    if is_paper:
        table_4 += " (paper, Table 4)"
        printed = (
            " Where the paper's Table 4 prints 8.56 as the difference of the two modes on SVHN, "
            "its own rows differ by 8.66."
        )
    sections = [
        report.Section(
            "Fooling tests of the likelihood",
            f"p is a {model} trained on {in_dist}, q a {model} trained on {other}. The permutation "
            "test Tₚₑᵣₘ and typicality report images whose log-likelihood under p is unlike that "
            f"of trusted images, be it low or high. Samples of q at the right temperature have the "
            "likelihood of trusted images; an AUROC below 0.5 means that they look more usual than "
            "trusted images do. Higher scores mean more OOD. Brackets are 95 % intervals; every "
            f"set is judged against {sizes.images} test images of {in_dist}, and ranks are taken "
            f"among {sizes.null_images} others. The paper's numbers are for its own models, "
            "trained for longer.",
            tables=[
                report.detection_table(likelihood_rows, caption="AUROC of scores of the likelihood")
            ],
            figures=[
                report.FigureFile(
                    "roc.png", "ROC curves (paper, Figure 4: that of the permutation test)."
                ),
                report.FigureFile("detection.png", "AUROC with 95 % intervals."),
            ],
        ),
        report.Section(
            "What the BatchNorm test sees",
            "The paper shows that the likelihood of such samples falls in training mode but leaves "
            f"out its own test. Here it is, on the very same samples: Δ from r = {R1} to r = {R2} "
            f"at b = {sizes.batch_size}, over {sizes.draws} draws, and its rank T among "
            f"{sizes.null_images} held-out trusted images." + printed,
            tables=[
                report.detection_table(test_rows, caption="AUROC of the BatchNorm test"),
                report.bpd_table(made.bpd, caption=table_4, paper=paper if is_paper else None),
                report.detection_table(
                    [r for r in made.sweeps if r.score != "batch_norm_rank"],
                    caption="AUROC of samples at the temperatures of Table 4",
                ),
            ],
            figures=[report.FigureFile("delta.png", "Δ of each set, on a logarithmic axis.")],
        ),
        report.Section(
            "Images of like likelihood",
            "Bits per dimension under p, in evaluation mode, stand under each image.",
            figures=[
                report.FigureFile(
                    "look_alike.png",
                    "Samples of q, and for each a trusted image that p finds as likely (paper, "
                    "Figure 5).",
                ),
                report.FigureFile("likelihood.png", "log p(x) of each set."),
                report.FigureFile("samples.png", f"{other}, and samples of q by temperature."),
            ],
        ),
        report.Section(
            "How the temperature was found",
            f"{_TEMPERATURE[attack.model]} Bisection puts the median log-likelihood of samples at "
            f"that of the {sizes.null_images} held-out trusted images, {extra['target_bpd']:.3f} "
            "bits per dimension. It sees the likelihoods of those images and of the samples, "
            f"nothing else. The result is T = {extra['temperature']:.3f}; for its own models the "
            f"paper takes {extra['paper_temperature']:.2f}. Of fresh samples, with a median of "
            f"{extra['fresh_bpd']:.3f}, {100 * extra['less_likely_than_target']:.0f} % are less "
            f"likely than that target (95 % interval {100 * low:.0f} to {100 * high:.0f} %; 50 % "
            "would be exact).",
            figures=[
                report.FigureFile(
                    "search.png",
                    "Median and quartiles of the samples at each temperature that was tried.",
                )
            ],
        ),
        report.Section(
            "The two models",
            f"q has the recipe of p, {made.models[1].steps:,} training steps "
            f"to its {made.models[0].steps:,}, and another seed. {note}",
            figures=[
                report.FigureFile("training.png", f"Training of p on {in_dist}."),
                report.FigureFile("training_attacker.png", f"Training of q on {other}."),
            ],
        ),
    ]
    return report.write(
        out,
        record=made,
        title=f"Fooling the likelihood of a {model}",
        summary=results.headline(),
        sections=sections,
    )
