"""The user's own image files: `.npz`, folders of images, and idx files as MNIST's, as uint8 arrays.

`jaxood.data.load` finds them by name or path and says which names they may have.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from jaxood.transforms import DataError, check_images

Loaded = tuple[np.ndarray, np.ndarray | None]
Shape = tuple[int, int, int]
Prepare = Callable[[Any, tuple[int, int]], Any]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class MissingSplit(DataError):
    """A source that is whole, but has other splits than the one asked for; `found` names them."""

    def __init__(self, source: Path, split: str, has: Iterable[str], remedy: str):
        self.found = f"{source} has {', '.join(sorted(has))}"
        super().__init__(f"{self.found}, but no images for the split {split!r}; {remedy}")


def find(stems: Sequence[str], places: Sequence[Path]) -> Iterator[Path]:
    """Existing files `<stem>.npz` and files or folders `<stem>` in these places."""
    paths = (p / f for p in places for stem in stems for f in (f"{stem}.npz", stem))
    return (path for path in paths if path.exists())


def holds_images(path: Path) -> bool:
    """Whether this is a file, or a folder with an image or idx file in it, however deep."""
    return path.is_file() or any(
        file.suffix.lower() in _SUFFIXES or "-ubyte" in file.name for file in path.rglob("*")
    )


def read(
    path: Path,
    split: str,
    *,
    shape: Shape | None = None,
    prepare: Prepare | None = None,
    limit: int | None = None,
) -> Loaded:
    """Images and labels of a split from a `.npz` file, or a folder of idx files or images.

    Args:
        path: The file or folder.
        split: "train", "test" or another that the source has.
        shape: `(h, w, c)` that every image must have, if given.
        prepare: As in `decode`; not for arrays and idx files.
        limit: Most images to read, from the first on.

    Returns:
        What `jaxood.data.load` returns.

    Raises:
        MissingSplit: There are other splits.
        DataError: The source is damaged, or not what it should be.
    """
    if not path.is_dir():
        images, labels = _read_npz(path, split)
    elif idx := _find_idx(path, split, "images-idx3"):
        labels = _find_idx(path, split, "labels-idx1")
        images, labels, path = _read_idx(idx), labels and _read_idx(labels), idx
    else:
        files, labels = _list_images(path, split)
        images = decode([(str(f), f) for f in files[:limit]], shape, prepare)
    return check_images(images[:limit], None if labels is None else labels[:limit], path, shape)


def decode(
    files: Sequence[tuple[str, Path | bytes]],
    shape: Shape | None = None,
    prepare: Prepare | None = None,
) -> np.ndarray:
    """Image files or encoded images as one array.

    Args:
        files: Each with its name for messages.
        shape: `(h, w, c)` wanted: c decides between gray and RGB, which each image else decides
            itself, and `(h, w)` is for `prepare` alone.
        prepare: Makes a Pillow image of another size into one of the size `(w, h)`.

    Returns:
        uint8 `(n, h, w)` or `(n, h, w, 3)`.

    Raises:
        DataError: An image is damaged, has more than 8 bits a channel, or differs from those
            before it in size or mode.
    """
    from PIL import Image

    images = np.empty(0, np.uint8)
    for i, (name, file) in enumerate(files):
        try:
            stream = io.BytesIO(file) if isinstance(file, bytes) else file
            with Image.open(stream, formats=("PNG", "JPEG", "BMP", "WEBP")) as image:
                pixels = np.asarray(_converted(image, shape, prepare))
        except Exception as error:  # Pillow's decoders raise many types
            raise DataError(
                f"{name}: not a readable image ({why(error)}); replace or remove it"
            ) from error
        if pixels.dtype != np.uint8:
            raise DataError(f"{name}: a {pixels.dtype} image; convert it to 8 bits a channel")
        if i == 0:
            images = np.empty((len(files), *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"{name}: this image is {pixels.shape}, those before it {images.shape[1:]}; make "
                "all images one size and one mode"
            )
        images[i] = pixels
    return images


def why(error: Exception) -> str:
    """An error of a library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _read_npz(path: Path, split: str) -> Loaded:
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: neither a folder nor a whole .npz file; write it (again) with numpy.savez"
        )
    pairs = [(f"x_{split}", f"y_{split}"), ("images", "labels"), ("x", "y"), ("arr_0", "arr_1")]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = [key for key in arrays if key.startswith("x_")]
            if splits:
                pairs = pairs[:1]
            x, y = next((pair for pair in pairs if pair[0] in arrays), (None, None))
            if x is not None:
                return arrays[x], arrays[y] if y in arrays else None
            have = ", ".join(arrays) or "nothing"
    except Exception as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: holds pickled Python objects, which may run code and are never read; "
                "store plain uint8 arrays with numpy.savez"
            ) from None
        raise DataError(f"{path}: damaged .npz file ({why(error)}); write it again") from error
    if splits:
        raise MissingSplit(path, split, splits, f"store those as x_{split} and y_{split}")
    raise DataError(f"{path}: no images; it holds {have}: name them x_{split} and y_{split}")


def _find_idx(folder: Path, split: str, kind: str) -> Path | None:
    stem = f"{'t10k' if split == 'test' else split}-{kind}-ubyte"
    return next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)


def _read_idx(path: Path) -> np.ndarray:
    """The array of an idx file: two zero bytes, type (8: uint8), rank, big-endian sizes, data."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            raw = file.read()
        if raw[:3] != b"\0\0\x08":
            raise ValueError("it does not start as an idx file of bytes")
        shape = np.frombuffer(raw, ">i4", raw[3], offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
    except Exception as error:
        raise DataError(f"{path}: damaged idx file ({why(error)}); get it again") from error


def _list_images(folder: Path, split: str) -> tuple[list[Path], np.ndarray | None]:
    """Image files of a split in name order, and classes where they lie in sub-folders."""

    def folders(path: Path) -> list[Path]:
        return sorted(p for p in path.iterdir() if p.is_dir() and p.name[0] != ".")

    def images(path: Path) -> list[Path]:
        return sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)

    splits = {"train", "test", split} & {p.name for p in folders(folder)}
    if splits and split not in splits:
        raise MissingSplit(folder, split, splits, f"put them in {folder / split}")
    root = folder / split if splits else folder
    flat, classes = images(root), [images(path) for path in folders(root)]
    if not flat and not any(classes):
        idx = [p.name for p in folder.glob("*-images-idx3-ubyte*")]
        if others := {*idx, *splits} - {split}:
            raise MissingSplit(folder, split, others, f"put them in {folder / split}")
        raise DataError(
            f"{root}: no images in this folder; put {', '.join(_SUFFIXES)} files there, or "
            "MNIST-style idx files"
        )
    if flat and any(classes):
        raise DataError(
            f"{root}: images lie both in this folder and in sub-folders; move them so that all do "
            "the same"
        )
    labels = np.repeat(np.arange(len(classes)), [len(c) for c in classes])
    return flat or list(chain(*classes)), None if flat else labels


def _converted(
    image: Any,
    shape: Shape | None,
    prepare: Prepare | None,
) -> Any:
    if image.mode[0] in "IF":  # 16 bits and more: refused by the caller, Pillow would clip
        return image
    gray = shape[-1] == 1 if shape else image.mode in ("1", "L", "LA")
    if shape and prepare and image.size != (shape[1], shape[0]):
        image = prepare(image, (shape[1], shape[0]))
    mode = "L" if gray else "RGB"
    return image if image.mode == mode else image.convert(mode)
