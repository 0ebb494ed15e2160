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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from jaxood import files
from jaxood.image_files import Prepare
from jaxood.images import AbsentError, DataError, Images, Loaded, MissingSplit, Shape, in_memory
from jaxood.tfds_folders import download, open_tfds, prepared
from jaxood.transforms import by_name, contrast, rotate, scale, to_uint8, unit_scale

__all__ = [
    "DATASETS",
    "AbsentError",
    "DataError",
    "Dataset",
    "Images",
    "contrast",
    "load",
    "names",
    "open",
    "rotate",
    "scale",
    "unit_scale",
]


# --------------------------------------------------------------------------------- the registry


def _crop(image: Any, size: tuple[int, int]) -> Any:
    """Largest centred square, averaged down to `size`."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BOX)


def _strokes(image: Any, size: tuple[int, int]) -> Any:
    """Dark strokes on white to bright strokes on dark, averaged down to `size`."""
    from PIL import Image, ImageOps

    return ImageOps.invert(ImageOps.fit(image.convert("L"), size, Image.Resampling.BOX))


@dataclass(frozen=True)
class Dataset:
    """What `load` knows about one registered set.

    Attributes:
        shape: `(h, w, c)` of every image.
        note: Source and terms, in one line.
        tfds: TFDS name, with its configuration if it has one; empty for an embedded set.
        splits: For "train" and "test", the TFDS splits that serve it; the first one that a
            prepared folder has is used.
        prepare: Makes an image of another size into one of `shape`; None where another size is an
            error. Images that have the size already, and arrays, are taken as they are.
        limit: Most images of a split to read, from the first on.
        files: Other names under which a file or folder of the user's own is found.
        embedded: Reads a split of a set that is installed with scikit-learn.
    """

    shape: Shape
    note: str
    tfds: str = ""
    splits: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {"train": ["train"], "test": ["test"]}
    )
    prepare: Prepare | None = None
    limit: int | None = None
    files: tuple[str, ...] = ()
    embedded: Callable[[str], Loaded] | None = None


_FIRST_10K = {"train": ["train[10000:]"], "test": ["train"]}  # with a limit of 10,000
_PHOTOS = "crops of scikit-learn's two sample photographs; CC BY 2.0"

DATASETS: dict[str, Dataset] = {
    "fashion_mnist": Dataset((28, 28, 1), "Zalando Research; MIT", "fashion_mnist"),
    "mnist": Dataset((28, 28, 1), "LeCun, Cortes and Burges; CC BY-SA 3.0", "mnist"),
    "kmnist": Dataset((28, 28, 1), "ROIS-DS CODH; CC BY-SA 4.0", "kmnist"),
    "omniglot": Dataset(
        (28, 28, 1),
        "Lake et al. 2015; MIT; 105x105 dark on white, turned bright on dark and averaged down",
        "omniglot",
        # small1 and small2 are parts of train: they stand in for an absent test, never for train.
        {"train": ["train"], "test": ["test", "small1+small2"]},
        prepare=_strokes,
    ),
    "cifar10": Dataset((32, 32, 3), "Krizhevsky 2009; no licence stated", "cifar10"),
    "cifar100": Dataset((32, 32, 3), "Krizhevsky 2009; no licence stated", "cifar100"),
    "svhn_cropped": Dataset((32, 32, 3), "Netzer et al. 2011; non-commercial use", "svhn_cropped"),
    "celeb_a": Dataset(
        (32, 32, 3),
        "Liu et al. 2015; non-commercial research use; first 10,000 aligned faces, centre square",
        "celeb_a",
        _FIRST_10K,
        prepare=_crop,
        limit=10_000,
        files=("celeba",),
    ),
    "lsun": Dataset(
        (32, 32, 3),
        "Yu et al. 2015; no licence stated; classroom, first 10,000 (validation: 300), centred",
        "lsun/classroom",
        _FIRST_10K,
        prepare=_crop,
        limit=10_000,
    ),
    "downsampled_imagenet": Dataset(
        (32, 32, 3),
        "van den Oord et al. 2016, from ImageNet; non-commercial research use",
        "downsampled_imagenet/32x32",
        {"train": ["train"], "test": ["validation"]},
    ),
    "digits": Dataset(
        (8, 8, 1),
        "UCI optical digits in scikit-learn, CC BY 4.0; 0..16 mapped to 0..255; test: every third",
        embedded=lambda split: _digits(split),
    ),
    "photos": Dataset((32, 32, 3), _PHOTOS, embedded=lambda split: _photos(split, 0, 1)),
    "photos_china": Dataset((32, 32, 3), _PHOTOS, embedded=lambda split: _photos(split, 0)),
    "photos_flower": Dataset((32, 32, 3), _PHOTOS, embedded=lambda split: _photos(split, 1)),
}


def names() -> list[str]:
    """Names of the registered sets."""
    return list(DATASETS)


# ------------------------------------------------------------------------------------ the loader


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


# --------------------------------------------------------------------------------- embedded sets


def _digits(split: str) -> Loaded:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    # Every third image: 3 has no factor in common with the period of the labels, 10.
    chosen = (np.arange(len(digits.target)) % 3 == 2) == (split == "test")
    return to_uint8(digits.images[chosen] * (255 / 16)), digits.target[chosen]


def _corners(split: str) -> list[tuple[int, int]]:
    """Top left corners of a split's 32x32 crops of a 427x640 photograph.

    Crops overlap (stride 8), but only inside their own 64x64 block; each third block is a test
    block, along diagonals. So no pixel is in both splits, and both see every part of the picture.
    """
    return [
        (y, x)
        for row in range(427 // 64)
        for column in range(640 // 64)
        if ((row + column) % 3 == 0) == (split == "test")
        for y in range(64 * row, 64 * row + 33, 8)
        for x in range(64 * column, 64 * column + 33, 8)
    ]


def _photos(split: str, *labels: int) -> Loaded:
    from sklearn.datasets import load_sample_image

    corners = _corners(split)
    photos = [load_sample_image(("china.jpg", "flower.jpg")[label]) for label in labels]
    crops = np.stack([photo[y : y + 32, x : x + 32] for photo in photos for y, x in corners])
    return crops, np.repeat(labels, len(corners))
