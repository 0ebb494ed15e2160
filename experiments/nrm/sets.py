"""The images of an NRM study."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import lab
from experiments.nrm.settings import Study
from jaxood import data


class Images(NamedTuple):
    """A set of images.

    Attributes:
        images: uint8 ``(n, h, w, c)``.
        labels: int64 ``(n,)``, or None.
    """

    images: np.ndarray
    labels: np.ndarray | None

    def take(self, chosen: Any) -> Images:
        """Return some of the images, by their indices."""
        return Images(self.images[chosen], None if self.labels is None else self.labels[chosen])


class Sets(NamedTuple):
    """The images of a study.

    Attributes:
        train: the training images.
        judged: by name, the sets to measure: trusted test images, the calibration set, some
            training images, OOD sets, and sets of one class.
        absent: by name, why an OOD set is not there.
    """

    train: Images
    judged: dict[str, Images]
    absent: dict[str, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image, ``(h, w, c)``."""
        return self.train.images.shape[1:]


def load_sets(study: Study, *, seed: int, data_dir: Path | None) -> Sets:
    """Load the images of a study, as many of them as are measured.

    Args:
        study: names and numbers of the sets.
        seed: seed of the choice of images.
        data_dir: where to look, as for `data.load`.

    Raises:
        DataError: without the trusted set, or without any OOD set.
        UsageError: if there are too few trusted images, or an OOD set has another shape.
    """
    rng, n = np.random.default_rng(seed), study.images
    train = Images(*data.load(study.in_dist, "train", data_dir))
    loaded = {study.in_dist: Images(*data.load(study.in_dist, "test", data_dir))}
    size = len(loaded[study.in_dist].images)
    if size < n + study.null_images:
        raise lab.UsageError(
            f"{study.in_dist} has {size} test images, but {n + study.null_images} are needed: {n} "
            f"to judge and {study.null_images} to calibrate on"
        )
    test, calibration, _ = np.split(rng.permutation(size), [n, n + study.null_images])
    judged = {
        study.in_dist: loaded[study.in_dist].take(test),
        study.null: loaded[study.in_dist].take(calibration),
        study.train: train.take(rng.permutation(len(train.images))[:n]),
    }
    found, absent = lab.load_ood(
        study.ood, trusted=study.in_dist, shape=train.images.shape[1:], data_dir=data_dir
    )
    for name, pair in found.items():
        loaded[name] = Images(*pair)
        judged[name] = loaded[name].take(rng.permutation(len(pair[0]))[:n])
    for name, (source, y) in study.classes.items():
        if source in loaded and loaded[source].labels is not None:
            chosen = np.flatnonzero(loaded[source].labels == y)[:n]
            if len(chosen):
                judged[name] = loaded[source].take(chosen)
    return Sets(train, judged, absent)
