"""Images by name: public sets, embedded sets and the user's own files, as uint8 arrays.

`load` is the whole interface. It looks a name up in `DATASETS`, reads the images from the first
source that has them, checks them, and applies the transforms that the name ends in::

    load("fashion_mnist", "train")     # prepared by TFDS, or downloaded
    load("celeb_a/scaled_0.8")         # pixel values times 0.8
    load("digits/rotated")             # embedded in scikit-learn: no download
    load("/path/to/folder/of/images")  # your own

Sources, in order, each looked for in the data folder and in its immediate sub-folders: a prepared
TFDS folder (read without TensorFlow), `<name>.npz`, a folder `<name>/` of images or of MNIST-style
idx files; last, a TFDS download, which needs the extra `jaxood[tfds]`. The first that has the
split is read.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from jaxood import files
from jaxood.files import Loaded, Prepare, Shape
from jaxood.transforms import (
    AbsentError,
    DataError,
    by_name,
    check_images,
    contrast,
    rotate,
    scale,
    to_uint8,
    unit_scale,
)

__all__ = [
    "DATASETS",
    "AbsentError",
    "DataError",
    "Dataset",
    "contrast",
    "load",
    "names",
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
            file, a folder of images or a folder of idx files; then any transforms, applied from
            left to right: `/rotated`, `/rotated_bilinear`, `/scaled_<c>`, `/unit_scaled_<c>`,
            `/contrast_<c>`.
        split: "train" or "test". Files of your own may have other splits, and files that have
            none at all (one array, one flat folder) are the same images for every split.
        data_dir: Where data lie and downloads go. None: the environment variable
            `JAXOOD_DATA_DIR`, else the default of TFDS (`~/tensorflow_datasets`).

    Returns:
        C-contiguous uint8 images `(n, h, w, c)` with c 1 or 3, and int64 labels `(n,)`, or None
        where the source has none.

        Files of your own: `x_<split>` and `y_<split>` in a `.npz`, or `images`, `x` or `arr_0`
        (labels: `labels`, `y`, `arr_1`); png, jpg, bmp or webp images, in name order, in
        `<folder>/<split>/` if it exists, else in the folder, sub-folders being classes; or
        `train-` and `t10k-images-idx3-ubyte`, gzipped or not. Grayscale stays one channel, any
        other image becomes RGB, transparency is dropped.

        `omniglot` is the split `test` (evaluation alphabets) where TFDS prepared it; a folder
        that holds the two small background sets alone gives those for "test", each drawing once.
        TFDS shuffles what it prepares: the "first 10,000" of `celeb_a` are then 10,000 of its
        training faces, and from a folder of the original files they are 000001.jpg on.

    Raises:
        AbsentError: No source has the set and split; it is a DataError.
        DataError: There is no such split or transform, or a file is damaged, pickled, or holds
            anything but uint8 images of one size.
    """
    root = data_dir or os.environ.get("JAXOOD_DATA_DIR") or os.environ.get("TFDS_DATA_DIR")
    root = Path(root or "~/tensorflow_datasets").expanduser()
    places = [root]
    if root.is_dir():
        places += sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".")

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
        images, labels = _registered(base, split, places)
    else:
        images, labels = files.read(next(files.find([base], [Path(), *places])), split)
    for transform in transforms:
        images = transform(images)
    return images, labels


def _registered(name: str, split: str, places: Sequence[Path]) -> Loaded:
    spec = DATASETS[name]
    if split not in spec.splits:
        raise DataError(f"{name} has no split {split!r}; ask for {' or '.join(spec.splits)}")
    if spec.embedded:
        return check_images(*spec.embedded(split), name, spec.shape)
    sources = chain(
        (partial(_read_tfds, folder, name) for folder in _prepared(spec.tfds, places)),
        (
            partial(files.read, path, shape=spec.shape, prepare=spec.prepare, limit=spec.limit)
            for path in files.find([name, *spec.files], places)
            # A download that broke off leaves a folder of this name without a single image.
            if files.holds_images(path)
        ),
    )
    found = []
    for read in sources:
        try:
            return read(split)
        except files.MissingSplit as missing:
            found.append(missing.found)
    if found:
        absent = f"{name}: no source has the split {split!r} ({'; '.join(found)})"
    else:
        absent = (
            f"{name} is not in {places[0]} or its sub-folders (looked for TFDS's {spec.tfds}, and "
            f"for {', '.join(f'{n}.npz and {n}/' for n in (name, *spec.files))})"
        )
    folder = _download(name, places[0], absent)
    try:
        return _read_tfds(folder, name, split)
    except files.MissingSplit as missing:  # TFDS takes a folder that it finds for a whole set
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


# ----------------------------------------------------------------------------------------- TFDS


def _prepared(tfds_name: str, places: Sequence[Path]) -> Iterator[Path]:
    """The folder of the newest prepared version in each place that has one."""
    for place in places:
        folders = [info.parent for info in (place / tfds_name).glob("*/dataset_info.json")]
        versions = [folder for folder in folders if re.fullmatch(r"\d+(\.\d+)*", folder.name)]
        if versions:
            yield max(versions, key=lambda folder: [int(n) for n in folder.name.split(".")])


def _read_tfds(folder: Path, name: str, split: str) -> Loaded:
    """A prepared TFDS folder, without TensorFlow."""
    import tensorflow_datasets as tfds

    spec = DATASETS[name]
    try:
        builder: Any = tfds.builder_from_directory(folder)
        have = set(builder.info.splits)
        wanted = next((s for s in spec.splits[split] if set(_parts(s)) <= have), None)
        if wanted is not None:
            skip = {"image": tfds.decode.SkipDecoding()}
            source = builder.as_data_source(split=wanted, decoders=skip)
            records = source.__getitems__(list(range(len(source)))[: spec.limit])
    except NotImplementedError as error:
        raise DataError(
            f"{folder}: {name} was not prepared as array_record; convert it with 'tfds "
            f"convert_format --dataset_version_dir={folder} --out_file_format=array_record'"
        ) from error
    except Exception as error:  # array_record raises bare RuntimeErrors, the JSON files others
        raise DataError(
            f"{folder}: damaged, or not readable as {name} ({files.why(error)}); delete it and "
            "prepare the set again"
        ) from error
    if wanted is None:
        remedy = "delete it and prepare the whole set again"
        raise files.MissingSplit(folder, split, have, remedy)
    if "+" in wanted:  # Omniglot's small sets share drawings
        records = list({record["image"]: record for record in records}.values())
    encoded = [(f"{folder}[{wanted}]", record["image"]) for record in records]
    images = files.decode(encoded, spec.shape, spec.prepare)
    labels = np.array([r["label"] for r in records]) if "label" in builder.info.features else None
    return check_images(images, labels, folder, spec.shape)


def _parts(splits: str) -> list[str]:
    """Names in a TFDS split expression such as `small1+small2` or `train[:10000]`."""
    return [part.partition("[")[0] for part in splits.split("+")]


def _download(name: str, root: Path, absent: str) -> Path:
    """Downloads and prepares a registered set under `root`, by TFDS; its folder.

    `absent` is the beginning of the message where that cannot be: why it is asked for.
    """
    remedy = f"or put {name}.npz or a folder {name} of images in {root}"
    if importlib.util.find_spec("tensorflow") is None:
        raise AbsentError(
            f"{absent}, and to download it TensorFlow is missing: pip install 'jaxood[tfds]', "
            f"{remedy}"
        )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(DATASETS[name].tfds, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # whatever the network and some thirty libraries may raise
        raise AbsentError(
            f"{absent}, and TFDS could not download it ({files.why(error)}); try again, {remedy}"
        ) from error
    return Path(builder.data_path)
