"""Image files and encoded images as pixels; damaged, too large and too deep images are refused."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxood.data.images import DataError, Shape, open_regular, why

Prepare = Callable[[Any, tuple[int, int]], Any]
"""A function of a Pillow image and a size ``(w, h)`` to a Pillow image of that size."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_PNG = b"\x89PNG\r\n\x1a\n"
_ADAM7 = [
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
]
"""First pixel and strides of the seven images in an interlaced PNG, x before y."""

_MOST_PIXELS = 2**24
"""Largest number of pixels of an image."""

_MOST_BYTES = 2**27
"""Largest size of an encoded image."""

_MOST_SCANS = 64
"""Largest number of scans of a progressive JPEG, each of which is decoded; usual are some ten."""

_MOST_RUNS = 2**22
"""Largest size in bytes of a run-length encoded BMP, which Pillow decodes slowly, in Python."""


def decode(
    files: Sequence[tuple[str, Path | bytes]],
    shape: Shape | None = None,
    prepare: Prepare | None = None,
    like: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Decode image files or encoded images into one array.

    Args:
        files: the files or their contents, each with its name for messages.
        shape: as for `decode_image`.
        prepare: as for `decode_image`.
        like: the shape of the images before these, if there are any.

    Returns:
        uint8 ``(n, h, w)`` or ``(n, h, w, 3)``.

    Raises:
        DataError: as for `decode_image`.
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
    """Decode one PNG, JPEG, BMP or WEBP into pixels.

    PNG has checksums, so damage is noticed. The other formats have none: damage that leaves the
    file decodable changes pixels and cannot be noticed.

    Args:
        name: name of the image for messages.
        file: the file, or its contents.
        shape: the wanted ``(h, w, c)``, if given. Its c decides between gray and RGB, which the
            image decides otherwise; ``(h, w)`` only matters to ``prepare``.
        prepare: makes a Pillow image of another size into one of the size ``(w, h)``.
        like: the shape of the other images, which the pixels must have, if given.

    Returns:
        uint8 ``(h, w)`` or ``(h, w, 3)``.

    Raises:
        DataError: if the image is damaged, cannot be opened, has more than 8 bits a channel or more
            than 2**24 pixels, or differs from the others in size or mode.
    """
    encoded = _read(file) if isinstance(file, Path) else file
    if len(encoded) > _MOST_BYTES:
        raise DataError(
            f"{name}: this image has more than {_MOST_BYTES} bytes; replace or remove it"
        )
    try:
        pixels = np.asarray(_converted(encoded, shape, prepare))
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:  # Pillow's decoders raise many types
        raise DataError(
            f"{name}: this is not a readable image ({why(error)}); replace or remove it"
        ) from error
    if like and pixels.shape != like:
        raise DataError(
            f"{name}: this image is {pixels.shape}, the others are {like}; make all images one "
            "size and one mode"
        )
    return pixels


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(_MOST_BYTES + 1)


def _converted(encoded: bytes, shape: Shape | None, prepare: Prepare | None) -> Any:
    """Decode an image with Pillow, as gray or RGB."""
    from PIL import Image

    if encoded.startswith(_PNG):
        _check_png(encoded)
    with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG", "BMP", "WEBP")) as opened:
        image: Any = opened
        _check_size(*image.size)
        if image.format in ("JPEG", "MPO") and encoded.count(b"\xff\xda") > _MOST_SCANS:
            raise DataError(f"this JPEG has more than {_MOST_SCANS} scans; replace or remove it")
        if image.format == "BMP" and image.tile[0][0] == "bmp_rle" and len(encoded) > _MOST_RUNS:
            raise DataError(
                f"this run-length encoded BMP has more than {_MOST_RUNS} bytes; convert it to PNG"
            )
        image.info.pop("transparency", None)
        gray = shape[-1] == 1 if shape else image.mode in ("1", "L", "LA")
        if shape and prepare and image.size != (shape[1], shape[0]):
            image = prepare(image, (shape[1], shape[0]))
        return image.convert("L" if gray else "RGB")


def _check_size(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise DataError(
            f"{width} x {height} pixels are more than {_MOST_PIXELS}; make the image smaller or "
            "remove it"
        )


def _check_png(encoded: bytes) -> None:
    """Check what Pillow passes over: checksums, too few rows, and the lower half of 16 bits.

    Raises:
        DataError: if the image is too large or has more than 8 bits a channel.
        ValueError: if it is damaged.
    """
    (_, header), *chunks = _png_chunks(encoded)
    width, height, depth, color, *_, interlaced = struct.unpack(">IIBBBBB", header)
    _check_size(width, height)
    if depth > 8:
        raise DataError(f"this PNG has {depth} bits a channel; convert it to 8 bits")
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    grids = _ADAM7 if interlaced else [(0, 0, 1, 1)]
    sizes = [(-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in grids]
    wanted = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns)

    pixels = itertools.dropwhile(lambda chunk: chunk[0] != b"IDAT", chunks)
    pixels = itertools.takewhile(lambda chunk: chunk[0] == b"IDAT", pixels)
    inflate = zlib.decompressobj()
    inflated = inflate.decompress(b"".join(data for _, data in pixels), wanted + 1)
    if len(inflated) != wanted or not inflate.eof:
        raise ValueError("it does not have as many pixels as its header says")


def _png_chunks(encoded: bytes) -> list[tuple[bytes, memoryview]]:
    """Read the types and contents of all chunks but the last.

    Raises:
        ValueError: if a checksum is wrong, or the first chunk is not the only header.
    """
    chunks, at, view = [], len(_PNG), memoryview(encoded)
    while True:
        (size,) = struct.unpack_from(">I", encoded, at)
        kind, data = encoded[at + 4 : at + 8], view[at + 8 : at + 8 + size]
        if struct.unpack_from(">I", encoded, at + 8 + size)[0] != zlib.crc32(
            data, zlib.crc32(kind)
        ):
            raise ValueError(f"a checksum in chunk {kind!r} is not right")
        if (kind == b"IHDR") != (not chunks):
            raise ValueError("its header is not its first chunk")
        if kind == b"IEND":
            return chunks
        chunks.append((kind, data))
        at += 12 + size
