"""Figures: arrays in, matplotlib figures out, in one style."""

from jaxood.report.figures.curves import (
    bpd_against_ratio,
    layer_curves,
    p_value_calibration,
    roc_curves,
    training_curve,
)
from jaxood.report.figures.dots import auroc_dots
from jaxood.report.figures.histograms import layer_histograms, score_histograms
from jaxood.report.figures.image_grid import image_grid
from jaxood.report.figures.style import save

__all__ = [
    "auroc_dots",
    "bpd_against_ratio",
    "image_grid",
    "layer_curves",
    "layer_histograms",
    "p_value_calibration",
    "roc_curves",
    "save",
    "score_histograms",
    "training_curve",
]
