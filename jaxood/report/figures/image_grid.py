"""Grids of images, in which every pixel is drawn as it is."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from jaxood.report.figures.style import QUIET, STYLE, new_figure, plain_text

_CAPTION = 0.32  # room under an image for its caption, in image heights


def image_grid(
    groups: Mapping[str, ArrayLike],
    *,
    columns: int = 8,
    rows: int | None = None,
    captions: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw images side by side, in titled groups.

    Args:
        groups: by title, uint8 images (n, h, w, c) with 1 or 3 channels.
        columns: images in a row.
        rows: rows of a group at most; all of its images where None.
        captions: by title, a short text under each image, such as its bits per dimension.

    Returns:
        The groups above one another, every pixel drawn as it is.

    Raises:
        ValueError: if there are no images, or they are not uint8 (n, h, w, 1 or 3).
    """
    images = {title: np.asarray(group) for title, group in groups.items()}
    for title, group in images.items():
        if group.dtype != np.uint8 or group.ndim != 4 or group.shape[-1] not in (1, 3):
            raise ValueError(
                f"Images must be uint8 (n, h, w, 1 or 3); {title!r} is {group.dtype} {group.shape}."
            )
    if not images or not all(len(group) for group in images.values()):
        raise ValueError("There is a group without images; pass at least one image a group.")
    captions = captions or {}
    images = {title: group[: rows and rows * columns] for title, group in images.items()}
    canvases = {
        title: _tile(group, columns, room=_CAPTION if title in captions else 0)
        for title, group in images.items()
    }
    width = min(7.5, 0.9 * columns)
    heights = [width * canvas.shape[0] / canvas.shape[1] for canvas in canvases.values()]
    with rc_context(STYLE):
        figure, grid = new_figure(
            width, sum(heights) + 0.35 * len(heights), len(heights), 1, height_ratios=heights
        )
        for axes, (title, canvas) in zip(grid.flat, canvases.items(), strict=True):
            axes.imshow(canvas, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(plain_text(title))
            _, height, width, _ = images[title].shape
            down, right = _pitch(height, width, room=_CAPTION)
            for k, caption in enumerate(captions.get(title, ())[: len(images[title])]):
                row, column = divmod(k, columns)
                axes.text(
                    column * right + width / 2, row * down + height, caption.replace("$", r"\$"),
                    ha="center", va="top", fontsize=8, color=QUIET,
                )  # fmt: skip
    return figure


def _pitch(height: int, width: int, *, room: float) -> tuple[int, int]:
    """Count the pixels from one image of a grid to the next, down and to the right."""
    gap = max(1, round(width / 16))
    return height + gap + round(room * height), width + gap


def _tile(images: NDArray, columns: int, *, room: float) -> NDArray:
    """Lay the images on one white canvas, in rows of ``columns``."""
    n, height, width, _ = images.shape
    down, right = _pitch(height, width, room=room)
    canvas = np.full((math.ceil(n / columns) * down, columns * right, 3), 255, np.uint8)
    for k, image in enumerate(images):
        row, column = divmod(k, columns)
        top, left = row * down, column * right
        canvas[top : top + height, left : left + width] = image
    return canvas
