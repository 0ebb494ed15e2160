"""What an array of images is in this library, and how one is changed into another.

Pure functions, uint8 `(n, h, w, c)` to uint8 of the same shape. `jaxood.data.load` applies them by
name: `rotated`, `rotated_bilinear`, `scaled_<c>`, `unit_scaled_<c>`, `contrast_<c>`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np


class DataError(ValueError):
    """Images that cannot be had, or are not what was asked for; the message says what to do."""


class AbsentError(DataError):
    """Images that no source has: nothing is wrong with what is there."""


def check_images(
    images: np.ndarray, labels: np.ndarray | None, source: Any, shape: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The one check that everything loaded passes; `source` is named in the messages.

    Args:
        images: Any array; `(n, h, w)` is taken for one channel.
        labels: Any array, or None.
        source: Where they are from.
        shape: `(h, w, c)` that every image must have, if given.

    Returns:
        Writable C-contiguous uint8 `(n, h, w, c)` with n > 0 and c 1 or 3; int64 `(n,)` or None.

    Raises:
        DataError: Anything else.
    """
    if images.dtype != np.uint8:
        nan = " with NaN" if images.dtype.kind == "f" and np.isnan(images).any() else ""
        raise DataError(
            f"{source}: images are {images.dtype}{nan}, not uint8; for finite values in [0, 1] "
            "store (255 * x).round().astype(numpy.uint8)"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(
            f"{source}: images have shape {images.shape}; store them as (n, h, w, c) with 1 or 3 "
            "channels last"
        )
    if images.size == 0:
        raise DataError(f"{source}: there are no images, shape {images.shape}; add some")
    if shape and images.shape[1:] != shape:
        raise DataError(
            f"{source}: images are {images.shape[1:]}, but this set is {shape}; resize them, "
            "or load the file by its path"
        )
    if labels is not None:
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise DataError(
                f"{source}: labels are {labels.dtype} of shape {labels.shape} for {len(images)} "
                "images; store one integer an image"
            )
        labels = labels.astype(np.int64)
    return np.require(images, requirements=["C", "W"]), labels


def rotate(images: np.ndarray, seed: int = 0, *, bilinear: bool = False) -> np.ndarray:
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

    Returns:
        uint8, the shape of `images`.

    Raises:
        DataError: `images` is not such an array.
    """
    from PIL import Image

    images, _ = check_images(images, None, "rotate")
    angles = np.random.default_rng(seed).uniform(90, 270, len(images))
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


def by_name(text: str, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The transform that `text`, a part of the data set name `name`, stands for."""
    if text in ("rotated", "rotated_bilinear"):
        return partial(rotate, bilinear=text == "rotated_bilinear")
    kind, _, c = text.rpartition("_")
    kinds = {"scaled": scale, "unit_scaled": unit_scale, "contrast": contrast}
    try:
        return partial(kinds[kind], c=_factor(float(c)))
    except (KeyError, ValueError):
        raise DataError(
            f"{name!r}: there is no such file or folder, and {text!r} is no transform; those are "
            "rotated, rotated_bilinear, scaled_<c>, unit_scaled_<c> and contrast_<c> with a number "
            "c of at least 0"
        ) from None
