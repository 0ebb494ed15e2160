"""Images by name: public sets, embedded sets and the user's own files, as uint8 arrays.

`load` and `open` look a name up in `DATASETS`, find the first source that has the images, check
them, and apply the transforms that the name ends in. `load` reads all images at once, `open` reads
slices when they are asked for::

    load("fashion_mnist", "train")     # prepared by TFDS, or downloaded
    load("celeb_a/scaled_0.8")         # pixel values times 0.8
    load("digits/rotated")             # installed with scikit-learn: no download
    load("/path/to/folder/of/images")  # your own files
    open("cifar10", "train")[:1000]    # the first thousand images

A registered set has several sources, and the first one that has the split is read. The data folder
and its immediate sub-folders are searched for a prepared TFDS folder (which is read without
TensorFlow), then for ``<name>.npz``, then for a folder ``<name>/`` of images or of idx files as
MNIST's. The last source is a download by TFDS, which needs the extra ``jaxood[tfds]``.
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
from jaxood.data.naming import split_name
from jaxood.data.registry import DATASETS
from jaxood.data.tfds_folders import download, open_tfds, prepared
from jaxood.data.transforms import Transform, by_name


def load(
    name: str | os.PathLike[str],
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
) -> Loaded:
    """Load the images and labels of one split, in a fixed order.

    Files of your own may be:

    - a ``.npz`` file with the arrays ``x_<split>`` and ``y_<split>``, or with one array ``images``,
      ``x`` or ``arr_0`` (its labels are ``labels``, ``y`` or ``arr_1``) for every split;
    - a ``.npy`` file with one array for every split;
    - a folder of png, jpg, bmp or webp images, which are read in the order of their names. They lie
      in ``<folder>/<split>/`` if that exists, else in the folder; sub-folders are classes. Hidden
      files are passed over. Grayscale images keep one channel, all others become RGB, and
      transparency is dropped;
    - a folder of ``train-images-idx3-ubyte`` and ``t10k-images-idx3-ubyte``, gzipped or not.

    ``omniglot`` is its evaluation alphabets where TFDS prepared the split ``test``. A folder with
    only the two small background sets gives those for "test", each drawing once. TFDS shuffles what
    it prepares, so the "first 10,000" of ``celeb_a`` are then 10,000 of its training faces; from a
    folder of the original files they are 000001.jpg to 010000.jpg.

    Args:
        name: a registered name (`names`), a name found in the data folder, or a path to a file or
            folder of your own; then any transforms, which are applied from left to right:
            ``/rotated``, ``/rotated_bilinear``, ``/scaled_<c>``, ``/unit_scaled_<c>``,
            ``/contrast_<c>``.
        split: "train" or "test". Files of your own may have other splits.
        data_dir: the folder that is searched and that downloads go to. None stands for the
            environment variable ``JAXOOD_DATA_DIR``, else for the default of TFDS
            (``~/tensorflow_datasets``).

    Returns:
        C-contiguous uint8 images ``(n, h, w, c)`` with c 1 or 3, and int64 labels ``(n,)``, or None
        where the source has none.

    Raises:
        AbsentError: if no source has the set and split; this is a `DataError`, too.
        DataError: if there is no such split or transform, or a file is damaged, pickled, not a
            regular file, or holds anything but uint8 images of one size. JPEG, BMP, WEBP, ``.npy``
            and plain idx files have no checksums: damage that leaves an image decodable, or an
            array its length, is not noticed.
    """
    images = open(name, split, data_dir)
    return images.rows(0, len(images))


def open(
    name: str | os.PathLike[str],
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
) -> Images:
    """Open a split: its images stay on disk until they are asked for.

    Slices that follow one another cost least, because a compressed file is read from the front. A
    file with checksums (``.npz``, gzipped idx) is read through once when it is opened. The embedded
    sets, Omniglot's two small sets, and arrays in Fortran order are held in memory.

    Args:
        name: as for `load`.
        split: as for `load`.
        data_dir: as for `load`.

    Returns:
        `Images`: ``images[a:b]`` equals the slice of what `load` returns, and
        ``images.examine(slice(a, b))`` leaves out the images that cannot be read.

    Raises:
        AbsentError: as for `load`.
        DataError: as for `load`. An error in a single image is raised when that image is read.
    """
    root = data_dir or os.environ.get("JAXOOD_DATA_DIR") or os.environ.get("TFDS_DATA_DIR")
    root = Path(root or "~/tensorflow_datasets").expanduser()
    places = [root]
    if os.path.isdir(root):
        places += [root / folder for folder in files.list_folder(root).folders]

    def found(base: str) -> Path | None:
        return next(files.find([base], [Path(), *places]), None)

    base, parts = split_name(
        os.path.expanduser(name), lambda text: text in DATASETS or found(text) is not None
    )
    transforms = [_transform(part, os.fspath(name)) for part in parts]
    if base in DATASETS:
        opened = _registered(base, split, places)
    elif path := found(base):
        opened = files.open_images(path, split)
    else:
        raise AbsentError(
            f"unknown data set {os.fspath(name)!r}: it is not a path, not in {root}, and not one "
            f"of {', '.join(DATASETS)}"
        )

    def transformed(images: np.ndarray, start: int) -> np.ndarray:
        for transform in transforms:
            images = transform.apply(images, start)
        return images

    def rows(start: int, stop: int) -> Loaded:
        images, labels = opened.rows(start, stop)
        return transformed(images, start), labels

    def readable(start: int, stop: int) -> tuple[np.ndarray, dict[int, str]]:
        assert opened.readable is not None
        images, bad = opened.readable(start, stop)
        return transformed(images, start), bad

    return replace(opened, rows=rows, readable=opened.readable and readable)


def _transform(text: str, name: str) -> Transform:
    """Read a transform from a part of the name of a set."""
    if transform := by_name(text):
        return transform
    raise DataError(
        f"{name!r}: there is no such file or folder, and {text!r} is no transform; the transforms "
        "are rotated, rotated_bilinear, scaled_<c>, unit_scaled_<c> and contrast_<c> with a number "
        "c of at least 0"
    )


def _registered(name: str, split: str, places: Sequence[Path]) -> Images:
    """Open a split of a registered set from the first source that has it."""
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
            # An interrupted download leaves a folder of this name without any image.
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
            f"{name} is not in {places[0]} or its sub-folders, which were searched for TFDS's "
            f"{spec.tfds} and for {', '.join(f'{n}.npz and {n}/' for n in (name, *spec.files))}"
        )
    folder = download(name, spec, places[0], absent)
    try:
        return open_tfds(folder, name, spec, split)
    except MissingSplit as missing:  # TFDS takes a folder that it finds for a whole set
        raise DataError(f"{absent}; delete {folder} and prepare the whole set again") from missing
