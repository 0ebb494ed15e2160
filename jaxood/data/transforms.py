"""How one array of images is changed into another.

Pure functions, uint8 `(n, h, w, c)` to uint8 of the same shape. `jaxood.data` applies them by
name: `rotated`, `rotated_bilinear`, `scaled_<c>`, `unit_scaled_<c>`, `contrast_<c>`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxood.data.images import DataError, check_images


def rotate(
    images: np.ndarray, seed: int = 0, *, bilinear: bool = False, first: int = 0
) -> np.ndarray:
    """Each image turned by its own random angle, uniform in (90, 270) degrees.

    This is "Rotation" of the BatchNorm paper's Table 2. The paper does not say how pixels are
    resampled; the nearest neighbour is what torchvision, which its models are written for, does
    by default. It leaves ragged edges that give a rotation away; `bilinear` does not. What turns
    in from outside the image is 0 (black), so on images whose background is not black the
    corners do. Image i gets the same angle however many images follow it.

    Args:
        images: uint8 `(n, h, w, c)`, c 1 or 3.
        seed: Of the angles.
        bilinear: Interpolate, in place of taking the nearest pixel.
        first: Position of the first of these images in their set: a part of a set is turned as
            the whole of it would be.

    Returns:
        uint8, the shape of `images`.

    Raises:
        DataError: `images` is not such an array.
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
    """Pixel values times `c`, rounded and clipped to 0..255; 0 stays 0.

    Args:
        images: uint8 `(n, h, w, c)`, c 1 or 3.
        c: The factor, at least 0; the NRM paper has 0.8 on CelebA.

    Returns:
        uint8, the shape of `images`.

    Raises:
        DataError: `images` is not such an array, or `c` is negative or not finite.
    """
    images, _ = check_images(images, None, "scale")
    return to_uint8(np.arange(256) * _factor(c))[images]


def contrast(images: np.ndarray, c: float) -> np.ndarray:
    """Each image scaled by `c` about its own mean, rounded and clipped to 0..255.

    Args:
        images: uint8 `(n, h, w, c)`, c 1 or 3.
        c: The factor, at least 0; below 1 lowers the contrast and keeps the mean.

    Returns:
        uint8, the shape of `images`.

    Raises:
        DataError: `images` is not such an array, or `c` is negative or not finite.
    """
    images, _ = check_images(images, None, "contrast")
    mean = images.mean((1, 2, 3), dtype=np.float64, keepdims=True).astype(np.float32)
    return to_uint8(mean + np.float32(_factor(c)) * (images - mean))


def unit_scale(images: np.ndarray, c: float) -> np.ndarray:
    """Pixel values times `c` in the range [-1, 1], rounded and clipped; mid-grey stays mid-grey.

    Args:
        images: uint8 `(n, h, w, c)`, c 1 or 3.
        c: The factor, at least 0; the other reading of the NRM paper's 0.8 on CelebA.

    Returns:
        uint8, the shape of `images`.

    Raises:
        DataError: `images` is not such an array, or `c` is negative or not finite.
    """
    images, _ = check_images(images, None, "unit_scale")
    return to_uint8(127.5 + (np.arange(256) - 127.5) * _factor(c))[images]


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Values rounded (halves to even) and clipped to 0..255."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _factor(c: float) -> float:
    if not 0 <= c < np.inf:
        raise DataError(f"the factor {c} of a transform must be finite and at least 0")
    return c


def by_name(text: str, name: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """The transform that `text`, a part of the data set name `name`, stands for.

    It takes images, and the position of their first in the set.
    """
    if text in ("rotated", "rotated_bilinear"):
        bilinear = text == "rotated_bilinear"
        return lambda images, first: rotate(images, bilinear=bilinear, first=first)
    kind, _, c = text.rpartition("_")
    kinds = {"scaled": scale, "unit_scaled": unit_scale, "contrast": contrast}
    try:
        transform, factor = kinds[kind], _factor(float(c))
    except (KeyError, ValueError):
        raise DataError(
            f"{name!r}: there is no such file or folder, and {text!r} is no transform; those are "
            "rotated, rotated_bilinear, scaled_<c>, unit_scaled_<c> and contrast_<c> with a number "
            "c of at least 0"
        ) from None
    return lambda images, first: transform(images, factor)
