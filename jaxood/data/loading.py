"""Images by name: public sets, embedded sets and the user's own files, as uint8 arrays.

`load` and `open` are the whole interface. They look a name up in `DATASETS`, find the first source
that has the images, check them, and apply the transforms that the name ends in; `load` reads them
all, `open` what is asked for, when it is asked for::

    load("fashion_mnist", "train")     # prepared by TFDS, or downloaded
    load("celeb_a/scaled_0.8")         # pixel values times 0.8
    load("digits/rotated")             # embedded in scikit-learn: no download
    load("/path/to/folder/of/images")  # your own
    open("cifar10", "train")[:1000]    # the first thousand

Sources, in order, each looked for in the data folder and in its immediate sub-folders: a prepared
TFDS folder (read without TensorFlow), `<name>.npz`, a folder `<name>/` of images or of MNIST-style
idx files; last, a TFDS download, which needs the extra `jaxood[tfds]`. The first that has the
split is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from jaxood.data import files
from jaxood.data.images import (
    AbsentError,
    DataError,
    Images,
    Loaded,
    MissingSplit,
    in_memory,
)
from jaxood.data.registry import DATASETS
from jaxood.data.tfds_folders import download, open_tfds, prepared
from jaxood.data.transforms import by_name


def load(
    name: str | os.PathLike[str],
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
) -> Loaded:
    """Images and labels of one split, in a fixed order.

    Args:
        name: A registered name (`names`), a name found in the data folder, or a path to a `.npz`
            or `.npy` file, a folder of images or a folder of idx files; then any transforms,
            applied from left to right: `/rotated`, `/rotated_bilinear`, `/scaled_<c>`,
            `/unit_scaled_<c>`, `/contrast_<c>`.
        split: "train" or "test". Files of your own may have other splits, and files that have
            none at all (one array, one flat folder) are the same images for every split.
        data_dir: Where data lie and downloads go. None: the environment variable
            `JAXOOD_DATA_DIR`, else the default of TFDS (`~/tensorflow_datasets`).

    Returns:
        C-contiguous uint8 images `(n, h, w, c)` with c 1 or 3, and int64 labels `(n,)`, or None
        where the source has none.

        Files of your own: `x_<split>` and `y_<split>` in a `.npz`, or `images`, `x` or `arr_0`
        (labels: `labels`, `y`, `arr_1`); one array in a `.npy`; png, jpg, bmp or webp images, in
        name order, in `<folder>/<split>/` if it exists, else in the folder, sub-folders being
        classes; or `train-` and `t10k-images-idx3-ubyte`, gzipped or not. Grayscale stays one
        channel, any other image becomes RGB, transparency is dropped. Hidden files are passed over.

        `omniglot` is the split `test` (evaluation alphabets) where TFDS prepared it; a folder
        that holds the two small background sets alone gives those for "test", each drawing once.
        TFDS shuffles what it prepares: the "first 10,000" of `celeb_a` are then 10,000 of its
        training faces, and from a folder of the original files they are 000001.jpg on.

    Raises:
        AbsentError: No source has the set and split; it is a DataError.
        DataError: There is no such split or transform, or a file is damaged, pickled, no regular
            file, or holds anything but uint8 images of one size. Damage that leaves a JPEG, BMP or
            WEBP decodable, or a `.npy` or plain idx file its length, is not noticed: those have no
            checksums.
    """
    images = open(name, split, data_dir)
    return images.rows(0, len(images))


def open(
    name: str | os.PathLike[str],
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
) -> Images:
    """Images that stay on disk until they are asked for: what `load` gives, in pieces.

    Args:
        name: As of `load`.
        split: As of `load`.
        data_dir: As of `load`.

    Returns:
        `images` with `len(images)` and `images.shape`; `images[a:b]` is what `load` has there, and
        `images.examine(slice(a, b))` the same without images that cannot be read. Slices that
        follow one another cost least: a compressed file is read from the front. A file with
        checksums (`.npz`, gzipped idx) is read through once when it is opened. The embedded sets,
        Omniglot's two small sets, and arrays in Fortran order are in memory.

    Raises:
        AbsentError: As `load`.
        DataError: As `load`; what only shows in an image when that image is read.
    """
    root = data_dir or os.environ.get("JAXOOD_DATA_DIR") or os.environ.get("TFDS_DATA_DIR")
    root = Path(root or "~/tensorflow_datasets").expanduser()
    places = [root]
    if os.path.isdir(root):
        places += [root / folder for folder in files.list_folder(root).folders]

    base, transforms = os.path.expanduser(name), []
    while base not in DATASETS and not any(files.find([base], [Path(), *places])):
        base, _, last = base.rpartition("/")
        if not base:
            raise AbsentError(
                f"unknown data set {os.fspath(name)!r}: it is not a path, not in {root}, and not "
                f"one of {', '.join(DATASETS)}"
            )
        transforms.insert(0, by_name(last, os.fspath(name)))

    if base in DATASETS:
        opened = _registered(base, split, places)
    else:
        opened = files.open_images(next(files.find([base], [Path(), *places])), split)

    def transformed(images: np.ndarray, start: int) -> np.ndarray:
        for transform in transforms:
            images = transform(images, start)
        return images

    def rows(start: int, stop: int) -> Loaded:
        images, labels = opened.rows(start, stop)
        return transformed(images, start), labels

    def readable(start: int, stop: int) -> tuple[np.ndarray, dict[int, str]]:
        assert opened.readable is not None
        images, bad = opened.readable(start, stop)
        return transformed(images, start), bad

    return replace(opened, rows=rows, readable=opened.readable and readable)


def _registered(name: str, split: str, places: Sequence[Path]) -> Images:
    spec = DATASETS[name]
    if split not in spec.splits:
        raise DataError(f"{name} has no split {split!r}; ask for {' or '.join(spec.splits)}")
    if spec.embedded:
        return in_memory(*spec.embedded(split), name, spec.shape)
    sources = chain(
        (partial(open_tfds, folder, name, spec) for folder in prepared(spec.tfds, places)),
        (
            partial(
                files.open_images, path, shape=spec.shape, prepare=spec.prepare, limit=spec.limit
            )
            for path in files.find([name, *spec.files], places)
            # A download that broke off leaves a folder of this name without a single image.
            if files.holds_images(path)
        ),
    )
    found = []
    for source in sources:
        try:
            return source(split)
        except MissingSplit as missing:
            found.append(missing.found)
    if found:
        absent = f"{name}: no source has the split {split!r} ({'; '.join(found)})"
    else:
        absent = (
            f"{name} is not in {places[0]} or its sub-folders (looked for TFDS's {spec.tfds}, and "
            f"for {', '.join(f'{n}.npz and {n}/' for n in (name, *spec.files))})"
        )
    folder = download(name, spec, places[0], absent)
    try:
        return open_tfds(folder, name, spec, split)
    except MissingSplit as missing:  # TFDS takes a folder that it finds for a whole set
        raise DataError(f"{absent}; delete {folder} and prepare the whole set again") from missing
