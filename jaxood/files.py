"""The user's own image files: `.npz`, `.npy`, folders of images, and idx files as MNIST's.

`jaxood.data` finds them by name or path and says which names they may have. They are opened as
`Images`, which reads what is asked for and no more.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxood.array_files import find_idx, open_idx, open_npy, open_npz, read_idx
from jaxood.images import (
    DataError,
    Images,
    Loaded,
    MissingSplit,
    Shape,
    check_images,
    check_shape,
    why,
)

Prepare = Callable[[Any, tuple[int, int]], Any]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def find(stems: Sequence[str], places: Sequence[Path]) -> Iterator[Path]:
    """Existing files `<stem>.npz` and files or folders `<stem>` in these places."""
    paths = (p / f for p in places for stem in stems for f in (f"{stem}.npz", stem))
    return (path for path in paths if path.exists())


def holds_images(path: Path) -> bool:
    """Whether this is a file, or a folder with an image or idx file in it, however deep."""
    return path.is_file() or any(
        file.suffix.lower() in _SUFFIXES or "-ubyte" in file.name for file in path.rglob("*")
    )


def open_images(
    path: Path,
    split: str,
    *,
    shape: Shape | None = None,
    prepare: Prepare | None = None,
    limit: int | None = None,
) -> Images:
    """A split of a `.npz` or `.npy` file, or of a folder of idx files or images.

    Args:
        path: The file or folder.
        split: "train", "test" or another that the source has.
        shape: `(h, w, c)` that every image must have, if given.
        prepare: As in `decode`; not for arrays and idx files.
        limit: Most images to read, from the first on.

    Returns:
        The images, as `jaxood.data.open` describes them.

    Raises:
        MissingSplit: There are other splits.
        DataError: The source is damaged, or not what it should be.
    """
    if path.is_dir():
        if idx := find_idx(path, split, "images-idx3"):
            labels = find_idx(path, split, "labels-idx1")
            return open_idx(idx, labels and read_idx(labels), shape, limit)
        return _open_folder(path, split, shape, prepare, limit)
    if path.suffix == ".npy":
        return open_npy(path.open("rb"), None, path, shape, limit)
    return open_npz(path, split, shape, limit)


def decode(
    files: Sequence[tuple[str, Path | bytes]],
    shape: Shape | None = None,
    prepare: Prepare | None = None,
    like: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Image files or encoded images as one array.

    Args:
        files: Each with its name for messages.
        shape: `(h, w, c)` wanted: c decides between gray and RGB, which each image else decides
            itself, and `(h, w)` is for `prepare` alone.
        prepare: Makes a Pillow image of another size into one of the size `(w, h)`.
        like: Shape of the images before these, if there are any.

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
            images = np.empty((len(files), *(like or pixels.shape)), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"{name}: this image is {pixels.shape}, those before it {images.shape[1:]}; make "
                "all images one size and one mode"
            )
        images[i] = pixels
    return images


def _open_folder(
    folder: Path,
    split: str,
    shape: Shape | None,
    prepare: Prepare | None,
    limit: int | None,
) -> Images:
    root, names, labels = _list_images(folder, split)
    names = names[:limit]

    def pixels(start: int, stop: int, like: tuple[int, ...] | None) -> np.ndarray:
        paths = [root / name for name in names[start:stop]]
        return decode([(str(path), path) for path in paths], shape, prepare, like)

    like = pixels(0, 1, None).shape[1:]
    found = check_shape(np.dtype(np.uint8), (len(names), *like), folder, shape)

    def rows(start: int, stop: int) -> Loaded:
        images = pixels(start, stop, like)
        return check_images(images, None if labels is None else labels[start:stop], folder)

    return Images(found, rows, names)


def _list_images(folder: Path, split: str) -> tuple[Path, list[str], np.ndarray | None]:
    """Where a split lies, its image files in name order, and classes where those are sub-folders.

    Names are relative to where it lies, and text: a list of a million paths would weigh more than
    a model.
    """

    def folders(path: Path) -> list[str]:
        return sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != ".")

    def images(path: Path) -> list[str]:
        return sorted(
            name for name in os.listdir(path) if os.path.splitext(name)[1].lower() in _SUFFIXES
        )

    splits = {"train", "test", split} & set(folders(folder))
    if splits and split not in splits:
        raise MissingSplit(folder, split, splits, f"put them in {folder / split}")
    root = folder / split if splits else folder
    flat = images(root)
    classes = [[f"{name}/{image}" for image in images(root / name)] for name in folders(root)]
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
    if flat:
        return root, flat, None
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in classes])
    return root, [name for names in classes for name in names], labels


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
