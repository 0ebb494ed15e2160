"""The registered data sets: their shapes, sources and terms, and how images are prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxood.data.image_files import Prepare
from jaxood.data.images import Loaded, Shape
from jaxood.data.transforms import to_uint8


def _crop(image: Any, size: tuple[int, int]) -> Any:
    """Crop the largest centred square and average it down to ``size``."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BOX)


def _strokes(image: Any, size: tuple[int, int]) -> Any:
    """Average dark strokes on white down to ``size`` and invert them: bright strokes on dark."""
    from PIL import Image, ImageOps

    return ImageOps.invert(ImageOps.fit(image.convert("L"), size, Image.Resampling.BOX))


@dataclass(frozen=True)
class Dataset:
    """A registered data set.

    Attributes:
        shape: ``(h, w, c)`` of every image.
        note: source and terms, in one line.
        tfds: TFDS's name of the set, with the configuration if it has one; empty for an embedded
            set.
        splits: for "train" and "test", the TFDS splits that can serve as such; the first one that
            a prepared folder has is used.
        prepare: makes a Pillow image of another size into one of ``shape``; None if another size is
            an error. Images that have the size already, and arrays, are taken as they are.
        limit: largest number of images of a split to read, from the first on.
        files: other names under which a user's file or folder is found.
        embedded: reads a split of a set that is installed with scikit-learn.
        title: name of the set as a person writes it; empty if the registered name serves.
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
    title: str = ""


_FIRST_10K = {"train": ["train[10000:]"], "test": ["train"]}
"""Splits of sets with a limit of 10,000 images: the test images are the first training images."""

_PHOTOS = "crops of scikit-learn's two sample photographs; CC BY 2.0"

DATASETS: dict[str, Dataset] = {
    "fashion_mnist": Dataset(
        (28, 28, 1), "Zalando Research; MIT", "fashion_mnist", title="Fashion-MNIST"
    ),
    "mnist": Dataset((28, 28, 1), "LeCun, Cortes and Burges; CC BY-SA 3.0", "mnist", title="MNIST"),
    "kmnist": Dataset((28, 28, 1), "ROIS-DS CODH; CC BY-SA 4.0", "kmnist", title="KMNIST"),
    "omniglot": Dataset(
        (28, 28, 1),
        "Lake et al. 2015; MIT; 105x105 dark on white, turned bright on dark and averaged down",
        "omniglot",
        # small1 and small2 are parts of train: they serve as test if it is absent, never as train.
        {"train": ["train"], "test": ["test", "small1+small2"]},
        prepare=_strokes,
        title="Omniglot",
    ),
    "cifar10": Dataset(
        (32, 32, 3), "Krizhevsky 2009; no licence stated", "cifar10", title="CIFAR-10"
    ),
    "cifar100": Dataset(
        (32, 32, 3), "Krizhevsky 2009; no licence stated", "cifar100", title="CIFAR-100"
    ),
    "svhn_cropped": Dataset(
        (32, 32, 3), "Netzer et al. 2011; non-commercial use", "svhn_cropped", title="SVHN"
    ),
    "celeb_a": Dataset(
        (32, 32, 3),
        "Liu et al. 2015; non-commercial research use; first 10,000 aligned faces, centre square",
        "celeb_a",
        _FIRST_10K,
        prepare=_crop,
        limit=10_000,
        files=("celeba",),
        title="CelebA",
    ),
    "lsun": Dataset(
        (32, 32, 3),
        "Yu et al. 2015; no licence stated; classroom, first 10,000 (validation: 300), centred",
        "lsun/classroom",
        _FIRST_10K,
        prepare=_crop,
        limit=10_000,
        title="LSUN",
    ),
    "downsampled_imagenet": Dataset(
        (32, 32, 3),
        "van den Oord et al. 2016, from ImageNet; non-commercial research use",
        "downsampled_imagenet/32x32",
        {"train": ["train"], "test": ["validation"]},
        title="ImageNet 32×32",
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
    """Return the names of the registered sets."""
    return list(DATASETS)


# ------------------------------------------------------------------------------- embedded sets


def _digits(split: str) -> Loaded:
    """Read scikit-learn's handwritten digits; the test split is every third image."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    # 3 has no factor in common with 10, the period of the labels, so all classes are in both.
    chosen = (np.arange(len(digits.target)) % 3 == 2) == (split == "test")
    return to_uint8(digits.images[chosen] * (255 / 16)), digits.target[chosen]


def _corners(split: str) -> list[tuple[int, int]]:
    """List the top left corners ``(y, x)`` of a split's 32x32 crops of a 427x640 photograph.

    Crops overlap (their stride is 8), but only inside their own 64x64 block. Along diagonals, every
    third block belongs to the test split. So no pixel is in both splits, and both splits have crops
    from every part of the picture.
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
    """Read the crops of scikit-learn's photographs with these labels: 0 is China, 1 a flower."""
    from sklearn.datasets import load_sample_image

    corners = _corners(split)
    photos = [load_sample_image(("china.jpg", "flower.jpg")[label]) for label in labels]
    crops = np.stack([photo[y : y + 32, x : x + 32] for photo in photos for y, x in corners])
    return crops, np.repeat(labels, len(corners))
