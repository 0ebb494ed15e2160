"""Arrays to matplotlib figures, in one style.

The trusted (in-distribution) set is always dark and drawn first; OOD sets take their colours by
their order, so a caller who keeps the order keeps the colours. Figures are built without pyplot:
no global state, no backend, nothing to close. `save` writes them.
"""

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kstwo

from jaxood import metrics
from jaxood.integrity import write_file
from jaxood.report.figures.image_grid import image_grid as image_grid
from jaxood.report.figures.style import (
    ABOVE,
    DASHED,
    LINE,
    MARKERS,
    OOD,
    QUIET,
    SCORES,
    STYLE,
    cycle,
    label_ends,
    legend_above,
    new_figure,
    plain_log_ticks,
    plain_text,
    set_colours,
)
from jaxood.report.record import ResultRow


def log_prob_histograms(values: Mapping[str, ArrayLike], in_dist: str, *, xlabel: str) -> Figure:
    """Likelihoods of each set (BatchNorm paper, Figure 1, left).

    As `score_histograms`, of (n,) log-likelihoods in nats or in bits per dimension.
    """
    return score_histograms(values, in_dist, xlabel=xlabel)


def score_histograms(
    values: Mapping[str, ArrayLike], in_dist: str, *, xlabel: str, log: bool = False
) -> Figure:
    """A score over each set.

    Args:
        values: by set name, (n,) scores.
        in_dist: the name in ``values`` of the trusted set.
        xlabel: what is shown, with its unit.
        log: whether the axis is logarithmic, for scores that span decades.

    Returns:
        Filled histograms over shared bins. The view ends at the 0.5 and 99.5 percentiles of all
        sets together; values that the axis cannot show (not finite, or not positive on a
        logarithmic axis) are left out and counted in the legend.

    Raises:
        ValueError: if ``in_dist`` is not in ``values`` or no value can be shown.
    """
    sets = _in_dist_first(values, in_dist)
    shown = {
        name: array[np.isfinite(array) & ((array > 0) | (not log))] for name, array in sets.items()
    }
    everything = np.concatenate(list(shown.values()))
    if everything.size == 0:
        raise ValueError("No value can be shown: none is finite (and positive on a log axis).")
    bins = _bins(everything, log=log)
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7, 3.4)
        handles = []
        for name, array in shown.items():
            colour = _colour(name, sets, in_dist)
            share = np.histogram(array, bins)[0] / max(array.size, 1)
            # The trusted set is filled; the others are outlines, legible through one another.
            axes.stairs(
                share, bins, fill=True, color=colour, alpha=0.3 if name == in_dist else 0.07
            )
            handles.append(axes.stairs(share, bins, color=colour, linewidth=1.6))
            missing = sets[name].size - array.size
            handles[-1].set_label(plain_text(name) + (f" ({missing} not shown)" if missing else ""))
        if log:
            axes.set_xscale("log")
            plain_log_ticks(axes.xaxis)
        axes.set(xlabel=xlabel, ylabel="share of images per bin", xlim=(bins[0], bins[-1]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(bottom=0)
        legend_above(axes, handles)
    return figure


def bpd_against_ratio(
    ratios: ArrayLike, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], in_dist: str
) -> Figure:
    """Bits per dimension against the share of test images in a batch (BatchNorm paper, Figure 3).

    Args:
        ratios: (k,) share r of test images in the batch, rising; 0 is evaluation mode, 1 is
            training mode.
        curves: by set name, mean and standard error of the bits per dimension, each (k,).
        in_dist: the name in ``curves`` of the trusted set.

    Returns:
        One curve per set with a band of two standard errors, labelled at its end. The vertical
        axis is linear, as in the paper, unless the means span more than a factor of twenty.

    Raises:
        ValueError: if ``in_dist`` is not in ``curves``.
    """
    ratios = np.asarray(ratios, dtype=float)
    means = _in_dist_first({name: mean for name, (mean, _) in curves.items()}, in_dist)
    finite = np.concatenate([mean[np.isfinite(mean)] for mean in means.values()])
    log = finite.size > 0 and finite.min() > 0 and finite.max() > 20 * finite.min()
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7, 3.8)
        for name, mean in means.items():
            colour = _colour(name, means, in_dist)
            stderr = np.asarray(curves[name][1], dtype=float)
            axes.fill_between(
                ratios, mean - 2 * stderr, mean + 2 * stderr, color=colour, alpha=0.2, linewidth=0
            )
            axes.plot(ratios, mean, color=colour, marker="o", markersize=4, label=plain_text(name))
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
    """ROC curves, one panel per score and one curve per OOD set (BatchNorm paper, Figure 4).

    Args:
        scores: by score name and then set name, (n,) scores; higher is more OOD.
        in_dist: the name of the trusted set, which every score must have.

    Returns:
        A grid of panels; the numbers over each are the AUROCs of its sets.

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
            sets = _in_dist_first(values, in_dist)
            axes.plot([0, 1], [0, 1], **DASHED)
            areas = []
            for name in list(sets)[1:]:
                fpr, tpr = metrics.roc_curve(sets[in_dist], sets[name])
                colour = _colour(name, sets, in_dist)
                curves[name] = axes.plot(fpr, tpr, color=colour, label=plain_text(name))[0]
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


def auroc_dots(rows: Sequence[ResultRow]) -> Figure:
    """AUROC of every score on every OOD set, with intervals and the papers' own numbers.

    Args:
        rows: results of any number of models and trusted sets; rows without an AUROC are left
            out.

    Returns:
        A panel per model and trusted set, a band per OOD set and a dot per score with its
        confidence interval. A hollow marker is the paper's number; the line at 0.5 is chance.

    Raises:
        ValueError: if no row has an AUROC.
    """
    rows = [row for row in rows if row.auroc is not None and math.isfinite(row.auroc)]
    if not rows:
        raise ValueError("There is no AUROC to draw; pass at least one row that has one.")
    scores = list(dict.fromkeys(row.score for row in rows))
    panels: dict[tuple[str, str], dict[str, list[ResultRow]]] = {}
    for row in rows:
        panels.setdefault((row.model, row.in_dist), {}).setdefault(row.ood, []).append(row)
    heights = [len(sets) for sets in panels.values()]
    band = max(0.5, 0.17 * len(scores))
    with rc_context(STYLE):
        figure, grid = new_figure(
            7.5, 1.0 + band * sum(heights) + 0.45 * len(panels), len(panels), 1,
            sharex=True, height_ratios=[height * band + 0.2 for height in heights],
        )  # fmt: skip
        for axes, ((model, in_dist), sets) in zip(grid.flat, panels.items(), strict=True):
            for position, results in enumerate(sets.values()):
                if position % 2 == 0:
                    axes.axhspan(position - 0.5, position + 0.5, color="#f4f6f8", zorder=0)
                for row in results:
                    _dot(axes, row, position, scores)
            axes.axvline(0.5, **DASHED, zorder=1)
            axes.set_yticks(range(len(sets)), [plain_text(ood) for ood in sets], fontsize=10)
            axes.set_ylim(len(sets) - 0.5, -0.5)
            axes.set_title(f"{plain_text(model)} trained on {plain_text(in_dist)}")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x", color=LINE, linewidth=0.6)
            axes.set_axisbelow(True)
        bottom = grid.flat[-1]
        bottom.set_xlim(-0.025, 1.025)
        bottom.set_xticks(
            [0, 0.25, 0.5, 0.75, 1], ["0\n", "0.25\n", "0.5\nchance", "0.75\n", "1\n"]
        )
        bottom.set_xlabel("AUROC against the trusted set (higher is better)")
        handles = [
            Line2D(
                [], [], color=cycle(SCORES, k), marker=cycle(MARKERS, k), label=plain_text(score)
            )
            for k, score in enumerate(scores)
        ]
        if any(row.paper is not None for row in rows):
            handles.append(
                Line2D([], [], color=QUIET, marker="o", markerfacecolor="white", linestyle="",
                       markersize=7, label="reported in the paper")
            )  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))
    return figure


def training_curve(
    bpd: ArrayLike,
    *,
    smooth: int = 50,
    steps: ArrayLike | None = None,
    ylabel: str = "bits per dimension",
) -> Figure:
    """Bits per dimension, or another loss, while a model trains.

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
    """Whether p-values of fresh trusted images are uniform, as a valid test's must be.

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
        lines = [f"p ≤ {a:g}: {100 * rate:.1f} %" for a, rate in zip(alphas, rates, strict=True)]
        axes.text(0.97, 0.03, "\n".join(lines), ha="right", va="bottom", color=OOD[0], fontsize=9)
        axes.set(xlabel="p-value", ylabel="share of trusted images at or below it")
        axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG at 200 dots per inch; equal figures give equal bytes.

    The file is replaced as a whole, and its folder made where it is absent.
    """
    image = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(
            image, format="png", dpi=200, bbox_inches="tight", pad_inches=0.08,
            metadata={"Software": None},
        )  # fmt: skip
    write_file(path, image.getvalue())


def _in_dist_first(values: Mapping[str, ArrayLike], in_dist: str) -> dict[str, NDArray]:
    return {name: np.asarray(values[name], dtype=float) for name in set_colours(values, in_dist)}


def _colour(name: str, names: Iterable[str], in_dist: str) -> str:
    return set_colours(names, in_dist)[name]


def _bins(values: NDArray, *, log: bool, count: int = 40) -> NDArray:
    low, high = np.quantile(values, [0.005, 0.995])
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return np.geomspace(low, high, count + 1) if log else np.linspace(low, high, count + 1)


def _dot(axes: Axes, row: ResultRow, position: int, scores: Sequence[str]) -> None:
    k = scores.index(row.score)
    y = position + (k - (len(scores) - 1) / 2) * 0.72 / max(len(scores), 2)
    colour, marker = cycle(SCORES, k), cycle(MARKERS, k)
    if row.paper is not None:
        axes.plot(
            row.paper, y, marker=marker, markersize=8.5, markerfacecolor="none",
            markeredgecolor=colour, markeredgewidth=1, clip_on=False, zorder=2,
        )  # fmt: skip
    low, high = row.auroc_ci
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.6, zorder=2)
    auroc = np.array(row.auroc, dtype=float)
    axes.plot(auroc, y, marker=marker, color=colour, markersize=6, clip_on=False, zorder=3)
