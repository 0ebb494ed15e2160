"""What happens layer by layer, as matplotlib figures in the style of `jaxood.report.figures`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from jaxood.report.figures.style import (
    DASHED,
    LINE,
    STYLE,
    label_ends,
    new_figure,
    plain_text,
    set_colours,
)


def layer_histograms(
    values: Mapping[str, ArrayLike], in_dist: str, *, xlabel: str, columns: int = 5
) -> Figure:
    """Histograms of each set, a panel a layer (NRM paper, Figure 5).

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
    colours = set_colours(values, in_dist)
    arrays = {name: np.asarray(values[name], float) for name in colours}
    layers = arrays[in_dist].shape[1]
    rows = math.ceil(layers / columns)
    with rc_context(STYLE):
        figure, grid = new_figure(1.9 * columns, 1.7 * rows + 0.7, rows, columns)
        for axes in grid.flat[layers:]:
            axes.set_axis_off()
        for layer, axes in zip(range(layers), grid.flat, strict=False):
            everything = np.concatenate([array[:, layer] for array in arrays.values()])
            low, high = np.quantile(everything, [0.005, 0.995])
            bins = np.linspace(low, high if high > low else low + 1, 31)
            for name, array in arrays.items():
                share = np.histogram(array[:, layer], bins)[0] / len(array)
                axes.stairs(
                    share, bins, fill=True, color=colours[name],
                    alpha=0.3 if name == in_dist else 0.07,
                )  # fmt: skip
                axes.stairs(share, bins, color=colours[name], linewidth=1.3)
            axes.set_title(f"layer {layer}")
            axes.set(yticks=[], ylim=(0, None), xlim=(bins[0], bins[-1]))
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        _legend(figure, colours, xlabel)
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
    """A number of each set against the layer (NRM paper, Figure E.4).

    Args:
        curves: by set name, (layers,).
        in_dist: the name of the trusted set, if it is among them.
        ylabel: what is shown.
        first: number of the first layer.
        chance: where to draw a line.
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
        if chance is not None:  # after the names: it has none
            axes.axhline(chance, **DASHED, zorder=1)
    return figure


def _legend(figure: Figure, colours: Mapping[str, str], title: str) -> None:
    handles: Sequence[Line2D] = [
        Line2D([], [], color=colour, label=plain_text(name)) for name, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, title=title, alignment="left")
