"""Curves: against the mix of a batch, a layer or a training step; ROC curves; p-values."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from scipy.stats import kstwo

from jaxood import metrics
from jaxood.report.figures.style import (
    ABOVE,
    DASHED,
    LINE,
    OOD,
    STYLE,
    in_dist_first,
    label_ends,
    legend_above,
    new_figure,
    plain_log_ticks,
    plain_text,
    set_colours,
)
from jaxood.report.numbers import percent


def bpd_against_ratio(
    ratios: ArrayLike, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], in_dist: str
) -> Figure:
    """Draw bits per dimension against the share of test images in a batch.

    This is Figure 3 of the BatchNorm paper.

    Args:
        ratios: (k,) share r of test images in the batch, rising; 0 is evaluation mode, 1 is
            training mode.
        curves: by set name, mean and standard error of the bits per dimension, each (k,).
        in_dist: the name in ``curves`` of the trusted set.

    Returns:
        One curve a set with a band of two standard errors, labelled at its end. The vertical
        axis is linear, as in the paper, unless the means span more than a factor of twenty.

    Raises:
        ValueError: if ``in_dist`` is not in ``curves``.
    """
    ratios = np.asarray(ratios, dtype=float)
    means = in_dist_first({name: mean for name, (mean, _) in curves.items()}, in_dist)
    finite = np.concatenate([mean[np.isfinite(mean)] for mean in means.values()])
    colours = set_colours(means, in_dist)
    log = finite.size > 0 and finite.min() > 0 and finite.max() > 20 * finite.min()
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7, 3.8)
        for name, mean in means.items():
            stderr = np.asarray(curves[name][1], dtype=float)
            style = {"color": colours[name]}
            axes.fill_between(
                ratios, mean - 2 * stderr, mean + 2 * stderr, alpha=0.2, linewidth=0, **style
            )
            axes.plot(ratios, mean, marker="o", markersize=4, label=plain_text(name), **style)
        if log:
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis)
        axes.set(xlabel="ratio r of test images in the batch", ylabel="bits per dimension")
        modes = ["0\nevaluation mode", "0.2\n", "0.4\n", "0.6\n", "0.8\n", "1\ntraining mode"]
        axes.set_xticks(np.linspace(0, 1, 6), modes)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        label_ends(axes)
    return figure


def roc_curves(scores: Mapping[str, Mapping[str, ArrayLike]], in_dist: str) -> Figure:
    """Draw ROC curves, a panel for each score (BatchNorm paper, Figure 4).

    Args:
        scores: by score name and then set name, (n,) scores; higher is more OOD.
        in_dist: the name of the trusted set, which every score must have.

    Returns:
        A grid of panels with one curve for each OOD set; the numbers over a panel are the AUROCs
        of its sets.

    Raises:
        ValueError: if ``scores`` is empty or lacks ``in_dist``, or if a score array is empty, not
            one-dimensional or holds NaN.
    """
    if not scores:
        raise ValueError("There is no score to draw; pass at least one.")
    columns = 2 if len(scores) in (2, 4) else min(len(scores), 3)
    rows = math.ceil(len(scores) / columns)
    curves: dict[str, Line2D] = {}
    with rc_context(STYLE):
        figure, grid = new_figure(3.7 * columns, 4.2 * rows + 0.5, rows, columns)
        for axes in grid.flat[len(scores) :]:
            axes.set_axis_off()
        for k, (axes, (score, values)) in enumerate(zip(grid.flat, scores.items(), strict=False)):
            sets, colours = in_dist_first(values, in_dist), set_colours(values, in_dist)
            axes.plot([0, 1], [0, 1], **DASHED)
            areas = []
            for name in list(sets)[1:]:
                fpr, tpr = metrics.roc_curve(sets[in_dist], sets[name])
                line = axes.plot(fpr, tpr, color=colours[name], label=plain_text(name))
                curves[name] = line[0]
                areas.append(f"{metrics.auroc(sets[in_dist], sets[name]):.2f}")
            axes.legend(
                axes.lines[1:], areas, fontsize=9,
                title=plain_text(score), title_fontproperties={"weight": "bold"},
                ncols=6, handlelength=0.7, handletextpad=0.3, columnspacing=0.7, **ABOVE,
            )  # fmt: skip
            axes.set(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            axes.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.set_xticklabels(["0", "0.5", "1"])
            axes.set_yticklabels(["0", "0.5", "1"])
            axes.set_xlabel("trusted images flagged")
            if k % columns == 0:
                axes.set_ylabel("OOD images flagged")
        figure.legend(
            handles=list(curves.values()), loc="outside upper left", ncols=3,
            title="AUROC against", alignment="left",
        )  # fmt: skip
    return figure


def layer_curves(
    curves: Mapping[str, ArrayLike],
    in_dist: str | None = None,
    *,
    ylabel: str,
    first: int = 0,
    chance: float | None = None,
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
) -> Figure:
    """Draw a number of each set against the layer (NRM paper, Figure E.4).

    Args:
        curves: by set name, (layers,).
        in_dist: the name of the trusted set, if it is among them.
        ylabel: what is shown.
        first: number of the first layer.
        chance: where to draw the line of chance, if anywhere.
        bands: by set name, lower and upper ends, each (layers,).

    Returns:
        One curve a set, named at its end.

    Raises:
        ValueError: if ``in_dist`` is given and not in ``curves``.
    """
    colours = set_colours(curves, in_dist)
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7, 3.6)
        for name, colour in colours.items():
            curve = np.asarray(curves[name], float)
            layers = np.arange(first, first + curve.size)
            if bands:
                axes.fill_between(layers, *bands[name], color=colour, alpha=0.15, linewidth=0)
            axes.plot(layers, curve, "o-", color=colour, markersize=4, label=plain_text(name))
        axes.set(xlabel="layer", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        label_ends(axes)
        if chance is not None:  # after the names, since it has none
            axes.axhline(chance, **DASHED, zorder=1)
    return figure


def training_curve(
    bpd: ArrayLike,
    *,
    smooth: int = 50,
    steps: ArrayLike | None = None,
    ylabel: str = "bits per dimension",
) -> Figure:
    """Draw bits per dimension, or another loss, while a model trains.

    Args:
        bpd: (k,) training objective in bits per dimension.
        smooth: width, in entries, of the centred moving average that is drawn over it.
        steps: (k,) optimizer step of each entry; 1, 2, … where None.
        ylabel: what the objective is.

    Returns:
        The raw curve and its moving average. The view leaves out the steep start.

    Raises:
        ValueError: if ``bpd`` is not one-dimensional or holds no finite value.
    """
    bpd = np.asarray(bpd, dtype=float)
    if bpd.ndim != 1 or not np.isfinite(bpd).any():
        raise ValueError(f"bpd must be (k,) with a finite value in it; it is {bpd.shape}.")
    steps = np.arange(1, bpd.size + 1) if steps is None else np.asarray(steps)
    finite = np.isfinite(bpd)
    window = np.ones(min(smooth, bpd.size))
    counts = np.convolve(finite, window, mode="same")
    average = np.convolve(np.where(finite, bpd, 0), window, mode="same") / np.maximum(counts, 1)
    later = bpd[bpd.size // 10 :][finite[bpd.size // 10 :]]
    low, high = np.quantile(later if later.size else bpd[finite], [0, 0.99])
    margin = 0.08 * (high - low) or 0.5
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7, 3.2)
        axes.plot(steps, bpd, color=OOD[1], alpha=0.3, linewidth=0.8, label="each step")
        axes.plot(
            steps, np.where(counts > 0, average, np.nan), color=OOD[1],
            label=f"mean of {window.size} steps" if smooth > 1 else None,
        )  # fmt: skip
        axes.set(xlabel="optimizer step", ylabel=ylabel)
        axes.set_ylim(low - margin, high + margin)
        axes.margins(x=0.01)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        legend_above(axes, axes.lines)
    return figure


def p_value_calibration(p_values: ArrayLike, alphas: Sequence[float] = ()) -> Figure:
    """Draw the distribution of p-values of fresh trusted images, which a valid test makes uniform.

    Args:
        p_values: (n,) p-values, in [0, 1].
        alphas: chosen false-positive rates, to be marked with the rates that they gave.

    Returns:
        The empirical distribution function, the diagonal and the band that a uniform sample stays
        within with 95 % probability (exact two-sided Kolmogorov-Smirnov distribution). Below the
        diagonal the test is conservative; above it, it flags too many.

    Raises:
        ValueError: if ``p_values`` is empty, not one-dimensional or leaves [0, 1].
    """
    p_values = np.sort(np.asarray(p_values, dtype=float))
    if p_values.ndim != 1 or not p_values.size or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p_values must be (n,) numbers in [0, 1]; got shape {p_values.shape}.")
    n = p_values.size
    width = kstwo.ppf(0.95, n)
    line = np.array([0, 1])
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(4.6, 4.6)
        axes.fill_between(
            line, line - width, line + width, color=LINE, alpha=0.6, linewidth=0,
            label="95 % band of a uniform sample",
        )  # fmt: skip
        axes.plot(line, line, **DASHED, label="uniform")
        axes.ecdf(p_values, color=OOD[1], label=f"{n:,} trusted images")
        rates = [float(np.mean(p_values <= alpha)) for alpha in alphas]
        axes.plot(alphas, rates, "o", color=OOD[0], markersize=5, zorder=3)
        lines = [f"p ≤ {a:g}: {percent(rate, 1)}" for a, rate in zip(alphas, rates, strict=True)]
        axes.text(0.97, 0.03, "\n".join(lines), ha="right", va="bottom", color=OOD[0], fontsize=9)
        axes.set(xlabel="p-value", ylabel="share of trusted images at or below it")
        axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")
    return figure
