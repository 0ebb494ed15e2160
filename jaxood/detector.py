"""From a score to decisions: p-values against held-out trusted images."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Detector(NamedTuple):
    """A score with its null distribution.

    Attributes:
        score: uint8 images ``(n, h, w, c)`` to ``(n,)``, higher = more OOD.
        null: float32 ``(N,)``, sorted: the scores of held-out trusted images.
        seen: digests of those images.
    """

    score: Callable
    null: np.ndarray
    seen: frozenset


def fit(score, trusted, *, set_size=None):
    """Calibrate a score.

    With a batch score (`jaxood.scores`), images are scored among each other, and those of one set
    move together. Give ``set_size``, the number of images that will be judged at a time: the
    trusted images are then scored in sets of that size, and the null holds what sets do.

    Args:
        score: uint8 images to scores ``(n,)``, higher = more OOD.
        trusted: uint8 ``(N, h, w, c)``, trusted images that the model was *not* trained on: it is
            likelier to have seen those, and p-values would come out too small.
        set_size: for a batch score, how many images to score at a time; all by default.

    Returns:
        A `Detector`.

    Raises:
        ValueError: if a score is NaN, or there are no images.
    """
    if len(trusted) == 0:
        raise ValueError("there are no images to calibrate on: give held-out trusted images")
    sets = np.array_split(trusted, max(1, len(trusted) // (set_size or len(trusted))))
    null = np.concatenate([finite(score(images)) for images in sets])
    return Detector(score, np.sort(null), frozenset(_digests(trusted)))


def p_values(detector, images):
    """How often a trusted image would score at least as high.

    Args:
        detector: from `fit`.
        images: uint8 ``(n, h, w, c)`` to judge.

    Returns:
        float64 ``(n,)``: ``(1 + #{i: null_i >= score}) / (N + 1)``. For a trusted image
        ``P(p <= a) <= a`` for every a: valid at any N, ties included.

    Raises:
        ValueError: if an image was used for calibration, or a score is NaN.
    """
    used = np.flatnonzero(known(detector, images))
    if used.size:
        raise ValueError(
            f"{used.size} of the {len(images)} images to judge were used for calibration (the "
            f"first is number {used[0]}), so their p-values would mean nothing: remove them, or "
            f"calibrate on other images"
        )
    return p_values_of(finite(detector.score(images)), detector.null)


def known(detector, images):
    """Which images the score was calibrated on: uint8 ``(n, h, w, c)`` to bool ``(n,)``."""
    return np.array([digest in detector.seen for digest in _digests(images)], bool)


def p_values_of(scores, null):
    """`p_values` from scores alone: ``(n,)`` and the null's ``(N,)``, to float64 ``(n,)``."""
    null = np.sort(null)
    at_least = len(null) - np.searchsorted(null, scores, side="left")
    return (1 + at_least) / (len(null) + 1)


def decide(detector, images, *, false_positive_rate=0.05):
    """Which images to report as OOD.

    Args:
        detector: from `fit`.
        images: uint8 ``(n, h, w, c)`` to judge.
        false_positive_rate: the share of trusted images that may be reported, at most.

    Returns:
        bool ``(n,)``: ``p_value <= false_positive_rate``.

    Raises:
        ValueError: if the null is too small for that rate, or as `p_values`.
    """
    check_rate(detector, false_positive_rate)
    return p_values(detector, images) <= false_positive_rate


def check_rate(detector, false_positive_rate):
    """Raises ``ValueError`` where the null is too small to hold a false-positive rate."""
    smallest = 1 / (len(detector.null) + 1)
    if not smallest <= false_positive_rate < 1:
        raise ValueError(
            f"{len(detector.null)} trusted images give p-values from {smallest:.3g} up, so a "
            f"false-positive rate of {false_positive_rate} cannot be held: calibrate on more "
            f"images, or choose a rate in [{smallest:.3g}, 1)"
        )


def finite(scores):
    """Scores as float32 ``(n,)``; ``ValueError`` where one is NaN."""
    scores = np.asarray(scores, np.float32)
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN")
    return scores


def _digests(images):
    return [hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in images]
