"""The one style of every figure: colours, shapes, sizes, names, legends and files.

The trusted (in-distribution) set is always dark and drawn first; OOD sets take their colours by
their order, so a caller who keeps the order keeps the colours. Figures are built without pyplot:
no global state, no backend, nothing to close.
"""

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from jaxood.integrity import write_file
from jaxood.report.labels import label

INK, QUIET, LINE, BAND = "#2b3440", "#6b7682", "#d5dae0", "#f4f6f8"
IN_DIST = "#3a4654"
# Okabe & Ito's colour-blind-safe palette without black, grey and the faint yellow.
OOD = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Scores are told apart in other colours than sets, and by shape (after Paul Tol's palettes).
SCORES = ("#8a98a8", "#ddaa33", "#44aa99", "#b3365b", "#332288", "#999933", "#88ccee", "#aa4499")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHED = {"color": QUIET, "linewidth": 1, "linestyle": (0, (4, 3))}
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0, "alignment": "left"}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.facecolor": "white",
}


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **subplots: Any
) -> tuple[Figure, NDArray]:
    """Make an empty figure of a size in inches; returns it and its axes ``(rows, columns)``."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def cycle(items: Sequence[str], k: int) -> str:
    """Return item ``k``, where the first follows the last."""
    return items[k % len(items)]


def set_colours(names: Iterable[str], in_dist: str | None = None) -> dict[str, str]:
    """Choose the colours of sets by name, the trusted one first.

    Raises:
        ValueError: if ``in_dist`` is given and not among ``names``.
    """
    names = list(names)
    if in_dist is not None and in_dist not in names:
        raise ValueError(f"The trusted set {in_dist!r} is not among {names}.")
    others = [name for name in names if name != in_dist]
    colours = {} if in_dist is None else {in_dist: IN_DIST}
    return colours | {name: cycle(OOD, k) for k, name in enumerate(others)}


def in_dist_first(values: Mapping[str, ArrayLike], in_dist: str) -> dict[str, NDArray]:
    """Turn the values of sets into float64 arrays, those of the trusted set first.

    Raises:
        ValueError: if ``in_dist`` is not in ``values``.
    """
    return {name: np.asarray(values[name], dtype=float) for name in set_colours(values, in_dist)}


def plain_text(name: str) -> str:
    """Write a label without mathtext: a dollar sign in a data set's name must not stop a figure."""
    return label(name).replace("$", r"\$")


def plain_log_ticks(axis: Axis) -> None:
    """Write numbers, not powers of ten, on a logarithmic axis."""
    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if high < 100 * low else (1,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def legend_above(axes: Axes, handles: Sequence[Artist]) -> None:
    """Place a legend over the axes, in as many rows as its texts need."""
    # Roughly 90 characters, with six for each line sample, fit on a row of a seven-inch figure.
    needed = sum(len(str(handle.get_label())) + 6 for handle in handles)
    columns = math.ceil(len(handles) / math.ceil(needed / 95))
    axes.legend(handles=handles, ncols=columns, handlelength=1.2, columnspacing=1.3, **ABOVE)


def label_ends(axes: Axes) -> None:
    """Name curves at their right ends, pushed apart where they would overlap."""
    axes.autoscale_view()  # limits are lazy, and the transform does not ask for them
    points_per_pixel = 72 / axes.figure.dpi
    ends = [np.asarray(line.get_xydata())[-1] for line in axes.lines]
    heights = [axes.transData.transform(end)[1] * points_per_pixel for end in ends]
    previous = -np.inf
    for k in np.argsort(heights):
        if not np.isfinite(heights[k]):
            continue
        previous = max(heights[k], previous + 12)
        line = axes.lines[k]
        axes.annotate(
            line.get_label(), ends[k], xytext=(10, previous - heights[k]), va="center",
            textcoords="offset points", color=line.get_color(), fontweight="bold",
        )  # fmt: skip


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG at 200 dots per inch; equal figures give equal bytes.

    The file is replaced as a whole, and its folder made where it is absent.
    """
    image = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(
            image, format="png", dpi=200, bbox_inches="tight", pad_inches=0.08,
            metadata={"Software": None},
        )  # fmt: skip
    write_file(path, image.getvalue())
