"""The user's own image files: ``.npz``, ``.npy``, folders of images, and idx files as MNIST's.

`jaxood.data.load` finds them by name or path, and its docstring lists the names that they may have.
They are opened as `Images`, which read no more than is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxood.data.array_files import find_idx, open_idx, open_npy, open_npz
from jaxood.data.image_files import SUFFIXES, Prepare, decode_image
from jaxood.data.images import (
    DataError,
    Images,
    Loaded,
    MissingSplit,
    Shape,
    check_images,
    check_shape,
    why,
)


def find(stems: Sequence[str], places: Sequence[Path]) -> Iterator[Path]:
    """Find files ``<stem>.npz`` and files or folders ``<stem>`` that exist in these places."""
    paths = (p / f for p in places for stem in stems for f in (f"{stem}.npz", stem))
    return (path for path in paths if os.path.exists(path))


def holds_images(path: Path) -> bool:
    """Return True for a file, and for a folder with an image or idx file at any depth in it."""
    return path.is_file() or any(
        file.suffix.lower() in SUFFIXES or "-ubyte" in file.name for file in path.rglob("*")
    )


def open_images(
    path: Path,
    split: str,
    *,
    shape: Shape | None = None,
    prepare: Prepare | None = None,
    limit: int | None = None,
) -> Images:
    """Open a split of a ``.npz`` or ``.npy`` file, or of a folder of idx files or images.

    Args:
        path: the file or folder.
        split: "train", "test" or another split that the source has.
        shape: ``(h, w, c)`` that every image must have, if given.
        prepare: as for `jaxood.data.image_files.decode_image`; arrays and idx files ignore it.
        limit: largest number of images to read, from the first on.

    Returns:
        The images, as `jaxood.data.open` describes them.

    Raises:
        MissingSplit: if the source has only other splits.
        DataError: if the source is damaged, or does not hold images.
    """
    if path.is_dir():
        if idx := find_idx(path, split, "images-idx3"):
            return open_idx(idx, find_idx(path, split, "labels-idx1"), shape, limit)
        return _open_folder(path, split, shape, prepare, limit)
    if path.suffix == ".npy":
        return open_npy(path, shape, limit)
    return open_npz(path, split, shape, limit)


def _open_folder(
    folder: Path,
    split: str,
    shape: Shape | None,
    prepare: Prepare | None,
    limit: int | None,
) -> Images:
    """Open a folder of image files; the arguments are those of `open_images`."""
    root, names, labels, skipped = _list_images(folder, split)
    names = names[:limit]

    def pixels(index: int, like: tuple[int, ...] | None) -> np.ndarray:
        path = root / names[index]
        return decode_image(str(path), path, shape, prepare, like)

    like = _common_shape(pixels, len(names))
    found = check_shape(np.dtype(np.uint8), (len(names), *like), folder, shape)

    def read(start: int, stop: int, bad: dict[int, str] | None) -> np.ndarray:
        images = np.zeros((stop - start, *found[1:]), np.uint8)
        for index in range(start, stop):
            try:
                images[index - start] = pixels(index, like).reshape(found[1:])
            except DataError as error:
                if bad is None:
                    raise
                bad[index] = str(error)
        return images

    def rows(start: int, stop: int) -> Loaded:
        images = read(start, stop, None)
        return check_images(images, None if labels is None else labels[start:stop], folder)

    def readable(start: int, stop: int) -> tuple[np.ndarray, dict[int, str]]:
        bad: dict[int, str] = {}
        return read(start, stop, bad), bad

    return Images(found, rows, names, skipped, readable=readable)


def _common_shape(pixels: Callable[[int, None], np.ndarray], n: int) -> tuple[int, ...]:
    """Find the first shape that two images share, so that one damaged image does not decide.

    At most a hundred images are read. If no two of them share a shape, it is the shape of the
    first image that can be read.
    """
    shapes, first = [], None
    for index in range(min(n, 100)):
        try:
            shape = pixels(index, None).shape
        except DataError as error:
            first = first or error
            continue
        if shape in shapes:
            return shape
        shapes.append(shape)
    if shapes:
        return shapes[0]
    raise first or DataError("there are no images in this folder; add some")


class Listing(NamedTuple):
    """The names in one folder, each list in order; hidden files and folders are left out.

    Attributes:
        folders: sub-folders.
        images: regular files whose names end as those of images do.
        others: everything else.
    """

    folders: list[str]
    images: list[str]
    others: list[str]


def list_folder(folder: Path) -> Listing:
    """List a folder; links count as what they lead to.

    Raises:
        DataError: if the folder cannot be read.
    """
    listing = Listing([], [], [])
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, link = entry.name, entry.is_symlink()
                if name[0] == "." or name.lower() in ("thumbs.db", "desktop.ini"):
                    continue
                # Where a link leads nowhere or in circles, os.path returns False, the entry raises.
                if os.path.isdir(entry) if link else entry.is_dir():
                    listing.folders.append(name)
                elif name.lower().endswith(SUFFIXES) and (
                    os.path.isfile(entry) if link else entry.is_file()
                ):
                    listing.images.append(name)
                else:
                    listing.others.append(name)
    except OSError as error:
        raise DataError(
            f"{folder}: this folder cannot be read ({why(error)}); make it readable or remove it"
        ) from error
    for names in listing:
        names.sort()
    return listing


class _ImageFiles(NamedTuple):
    """The image files of a split.

    Names are relative to ``root``, and text, because a million `Path` objects would take more
    memory than a model.
    """

    root: Path
    names: list[str]
    labels: np.ndarray | None
    skipped: list[str]


def _list_images(folder: Path, split: str) -> _ImageFiles:
    """List the image files of a split in the order of their names, and their classes."""
    splits = {"train", "test", split} & set(list_folder(folder).folders)
    if splits and split not in splits:
        raise MissingSplit(folder, split, splits, f"put them in {folder / split}")
    root = folder / split if splits else folder
    flat = list_folder(root)
    classes, skipped = [], flat.others
    for name in flat.folders:
        inner = list_folder(root / name)
        classes.append([f"{name}/{image}" for image in inner.images])
        skipped += [f"{name}/{other}" for other in inner.others]
        skipped += [f"{name}/{deeper}/" for deeper in inner.folders]
    if not flat.images and not any(classes):
        idx = [p.name for p in folder.glob("*-images-idx3-ubyte*")]
        if others := {*idx, *splits} - {split}:
            raise MissingSplit(folder, split, others, f"put them in {folder / split}")
        raise DataError(
            f"{root}: there are no images in this folder; put {', '.join(SUFFIXES)} files there, "
            "or idx files as MNIST's"
        )
    if flat.images and any(classes):
        raise DataError(
            f"{root}: images lie both in this folder and in sub-folders; move all of them into "
            "sub-folders, one for each class, or all into this folder"
        )
    if flat.images:
        return _ImageFiles(root, flat.images, None, skipped)
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in classes])
    return _ImageFiles(root, [name for names in classes for name in names], labels, skipped)
