"""Histograms of sets: of one number of each image, or of one number of each image and layer."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from jaxood.report.figures.style import (
    STYLE,
    in_dist_first,
    legend_above,
    new_figure,
    plain_log_ticks,
    plain_text,
    set_colours,
)


def score_histograms(
    values: Mapping[str, ArrayLike],
    in_dist: str,
    *,
    xlabel: str,
    log: bool = False,
    of: str = "images",
) -> Figure:
    """Draw how a score, or a likelihood, is distributed over each set.

    Args:
        values: by set name, (n,) numbers.
        in_dist: the name in ``values`` of the trusted set.
        xlabel: what is shown, with its unit.
        log: whether the axis is logarithmic, for numbers that span decades.
        of: what each number belongs to, in the plural.

    Returns:
        Filled histograms over shared bins. The view ends at the 0.5 and 99.5 percentiles of all
        sets together; values that the axis cannot show (not finite, or not positive on a
        logarithmic axis) are left out and counted in the legend.

    Raises:
        ValueError: if ``in_dist`` is not in ``values`` or no value can be shown.
    """
    sets, colours = in_dist_first(values, in_dist), set_colours(values, in_dist)
    shown = {
        name: array[np.isfinite(array) & ((array > 0) | (not log))] for name, array in sets.items()
    }
    everything = np.concatenate(list(shown.values()))
    if everything.size == 0:
        raise ValueError("No value can be shown: none is finite (and positive on a log axis).")
    bins = _bins(everything, 40, log=log)
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7, 3.4)
        handles = []
        for name, array in shown.items():
            outline = _draw(axes, array, bins, colours[name], trusted=name == in_dist)
            missing = sets[name].size - array.size
            outline.set_label(plain_text(name) + (f" ({missing} not shown)" if missing else ""))
            handles.append(outline)
        if log:
            axes.set_xscale("log")
            plain_log_ticks(axes.xaxis)
        axes.set(xlabel=xlabel, ylabel=f"share of {of} per bin", xlim=(bins[0], bins[-1]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(bottom=0)
        legend_above(axes, handles)
    return figure


def layer_histograms(
    values: Mapping[str, ArrayLike], in_dist: str, *, xlabel: str, columns: int = 5
) -> Figure:
    """Draw a panel of histograms for each layer (NRM paper, Figure 5).

    Args:
        values: by set name, (n, layers), the first column being layer 0.
        in_dist: the name in ``values`` of the trusted set.
        xlabel: what is shown.
        columns: panels in a row.

    Returns:
        A grid of panels with axes of their own, each from the 0.5 to the 99.5 percentile of all
        its sets together.

    Raises:
        ValueError: if ``in_dist`` is not in ``values``.
    """
    arrays, colours = in_dist_first(values, in_dist), set_colours(values, in_dist)
    layers = arrays[in_dist].shape[1]
    rows = math.ceil(layers / columns)
    with rc_context(STYLE):
        figure, grid = new_figure(1.9 * columns, 1.7 * rows + 0.7, rows, columns)
        for axes in grid.flat[layers:]:
            axes.set_axis_off()
        for layer, axes in zip(range(layers), grid.flat, strict=False):
            bins = _bins(np.concatenate([array[:, layer] for array in arrays.values()]), 30)
            for name, array in arrays.items():
                _draw(
                    axes, array[:, layer], bins, colours[name], trusted=name == in_dist, width=1.3
                )
            axes.set_title(f"layer {layer}")
            axes.set(yticks=[], ylim=(0, None), xlim=(bins[0], bins[-1]))
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        figure.legend(
            handles=[
                Line2D([], [], color=colour, label=plain_text(name))
                for name, colour in colours.items()
            ],
            loc="outside upper left", ncols=4, title=xlabel, alignment="left",
        )  # fmt: skip
    return figure


def _bins(values: NDArray, count: int, *, log: bool = False) -> NDArray:
    low, high = np.quantile(values, [0.005, 0.995])
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return np.geomspace(low, high, count + 1) if log else np.linspace(low, high, count + 1)


def _draw(
    axes: Axes, values: NDArray, bins: NDArray, colour: str, *, trusted: bool, width: float = 1.6
) -> StepPatch:
    """Draw the share of ``values`` in each bin; returns the outline."""
    share = np.histogram(values, bins)[0] / max(values.size, 1)
    # The trusted set is filled; the others are outlines, legible through one another.
    axes.stairs(share, bins, fill=True, color=colour, alpha=0.3 if trusted else 0.07)
    return axes.stairs(share, bins, color=colour, linewidth=width)
