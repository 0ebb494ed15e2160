"""What images are in this library: arrays of one kind, in memory or on disk, and their errors."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Loaded = tuple[np.ndarray, np.ndarray | None]
Shape = tuple[int, int, int]


class DataError(ValueError):
    """Images that cannot be had, or are not what was asked for; the message says what to do.

    The message is one line that can be printed, whatever characters a file name has.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


class AbsentError(DataError):
    """Images that no source has: nothing is wrong with what is there."""


class MissingSplit(DataError):
    """A source that is whole, but has other splits than the one asked for; `found` names them."""

    def __init__(self, source: Path, split: str, has: Iterable[str], remedy: str):
        self.found = f"{source} has {', '.join(sorted(has))}"
        super().__init__(f"{self.found}, but no images for the split {split!r}; {remedy}")


@dataclass(frozen=True)
class Images:
    """Images that stay on disk: `len(images)`, `images.shape`, and a slice is an array in memory.

    Memory grows with the slice alone, but for labels, and file names where there are any. One
    thread at a time may read.

    Attributes:
        shape: `(n, h, w, c)`.
        rows: `(start, stop)` to checked images and labels, 0 <= start < stop <= n.
        names: Names of the files, where each image is one, as the file system has them: they may
            hold control characters and, where they are not UTF-8, lone surrogates.
        skipped: Names of the other files in the folder: they are not images that are read here.
        random_access: Whether reading in any order costs the same; if not, an earlier image is
            reached by reading from the front again.
        readable: `(start, stop)` to uint8 `(stop - start, h, w, c)`, black where an image cannot
            be read, and the reason by position; None where no image can be damaged alone.
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
        """uint8 `(stop - start, h, w, c)`.

        Raises:
            DataError: What is read is damaged, or not like the images before it.
            ValueError: The slice is empty or has a step.
        """
        return self.rows(*self._span(chosen))[0]

    def examine(self, chosen: slice) -> tuple[np.ndarray, dict[int, str]]:
        """The images of a slice that can be read, and why the others cannot.

        Only in a folder of image files can single images be bad: damaged, gone, or of another size
        or mode than the set. Whatever is wrong with any other source is wrong with all of it.

        Returns:
            uint8 `(k, h, w, c)`, in order, 0 <= k <= stop - start; and for each position in the
            set that is left out the reason, in one line.

        Raises:
            DataError: The source is damaged as a whole.
            ValueError: The slice is empty or has a step.
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
    """An array as `Images`; arguments and errors as of `check_images`."""
    found = check_shape(images.dtype, images.shape, source, shape)
    images, labels = check_images(images, labels, source, shape)

    def rows(start: int, stop: int) -> Loaded:
        return images[start:stop], None if labels is None else labels[start:stop]

    return Images(found, rows)


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
    """The part of `check_images` that needs no pixels.

    Args:
        dtype: Of an array of images.
        found: Its shape; `(n, h, w)` is taken for one channel.
        source: Where they are from.
        shape: `(h, w, c)` that every image must have, if given.

    Returns:
        `(n, h, w, c)`.

    Raises:
        DataError: Anything else than uint8 `(n, h, w, c)` with n > 0 and c 1 or 3.
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
    """The part of `check_images` that needs no labels' values; n is the number of images.

    Raises:
        DataError: They are not one integer an image.
    """
    if found != (n,) or dtype.kind not in "iu":
        raise DataError(
            f"{source}: labels are {dtype} of shape {found} for {n} images; store one integer an "
            "image"
        )


def why(error: Exception) -> str:
    """An error of a library in one line, the same each time: without addresses of objects."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:200]}"


def printable(text: str) -> str:
    """The text with whatever cannot be printed in a line written as Python's escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_regular(path: Path) -> BinaryIO:
    """An open regular file; a pipe, socket or device, on which a read may wait, is never opened.

    Raises:
        DataError: It is something else, is gone or may not be read.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
        raise DataError(
            f"{path}: cannot be opened ({why(error)}); make it readable or remove it"
        ) from error
    raise DataError(f"{path}: not a regular file; replace or remove it")
