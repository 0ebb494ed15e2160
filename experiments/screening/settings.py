"""The flags of the screening."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import lab


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the screening."""

    run: Path
    """Folder of a finished run of quickstart, bn_fashion_mnist or bn_cifar."""
    images: str
    """The images to screen: a name, a .npz or .npy file, or a folder of images, as large as it may
    be; then any transforms, as in digits/rotated."""
    split: str = "test"
    """Split of the images, where they have several."""
    score: Literal["typicality", "neg_log_prob", "batch_norm_delta"] = "typicality"
    """typicality: is the likelihood unusual, high or low? neg_log_prob: is it low? Both judge each
    image by itself, whatever else arrives. batch_norm_delta judges sets of images (--set-size),
    each as a whole: a set that holds OOD images is reported with the trusted images in it."""
    false_positive_rate: float = 0.05
    """Share of trusted images, or of sets of trusted images, that is reported on average over
    calibrations."""
    calibration: int | None = None
    """Held-out trusted images that the p-values are calibrated on, fewer where there are fewer; by
    default 1000, or 40 sets of them for batch_norm_delta."""
    set_size: int | None = None
    """Images in a set that batch_norm_delta judges, by default 64; the images are dealt to sets by
    a seeded shuffle. The other scores only read and write so many at a time, by default 1024."""
    draws: int = 2
    """Noise draws an image; of batch_norm_delta, draws of companions too."""
