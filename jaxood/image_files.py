"""One image file or encoded image, as pixels: what is damaged, too large or too deep is refused."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxood.images import DataError, Shape, open_regular, why

Prepare = Callable[[Any, tuple[int, int]], Any]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_MOST_PIXELS = 2**24
_MOST_BYTES = 2**27
_MOST_SCANS = 64
"""Of a progressive JPEG, which is decoded once a scan: encoders write some ten."""


def decode(
    files: Sequence[tuple[str, Path | bytes]],
    shape: Shape | None = None,
    prepare: Prepare | None = None,
    like: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Image files or encoded images as one array.

    Args:
        files: Each with its name for messages.
        shape: As of `decode_image`.
        prepare: As of `decode_image`.
        like: Shape of the images before these, if there are any.

    Returns:
        uint8 `(n, h, w)` or `(n, h, w, 3)`.

    Raises:
        DataError: As `decode_image`.
    """
    images = np.empty(0, np.uint8)
    for i, (name, file) in enumerate(files):
        pixels = decode_image(name, file, shape, prepare, like)
        if i == 0:
            like = pixels.shape
            images = np.empty((len(files), *like), np.uint8)
        images[i] = pixels
    return images


def decode_image(
    name: str,
    file: Path | bytes,
    shape: Shape | None = None,
    prepare: Prepare | None = None,
    like: tuple[int, ...] | None = None,
) -> np.ndarray:
    """One PNG, JPEG, BMP or WEBP as pixels.

    PNG has checksums: what is read is what was written. The other formats have none: damage that
    leaves the file decodable changes pixels and cannot be noticed.

    Args:
        name: For messages.
        file: The file, or what it holds.
        shape: `(h, w, c)` wanted: c decides between gray and RGB, which the image else decides
            itself, and `(h, w)` is for `prepare` alone.
        prepare: Makes a Pillow image of another size into one of the size `(w, h)`.
        like: Shape that the pixels must have, if given: that of the images before.

    Returns:
        uint8 `(h, w)` or `(h, w, 3)`.

    Raises:
        DataError: The image is damaged, cannot be opened, has more than 8 bits a channel or more
            than 2**24 pixels, or differs from those before it in size or mode.
    """
    encoded = _read(file) if isinstance(file, Path) else file
    if len(encoded) > _MOST_BYTES:
        raise DataError(f"{name}: an image of more than {_MOST_BYTES} bytes; replace or remove it")
    try:
        pixels = np.asarray(_converted(encoded, shape, prepare))
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:  # Pillow's decoders raise many types
        raise DataError(
            f"{name}: not a readable image ({why(error)}); replace or remove it"
        ) from error
    if like and pixels.shape != like:
        raise DataError(
            f"{name}: this image is {pixels.shape}, those before it {like}; make all images one "
            "size and one mode"
        )
    return pixels


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(_MOST_BYTES + 1)


def _converted(encoded: bytes, shape: Shape | None, prepare: Prepare | None) -> Any:
    """The image that Pillow decodes, gray or RGB."""
    from PIL import Image

    def opened() -> Any:
        return Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG", "BMP", "WEBP"))

    with opened() as image:
        if image.width * image.height > _MOST_PIXELS:
            raise DataError(
                f"{image.width} x {image.height} pixels are more than {_MOST_PIXELS}; make it "
                "smaller or remove it"
            )
        if image.format == "PNG":
            if str(image.tile[0][3]).endswith(";16B"):  # of RGB, Pillow would drop the lower half
                raise DataError("16 bits a channel; convert it to 8 bits")
            image.verify()  # checksums, which decoding passes over
        if image.format in ("JPEG", "MPO") and encoded.count(b"\xff\xda") > _MOST_SCANS:
            raise DataError(f"a JPEG of more than {_MOST_SCANS} scans; replace or remove it")
    with opened() as image:  # again: verifying uses it up
        image.info.pop("transparency", None)
        gray = shape[-1] == 1 if shape else image.mode in ("1", "L", "LA")
        if shape and prepare and image.size != (shape[1], shape[0]):
            return _in_mode(prepare(image, (shape[1], shape[0])), gray)
        return _in_mode(image, gray)


def _in_mode(image: Any, gray: bool) -> Any:
    image.load()
    return image.convert("L" if gray else "RGB")
