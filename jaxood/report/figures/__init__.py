"""Figures: arrays in, matplotlib figures out."""

from jaxood.report.figures.charts import (
    auroc_dots,
    bpd_against_ratio,
    log_prob_histograms,
    p_value_calibration,
    roc_curves,
    save,
    score_histograms,
    training_curve,
)
from jaxood.report.figures.image_grid import image_grid
from jaxood.report.figures.layers import layer_curves, layer_histograms

__all__ = [
    "auroc_dots",
    "bpd_against_ratio",
    "image_grid",
    "layer_curves",
    "layer_histograms",
    "log_prob_histograms",
    "p_value_calibration",
    "roc_curves",
    "save",
    "score_histograms",
    "training_curve",
]
