"""Dot plots: the AUROC of every score on every OOD set."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxood.report.figures.style import (
    BAND,
    DASHED,
    LINE,
    MARKERS,
    QUIET,
    SCORES,
    STYLE,
    cycle,
    new_figure,
    plain_text,
)
from jaxood.report.labels import label
from jaxood.report.record import ResultRow


def auroc_dots(rows: Sequence[ResultRow], *, titles: Mapping[str, str] | None = None) -> Figure:
    """Draw AUROCs with their intervals and with the numbers that papers report.

    Args:
        rows: results of any number of models and trusted sets; rows without an AUROC are left
            out.
        titles: titles of OOD sets by name, where `label` does not give them.

    Returns:
        A panel for each model and trusted set, a band for each OOD set and a dot for each score
        with its confidence interval. A hollow marker is the paper's number; the line at 0.5 is
        chance.

    Raises:
        ValueError: if no row has an AUROC.
    """
    rows = [row for row in rows if row.auroc is not None and math.isfinite(row.auroc)]
    if not rows:
        raise ValueError("There is no AUROC to draw; pass at least one row that has one.")
    scores = list(dict.fromkeys(label(row.score, row.params) for row in rows))
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
                    axes.axhspan(position - 0.5, position + 0.5, color=BAND, zorder=0)
                for row in results:
                    _dot(axes, row, position, scores)
            axes.axvline(0.5, **DASHED, zorder=1)
            names = [plain_text((titles or {}).get(ood, ood)) for ood in sets]
            axes.set_yticks(range(len(sets)), names, fontsize=10)
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


def _dot(axes: Axes, row: ResultRow, position: int, scores: Sequence[str]) -> None:
    """Draw one result, and the paper's number as a hollow mark."""
    k = scores.index(label(row.score, row.params))
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
