"""The one kind of image array in this library, in memory or on disk, and its errors."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Loaded = tuple[np.ndarray, np.ndarray | None]
"""uint8 images ``(n, h, w, c)``, and int64 labels ``(n,)`` or None."""

Shape = tuple[int, int, int]
"""``(h, w, c)`` of an image."""


class DataError(ValueError):
    """Images cannot be loaded, or are not what was asked for; the message says what to do.

    The message is one line that can be printed, whatever characters a file name has.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


class AbsentError(DataError):
    """No source has the images; nothing is wrong with the files that are there."""


class MissingSplit(DataError):
    """A source is whole, but it has other splits than the one asked for.

    Attributes:
        found: a clause that names the source and its splits.
    """

    def __init__(self, source: Path, split: str, has: Iterable[str], remedy: str):
        self.found = f"{source} has {', '.join(sorted(has))}"
        super().__init__(f"{self.found}, but no images for the split {split!r}; {remedy}")


@dataclass(frozen=True)
class Images:
    """Images that stay on disk: ``images[start:stop]`` reads some of them into memory.

    The memory in use grows with the slice alone, except for labels and file names, which are kept.
    Only one thread at a time may read.

    Attributes:
        shape: ``(n, h, w, c)``.
        rows: maps ``(start, stop)``, 0 <= start < stop <= n, to checked images and labels.
        names: names of the image files, where each image is a file; else None. They are as the
            file system has them: they may hold control characters and, where they are not UTF-8,
            lone surrogates.
        skipped: names of the other files in the folder, which are no images that can be read here.
        random_access: True if reading costs the same in any order. If it is False, an earlier image
            is reached by reading from the front again.
        readable: maps ``(start, stop)`` to uint8 ``(stop - start, h, w, c)``, which is black where
            an image cannot be read, and to the reasons by position. It is None where an image
            cannot be damaged alone.
    """

    shape: tuple[int, int, int, int]
    rows: Callable[[int, int], Loaded]
    names: Sequence[str] | None = None
    skipped: Sequence[str] = ()
    random_access: bool = True
    readable: Callable[[int, int], tuple[np.ndarray, dict[int, str]]] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: slice) -> np.ndarray:
        """Read the images of a slice, uint8 ``(stop - start, h, w, c)``.

        Raises:
            DataError: if an image is damaged, or differs in size or mode from those before it.
            ValueError: if the slice is empty or has a step.
        """
        return self.rows(*self._span(chosen))[0]

    def examine(self, chosen: slice) -> tuple[np.ndarray, dict[int, str]]:
        """Read the images of a slice that can be read, and say why the others cannot.

        Only a folder of image files can have single bad images: they are damaged, missing, or of
        another size or mode than the set. An error in any other source concerns all of it.

        Returns:
            uint8 ``(k, h, w, c)`` in order, 0 <= k <= stop - start, and a dict that gives the
            reason, in one line, for each position in the set that is left out.

        Raises:
            DataError: if the source is damaged as a whole.
            ValueError: if the slice is empty or has a step.
        """
        if self.readable is None:
            return self[chosen], {}
        start, stop = self._span(chosen)
        images, bad = self.readable(start, stop)
        return np.delete(images, [i - start for i in bad], axis=0) if bad else images, bad

    def _span(self, chosen: slice) -> tuple[int, int]:
        start, stop, step = chosen.indices(len(self))
        if step != 1 or stop <= start:
            raise ValueError(f"{chosen} of {len(self)} images: give start < stop and no step")
        return start, stop


def in_memory(
    images: np.ndarray, labels: np.ndarray | None, source: Any, shape: Shape | None = None
) -> Images:
    """Wrap an array as `Images`; it takes the arguments of `check_images` and raises its errors."""
    found = check_shape(images.dtype, images.shape, source, shape)
    images, labels = check_images(images, labels, source, shape)

    def rows(start: int, stop: int) -> Loaded:
        return images[start:stop], None if labels is None else labels[start:stop]

    return Images(found, rows)


def check_images(
    images: np.ndarray, labels: np.ndarray | None, source: Any, shape: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Check images and labels: everything that is loaded passes this one check.

    Args:
        images: any array; ``(n, h, w)`` is taken for one channel.
        labels: any array, or None.
        source: the source of both, which messages name.
        shape: ``(h, w, c)`` that every image must have, if given.

    Returns:
        Writable C-contiguous uint8 ``(n, h, w, c)`` with n > 0 and c 1 or 3; int64 ``(n,)`` or
        None.

    Raises:
        DataError: if the arrays cannot be brought to this form without changing a value.
    """
    images = images.reshape(check_shape(images.dtype, images.shape, source, shape))
    if labels is not None:
        check_labels(labels.dtype, labels.shape, len(images), source)
        if (labels > np.iinfo(np.int64).max).any():
            raise DataError(f"{source}: a label is {labels.max()}; store labels that fit int64")
        labels = labels.astype(np.int64)
    return np.require(images, requirements=["C", "W"]), labels


def check_shape(
    dtype: np.dtype,
    found: tuple[int, ...],
    source: Any,
    shape: tuple[int, ...] | None = None,
) -> tuple[int, int, int, int]:
    """Check the type and shape of an array of images: the part of `check_images` without pixels.

    Args:
        dtype: type of the array.
        found: shape of the array; ``(n, h, w)`` is taken for one channel.
        source: the source of the images, which messages name.
        shape: ``(h, w, c)`` that every image must have, if given.

    Returns:
        ``(n, h, w, c)``.

    Raises:
        DataError: if the images are not uint8 ``(n, h, w, c)`` with n > 0 and c 1 or 3.
    """
    if dtype != np.uint8:
        raise DataError(
            f"{source}: images are {dtype}, not uint8; for values in [0, 1], none of them NaN, "
            "store (255 * x).round().astype(numpy.uint8)"
        )
    if len(found) == 3:
        found = (*found, 1)
    if len(found) != 4 or found[-1] not in (1, 3):
        raise DataError(
            f"{source}: images have shape {found}; store them as (n, h, w, c) with 1 or 3 "
            "channels last"
        )
    if min(found) < 1:
        raise DataError(f"{source}: there are no images, shape {found}; add some")
    if shape and found[1:] != shape:
        raise DataError(
            f"{source}: images are {found[1:]}, but this set is {shape}; resize them, "
            "or load the file by its path"
        )
    n, height, width, channels = found
    return n, height, width, channels


def check_labels(dtype: np.dtype, found: tuple[int, ...], n: int, source: Any) -> None:
    """Check the type and shape of an array of labels: the part of `check_images` without values.

    Args:
        dtype: type of the array.
        found: shape of the array.
        n: number of images.
        source: the source of the labels, which messages name.

    Raises:
        DataError: if they are not one integer for each image.
    """
    if found != (n,) or dtype.kind not in "iu":
        raise DataError(
            f"{source}: labels are {dtype} of shape {found} for {n} images; store one integer for "
            "each image"
        )


def why(error: Exception) -> str:
    """Describe an error of a library in one line, without addresses, which differ each time."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:200]}"


def printable(text: str) -> str:
    """Replace each character that cannot be printed in a line by its escape in Python."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file; a pipe, socket or device, which could block a read, is never opened.

    Raises:
        DataError: if the file is not a regular one, is missing, or may not be read.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
        raise DataError(
            f"{path}: cannot be opened ({why(error)}); make it readable or remove it"
        ) from error
    raise DataError(f"{path}: this is not a regular file; replace or remove it")
