"""Decisions from a score: p-values against held-out trusted images, or sets of them.

A per-image score judges images: an image's p-value says how often a trusted image would score at
least as high. A batch score, such as `jaxood.scores.batch_norm_delta`, judges sets: beside OOD
images trusted ones score high too, so the p-value is that of the whole set, from a permutation test
of sets, and all images of a set share it. Images are dealt to sets by a seeded shuffle: a folder
that is sorted by class does not become sets of one class each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxood import progress
from jaxood.integrity import digest

if TYPE_CHECKING:
    from jaxood.density import Array


@runtime_checkable
class Score(Protocol):
    """The part of a score that a detector uses, such as that of `jaxood.scores.Score`."""

    @property
    def name(self) -> str:
        """The score's name."""
        ...

    @property
    def per_image(self) -> bool:
        """True if an image scores the same whatever images it arrives with."""
        ...

    def __call__(self, images: Array, /) -> np.ndarray:
        """Score uint8 images ``(n, h, w, c)``: ``(n,)``, higher = more OOD."""
        ...


class Detector(NamedTuple):
    """A score with its null distribution.

    Attributes:
        score: a `Score`.
        null: float32 ``(N,)``, sorted: the scores of held-out trusted images; with ``set_size``,
            the mean scores of N sets of them.
        seen: digests of those images, 16 bytes each.
        set_size: the number of images that a batch score judges at a time; None for a per-image
            score.
    """

    score: Score
    null: np.ndarray
    seen: frozenset[bytes]
    set_size: int | None = None


def fit(
    score: Score,
    trusted: np.ndarray,
    *,
    set_size: int | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Detector:
    """Calibrate a score.

    Args:
        score: from a builder of `jaxood.scores`.
        trusted: uint8 ``(N, h, w, c)``, the calibration set: trusted images that the model was
            *not* trained on. It is likelier to have seen its training images, and p-values would
            come out too small.
        set_size: for a batch score, and only for one: the number of images that are judged at a
            time. The trusted images are dealt into ``N // set_size`` sets, so p-values go down to
            ``1 / (N // set_size + 1)``.
        seed: seed of the shuffle that deals images to sets.
        show_progress: draw a progress bar on stderr while sets are scored.

    Returns:
        A `Detector`.

    Raises:
        TypeError: if the score does not say what it is, as a plain function does not.
        ValueError: if a batch score comes without ``set_size`` or a per-image score with it, a
            score is NaN, or there are too few images.
    """
    if not isinstance(score, Score):
        raise TypeError(
            f"a detector takes a score from a builder such as jaxood.scores.typicality, not "
            f"{score!r}: register a function of your own with jaxood.scores.scored, and give a "
            "jaxood.scores.Score of that name"
        )
    if score.per_image and set_size is not None:
        raise ValueError(f"{score.name} scores each image by itself: leave set_size out")
    if not score.per_image and set_size is None:
        raise ValueError(
            f"{score.name} scores an image among those that it arrives with, so it judges sets: "
            "give set_size, the number of images that will be judged at a time"
        )
    if len(trusted) == 0:
        raise ValueError("there are no images to calibrate on: give held-out trusted images")
    seen = frozenset(digests(trusted))
    if set_size is None:
        null = finite(score(trusted))
    else:
        whole = list(deal(len(trusted), set_size, seed))[: len(trusted) // set_size]
        null = np.empty(len(whole), np.float32)
        with progress.bar("calibration", len(whole), show=show_progress) as advance:
            for i, chosen in enumerate(whole):
                null[i] = _mean(score(trusted[np.sort(chosen)]))
                advance(1)
    return Detector(score, np.sort(null), seen, set_size)


def deal(n: int, set_size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Deal n images to sets of equal size by a seeded shuffle.

    Args:
        n: the number of images.
        set_size: images in a set.
        seed: seed of the shuffle.

    Yields:
        int ``(set_size,)``, the positions of a set's images. Every image is in one set; where the
        last set is short, it is filled up from the first, so that all sets are alike.

    Raises:
        ValueError: if there are fewer images than a set holds, or a set holds none.
    """
    if set_size < 1:
        raise ValueError(f"a set of {set_size} images: give at least 1")
    if n < set_size:
        raise ValueError(
            f"{n} images do not fill a set of {set_size}: give more images, or calibrate a "
            "detector with a smaller set_size"
        )
    # Not the plain seed: a caller who shuffled with it would have the same order.
    order = np.random.default_rng([seed, n, set_size]).permutation(n)
    for start in range(0, n, set_size):
        yield order[np.arange(start, start + set_size) % n]


def p_values(detector: Detector, images: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Compute how often a trusted image, or a set of them, would score at least as high.

    Args:
        detector: from `fit`.
        images: uint8 ``(n, h, w, c)`` to judge.
        seed: seed of the shuffle that deals images to sets, where the detector judges sets.

    Returns:
        float64 ``(n,)``: ``(1 + #{i: null_i >= score}) / (N + 1)``. Over calibrations and images,
        ``P(p <= a) <= a`` for a trusted image, at any N, ties included; `rate_interval` gives the
        rates that one calibration may realise. With ``set_size`` the same holds for a *set* of
        trusted images, and nothing is promised for a trusted image in a set with OOD images.

    Raises:
        ValueError: if an image was used for calibration, a score is NaN, or there are fewer images
            than ``set_size``.
    """
    used = np.flatnonzero(known(detector, images))
    if used.size:
        raise ValueError(
            f"{used.size} of the {len(images)} images to judge were used for calibration (the "
            f"first is number {used[0]}), so their p-values would mean nothing: remove them, or "
            f"calibrate on other images"
        )
    if detector.set_size is None:
        return judge(detector, images)[1]
    result = np.empty(len(images))
    sets = deal(len(images), detector.set_size, seed)
    # The last set first: an image that only fills it up keeps the p-value of its own set.
    for chosen in reversed(list(sets)):
        result[chosen] = judge(detector, images[np.sort(chosen)])[1]
    return result


def judge(detector: Detector, images: Array) -> tuple[np.ndarray, np.ndarray]:
    """Compute scores and p-values of images, or of one set where the detector judges sets.

    Args:
        detector: from `fit`.
        images: uint8 ``(n, h, w, c)``, none of which the detector was calibrated on.

    Returns:
        float32 ``(n,)`` scores and float64 ``(n,)`` p-values.

    Raises:
        ValueError: if a score is NaN, or the set has another size than ``set_size``.
    """
    if detector.set_size not in (None, len(images)):
        raise ValueError(
            f"a set of {len(images)} images, but the detector was calibrated on sets of "
            f"{detector.set_size}: judge sets of that size"
        )
    scores = finite(detector.score(images))
    found = scores if detector.set_size is None else np.full(len(scores), _mean(scores))
    return scores, p_values_of(found, detector.null)


def known(detector: Detector, images: np.ndarray) -> np.ndarray:
    """Find the images that a detector was calibrated on.

    Args:
        detector: from `fit`.
        images: uint8 ``(n, h, w, c)``.

    Returns:
        bool ``(n,)``.
    """
    return np.array([digest in detector.seen for digest in digests(images)], bool)


def p_values_of(scores: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Compute the p-values of scores ``(n,)`` from a null's ``(N,)``: float64 ``(n,)``."""
    null = np.sort(null)
    at_least = len(null) - np.searchsorted(null, scores, side="left")
    return (1 + at_least) / (len(null) + 1)


def decide(
    detector: Detector, images: np.ndarray, *, false_positive_rate: float = 0.05, seed: int = 0
) -> np.ndarray:
    """Decide which images to report as OOD.

    Args:
        detector: from `fit`.
        images: uint8 ``(n, h, w, c)`` to judge.
        false_positive_rate: the share of trusted images, or of sets of trusted images, that is
            reported on average over calibrations, at most; see `rate_interval`.
        seed: seed of the shuffle that deals images to sets, where the detector judges sets.

    Returns:
        bool ``(n,)``: ``p_value <= false_positive_rate``. With ``set_size``, the images of the sets
        that are reported: a set that holds OOD images is reported whole.

    Raises:
        ValueError: if the null is too small for that rate, or as `p_values`.
    """
    check_rate(detector, false_positive_rate)
    return p_values(detector, images, seed=seed) <= false_positive_rate


def check_rate(detector: Detector, false_positive_rate: float) -> None:
    """Raise ``ValueError`` where the null is too small to hold a false-positive rate."""
    smallest = 1 / (len(detector.null) + 1)
    if not smallest <= false_positive_rate < 1:
        what = "images" if detector.set_size is None else f"sets of {detector.set_size} images"
        remedy = "" if detector.set_size is None else ", judge smaller sets"
        raise ValueError(
            f"{len(detector.null)} trusted {what} give p-values from {smallest:.3g} up, so a "
            f"false-positive rate of {false_positive_rate} cannot be held: calibrate on more "
            f"images{remedy}, or choose a rate in [{smallest:.3g}, 1)"
        )


def rate_interval(
    detector: Detector, false_positive_rate: float, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Compute the rates at which this one calibration may report trusted images in the long run.

    p-values are exact on average over calibrations. One calibration fixes a threshold, and the
    share of all trusted images beyond it is a random number: with k = floor(rate (N + 1)) it is
    Beta(k, N + 1 - k) distributed (Vovk 2012, "Conditional validity of inductive conformal
    predictors", Proposition 2a), or lower where scores tie.

    Args:
        detector: from `fit`; where it judges sets, the rate is that of sets.
        false_positive_rate: as in `decide`.
        confidence: confidence of the interval.

    Returns:
        ``(low, high)``: for instance (0.037, 0.064) at 5 % and N = 999.

    Raises:
        ValueError: if the null is too small for that rate.
    """
    from scipy.stats import beta  # it takes as long to import as JAX

    check_rate(detector, false_positive_rate)
    n = len(detector.null)
    # A rate that is a multiple of 1 / (N + 1) must not be lost to rounding.
    k = int(np.floor(false_positive_rate * (n + 1) + 1e-9))
    tail = (1 - confidence) / 2
    low, high = beta.ppf([tail, 1 - tail], k, n + 1 - k)
    return float(low), float(high)


def fingerprint(detector: Detector) -> str:
    """Compute a digest of the null, the calibration images and the size of sets.

    Another model, other calibration images or other settings of the score give another null, and
    so another fingerprint.
    """
    seen = np.frombuffer(b"".join(sorted(detector.seen)), np.uint8)
    return digest({"null": detector.null, "seen": seen, "set_size": detector.set_size or 0})


def finite(scores: np.ndarray) -> np.ndarray:
    """Return scores as float32 ``(n,)``; raise ``ValueError`` where one is NaN."""
    scores = np.asarray(scores, np.float32)
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN")
    return scores


def digests(images: np.ndarray) -> list[bytes]:
    """Compute a digest of 16 bytes of each image's pixels: uint8 ``(n, h, w, c)``."""
    return [hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in images]


def _mean(scores: np.ndarray) -> np.float32:
    """Score a set by the mean of the scores of its images."""
    return np.float32(finite(scores).mean(dtype=np.float64))
