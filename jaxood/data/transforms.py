"""Transforms of images: pure functions from uint8 ``(n, h, w, c)`` to uint8 of the same shape.

`jaxood.data.load` applies them by name: ``rotated``, ``rotated_bilinear``, ``scaled_<c>``,
``unit_scaled_<c>``, ``contrast_<c>``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxood.data.images import DataError, check_images


def rotate(
    images: np.ndarray, seed: int = 0, *, bilinear: bool = False, first: int = 0
) -> np.ndarray:
    """Turn each image by its own random angle, uniform in (90, 270) degrees.

    This is "Rotation" of the BatchNorm paper's Table 2. The paper does not say how pixels are
    resampled; the nearest neighbour is the default of torchvision, for which the paper's models
    are written. It leaves ragged edges that give a rotation away; ``bilinear`` does not. Pixels
    that turn in from outside the image are 0 (black), so the corners give a rotation away where
    the background of the images is not black. Image i gets the same angle however many images
    follow it.

    Args:
        images: uint8 ``(n, h, w, c)``, c 1 or 3.
        seed: seed of the angles.
        bilinear: interpolate instead of taking the nearest pixel.
        first: position of the first of these images in their set; a part of a set is then turned
            as in the whole set.

    Returns:
        uint8, the shape of ``images``.

    Raises:
        DataError: if ``images`` is not such an array.
    """
    from PIL import Image

    images, _ = check_images(images, None, "rotate")
    generator = np.random.Generator(np.random.PCG64(seed).advance(first))
    angles = generator.uniform(90, 270, len(images))
    resampling = Image.Resampling.BILINEAR if bilinear else Image.Resampling.NEAREST
    turned = np.empty_like(images)
    for out, image, angle in zip(turned, images, angles, strict=True):
        picture: Any = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
        picture = picture.rotate(angle, resampling)
        out[...] = np.asarray(picture).reshape(image.shape)
    return turned


def scale(images: np.ndarray, c: float) -> np.ndarray:
    """Multiply pixel values by ``c``, round and clip them to 0..255; 0 stays 0.

    Args:
        images: uint8 ``(n, h, w, c)``, c 1 or 3.
        c: the factor, at least 0; the NRM paper uses 0.8 on CelebA.

    Returns:
        uint8, the shape of ``images``.

    Raises:
        DataError: if ``images`` is not such an array, or ``c`` is negative or not finite.
    """
    images, _ = check_images(images, None, "scale")
    return to_uint8(np.arange(256) * _factor(c))[images]


def contrast(images: np.ndarray, c: float) -> np.ndarray:
    """Scale each image by ``c`` about its own mean, round and clip it to 0..255.

    Args:
        images: uint8 ``(n, h, w, c)``, c 1 or 3.
        c: the factor, at least 0; below 1 it lowers the contrast and keeps the mean.

    Returns:
        uint8, the shape of ``images``.

    Raises:
        DataError: if ``images`` is not such an array, or ``c`` is negative or not finite.
    """
    images, _ = check_images(images, None, "contrast")
    mean = images.mean((1, 2, 3), dtype=np.float64, keepdims=True).astype(np.float32)
    return to_uint8(mean + np.float32(_factor(c)) * (images - mean))


def unit_scale(images: np.ndarray, c: float) -> np.ndarray:
    """Multiply pixel values by ``c`` in the range [-1, 1], round and clip them; mid-grey stays.

    Args:
        images: uint8 ``(n, h, w, c)``, c 1 or 3.
        c: the factor, at least 0; the NRM paper's 0.8 on CelebA may also be read in this way.

    Returns:
        uint8, the shape of ``images``.

    Raises:
        DataError: if ``images`` is not such an array, or ``c`` is negative or not finite.
    """
    images, _ = check_images(images, None, "unit_scale")
    return to_uint8(127.5 + (np.arange(256) - 127.5) * _factor(c))[images]


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Round values (halves to even) and clip them to 0..255."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _factor(c: float) -> float:
    if not 0 <= c < np.inf:
        raise DataError(f"the factor {c} of a transform must be finite and at least 0")
    return c


class Transform(NamedTuple):
    """A transform that the name of a set can end in.

    Attributes:
        apply: maps images, and the position of the first of them in their set, to images.
        title: the words that follow the title of the set.
    """

    apply: Callable[[np.ndarray, int], np.ndarray]
    title: str


def by_name(text: str) -> Transform | None:
    """Read one transform from its name, such as ``scaled_0.8``; None if there is none."""
    if text in ("rotated", "rotated_bilinear"):
        bilinear = text == "rotated_bilinear"
        return Transform(
            lambda images, first: rotate(images, bilinear=bilinear, first=first),
            ", rotated bilinear" if bilinear else ", rotated",
        )
    kind, _, c = text.rpartition("_")
    kinds = {
        "scaled": (scale, f" × {c}"),
        "unit_scaled": (unit_scale, f" × {c} in [−1, 1]"),
        "contrast": (contrast, f", contrast × {c}"),
    }
    try:
        (transform, title), factor = kinds[kind], _factor(float(c))
    except (KeyError, ValueError):
        return None
    return Transform(lambda images, first: transform(images, factor), title)
