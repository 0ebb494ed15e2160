"""Figures and report of the Glow experiment."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.nrm.glow.results import READINGS, SCORES, Results
from jaxood import report
from jaxood.report import figures, record
from jaxood.report.labels import label


def draw(results: Results, samples, losses: Mapping[str, np.ndarray], folder: Path):
    """Draw every figure of the report into ``folder``."""
    in_dist, shown = results.study.in_dist, results.shown

    def histograms(values, xlabel):
        return figures.score_histograms(values, in_dist, xlabel=xlabel)

    drawings = {
        f"{model}_log_prob": histograms(
            {name: -results.bpd(name, model) for name in shown},
            f"log p(x) by {label(model)} (bits per dimension)",
        )
        for model in ("glow", "vae")
    }
    drawings |= {
        f"glow_log_pz_{levels}": histograms(
            {name: -results.values[name][f"glow_neg_log_pz_{levels}"] for name in shown},
            f"log p(z) by Glow, {words} (nats)",
        )
        for levels, words in READINGS.items()
    }
    drawings |= {
        name: histograms({n: -results.values[n][name] for n in shown}, xlabel)
        for name, xlabel in (
            ("nrm_latent", "log p(z*|y*) by the NRM, up to a constant (nats)"),
            ("nrm_neg_log_prob", "lower bound of log p(x) by the NRM, up to a constant (nats)"),
        )
    }
    drawings |= {
        f"training_{name}": figures.training_curve(curve) for name, curve in losses.items()
    }
    drawings["detection"] = figures.auroc_dots(
        [row for row in results.rows() if row.params.get("levels") != "all"]
    )
    drawings["samples"] = figures.image_grid({"samples of Glow, T = 0.8": samples}, columns=8)
    for name, figure in drawings.items():
        figures.save(figure, folder / f"{name}.png")


def write(results: Results, made: record.Record, trained_on: int, absent, out: Path) -> Path:
    """Write record and report; returns the path of the page."""
    study = results.study
    in_dist = label(study.in_dist)
    missing = "".join(f"\n\n{label(name)} was left out: {why}" for name, why in absent.items())

    def figure(name, caption):
        return report.FigureFile(f"{name}.png", caption)

    sections = [
        report.Section(
            "What the paper says, and what was found",
            "An AUROC is of telling a set from "
            f"{len(results.values[study.in_dist]['nrm_latent']):,} test images of {in_dist}; above "
            "0.5 the set scores as more OOD. Brackets are 95 % intervals.\n\n"
            + "\n".join(
                f"- **{c.verdict[0].upper()}{c.verdict[1:]}:** “{c.sentence}” ({c.source}.) "
                f"{c.evidence[0].upper()}{c.evidence[1:]}."
                for c in results.claims()
            ),
            tables=[
                report.Table(
                    "AUROC",
                    ["set", *(score.head for score in SCORES.values())],
                    [
                        [label(n), *(results.cell(n, s).replace(" ", "\n", 1) for s in SCORES)]
                        for n in results.shown
                        if n != study.in_dist
                    ],
                )
            ],
            figures=[figure("detection", "AUROC of every score; log p(z) of the last level.")],
        ),
        report.Section(
            "The likelihood of images",
            "Glow's is exact for the dequantized image, the VAE's a bound by one draw. A smooth "
            "picture has few bits, whatever it shows: that is why both like house numbers.",
            tables=[
                report.Table(
                    "Bits per dimension",
                    ["set", "Glow", "VAE"],
                    [
                        [label(n), *(f"{results.bpd(n, m).mean():.3f}" for m in ("glow", "vae"))]
                        for n in results.shown
                    ],
                )
            ],
            figures=[
                figure("glow_log_prob", "Glow (paper, Figure 3c)."),
                figure("vae_log_prob", "VAE (paper, Figure 3d)."),
                figure("nrm_neg_log_prob", "NRM (paper, Figure 3b)."),
            ],
        ),
        report.Section(
            "The likelihood of latents",
            "The paper's Figure 1. It says that the z of Glow's p(z) is the last layer of latent "
            "variables; its source speaks of log p(z) as the likelihood without the "
            "log-determinant, which is the sum over levels. Both are shown. Latents that leave "
            "early are judged given those that go on.",
            figures=[
                figure("nrm_latent", "NRM (paper, Figure 1a)."),
                figure("glow_log_pz_last", "Glow, last level (paper, Figure 1b)."),
                figure(
                    "glow_log_pz_all", "Glow, all levels (paper, Figure 1b, the other reading)."
                ),
            ],
        ),
        report.Section(
            "The models",
            f"Trained on {trained_on:,} images of {in_dist}. Settings were chosen on trusted "
            f"images alone.{missing}",
            figures=[
                figure("samples", "What Glow draws."),
                figure("training_glow", "Training of Glow."),
                figure("training_vae", "Training of the VAE."),
            ],
        ),
    ]
    return report.write(
        out,
        record=made,
        title="Two likelihoods that prefer house numbers",
        summary=results.headline(),
        sections=sections,
    )
