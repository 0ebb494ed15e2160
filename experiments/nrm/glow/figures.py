"""Figures of the Glow experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.nrm.glow.results import READINGS, Results
from jaxood.report import figures, label


def drawings(
    results: Results, samples: np.ndarray, bpd_losses: Mapping[str, np.ndarray]
) -> dict[str, Callable[[], Figure]]:
    """List the figures of the page.

    Args:
        results: the scores.
        samples: samples of Glow, uint8 ``(n, h, w, c)``.
        bpd_losses: by model ``(steps,)``, the training loss in bits per dimension.

    Returns:
        By name, functions that draw.
    """

    def minus(score: str, xlabel: str) -> Figure:
        values = {name: -by_score[score] for name, by_score in results.values.items()}
        return figures.score_histograms(values, results.study.in_dist, xlabel=xlabel)

    def log_prob(model: str) -> Figure:
        values = {name: -results.bpd(name, model) for name in results.shown}
        xlabel = f"log p(x) by {label(model)} (bits per dimension)"
        return figures.score_histograms(values, results.study.in_dist, xlabel=xlabel)

    return {
        **{f"{model}_log_prob": partial(log_prob, model) for model in bpd_losses},
        **{
            f"glow_log_pz_{levels}": partial(
                minus, f"glow_neg_log_pz_{levels}", f"log p(z) by Glow, {words} (nats)"
            )
            for levels, words in READINGS.items()
        },
        "nrm_latent": partial(
            minus, "nrm_latent", "log p(z*|y*) by the NRM, up to a constant (nats)"
        ),
        "nrm_neg_log_prob": partial(
            minus,
            "nrm_neg_log_prob",
            "lower bound of log p(x) by the NRM, up to a constant (nats)",
        ),
        **{
            f"training_{model}": partial(figures.training_curve, losses)
            for model, losses in bpd_losses.items()
        },
        "detection": lambda: figures.auroc_dots(
            [row for row in results.rows() if row.params.get("levels") != "all"]
        ),
        "samples": lambda: figures.image_grid({"samples of Glow, T = 0.8": samples}, columns=8),
    }
