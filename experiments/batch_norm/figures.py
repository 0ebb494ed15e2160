"""The figures of the BatchNorm test."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.batch_norm.judged import Judged
from experiments.batch_norm.results import FALSE_POSITIVE_RATE, Results
from experiments.batch_norm.settings import RATIOS
from jaxood.report import figures

LOG_PROB = "log p(x), evaluation mode (bits per dimension)"


def drawings(
    results: Results,
    images: Mapping[str, np.ndarray],
    samples: Mapping[str, np.ndarray],
    bpd_losses: np.ndarray,
) -> dict[str, Callable[[], Figure]]:
    """List the figures of the page.

    Args:
        results: the results.
        images: by set, uint8 ``(n, h, w, c)``.
        samples: samples of the model by title, uint8 ``(n, h, w, c)``.
        bpd_losses: ``(steps,)``, the training loss in bits per dimension.

    Returns:
        By name, functions that draw.
    """
    in_dist, judged = results.in_dist, results.judged
    baseline = "waic" if results.members else "typicality"
    curves = ("neg_log_prob", "t_perm", baseline, "batch_norm_delta")
    dots = [row for row in results.rows if row.score in curves and row.score != "typicality"]
    return {
        "detection": partial(figures.auroc_dots, dots),
        "likelihood": partial(likelihoods, results, judged),
        "delta": partial(deltas, results, judged),
        "ratio": lambda: figures.bpd_against_ratio(
            RATIOS, {name: _curve(results, name) for name in judged}, in_dist
        ),
        "roc": lambda: figures.roc_curves(
            {score: results.by_set(score, judged) for score in curves}, in_dist
        ),
        "p_values": lambda: figures.p_value_calibration(results.p_values, (FALSE_POSITIVE_RATE,)),
        "images": lambda: figures.image_grid({name: images[name][:8] for name in judged}, rows=1),
        "samples": partial(figures.image_grid, samples, rows=2),
        "training": partial(figures.training_curve, bpd_losses),
    }


def likelihoods(results: Judged, names: tuple[str, ...]) -> Figure:
    """Draw histograms of log p(x) in evaluation mode."""
    values = {results.titles.get(name, name): -results.bpd(name) for name in names}
    return figures.score_histograms(values, results.in_dist, xlabel=LOG_PROB)


def deltas(results: Judged, names: tuple[str, ...]) -> Figure:
    """Draw histograms of Δ, on a logarithmic axis."""
    values = results.by_set("batch_norm_delta", names)
    return figures.score_histograms(values, results.in_dist, xlabel="Δ (nats)", log=True)


def _curve(results: Results, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard error of the bits per dimension at each ratio."""
    values = np.array([results.bpd(name, ratio) for ratio in RATIOS])
    return values.mean(1), values.std(1, ddof=1) / np.sqrt(values.shape[1])
