"""From a score to decisions: p-values against held-out trusted images, or sets of them.

A per-image score judges images: an image's p-value says how often a trusted image would score at
least as high. A batch score, such as `jaxood.scores.batch_norm_delta`, judges sets: beside OOD
images trusted ones score high too, so the p-value is that of the whole set, from a permutation test
of sets, and all images of a set share it. Images are dealt to sets by a seeded shuffle: a folder
that is sorted by class does not become sets of one class each.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

from jaxood.integrity import digest


class Detector(NamedTuple):
    """A score with its null distribution.

    Attributes:
        score: uint8 images ``(n, h, w, c)`` to ``(n,)``, higher = more OOD.
        null: float32 ``(N,)``, sorted: the scores of held-out trusted images; with ``set_size``,
            the mean scores of N sets of them.
        seen: digests of those images.
        set_size: how many images a batch score scores at a time; None for a per-image score.
    """

    score: Callable
    null: np.ndarray
    seen: frozenset
    set_size: int | None = None


def fit(score, trusted, *, set_size=None, seed=0):
    """Calibrate a score.

    Args:
        score: uint8 images to scores ``(n,)``, higher = more OOD.
        trusted: uint8 ``(N, h, w, c)``, trusted images that the model was *not* trained on: it is
            likelier to have seen those, and p-values would come out too small.
        set_size: for a batch score, and only for one: the number of images that are judged at a
            time. The trusted images are dealt into ``N // set_size`` sets, so p-values go down to
            ``1 / (N // set_size + 1)``.
        seed: of the shuffle that deals images to sets.

    Returns:
        A `Detector`.

    Raises:
        ValueError: if a score is NaN, there are too few images, or the score of an image depends
            on the images that it arrives with and there is no ``set_size``.
    """
    if len(trusted) == 0:
        raise ValueError("there are no images to calibrate on: give held-out trusted images")
    seen = frozenset(digests(trusted))
    if set_size is None:
        null = finite(score(trusted))
        if _depends_on_the_others(score, trusted, null):
            raise ValueError(
                "this score of an image depends on the images that it arrives with, so it judges "
                "sets: give set_size, the number of images that will be judged at a time"
            )
    else:
        whole = list(deal(len(trusted), set_size, seed))[: len(trusted) // set_size]
        null = np.array([_mean(score(trusted[np.sort(chosen)])) for chosen in whole], np.float32)
    return Detector(score, np.sort(null), seen, set_size)


def _depends_on_the_others(score, images, scores):
    """Whether the first half of the images scores differently without the second."""
    half = (len(images) + 1) // 2
    try:
        alone = finite(score(images[:half]))
    except ValueError:  # such as a batch score's, which half of the images may not be enough for
        return True
    known = scores[np.isfinite(scores)]
    spread = known.std() if known.size else 0.0
    return not np.allclose(alone, scores[:half], rtol=1e-5, atol=1e-4 * spread)


def deal(n: int, set_size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Deal n images to sets of equal size by a seeded shuffle.

    Args:
        n: the number of images.
        set_size: images in a set.
        seed: of the shuffle.

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


def p_values(detector, images, *, seed=0):
    """How often a trusted image, or a set of trusted images, would score at least as high.

    Args:
        detector: from `fit`.
        images: uint8 ``(n, h, w, c)`` to judge.
        seed: of the shuffle that deals images to sets, where the detector judges sets.

    Returns:
        float64 ``(n,)``: ``(1 + #{i: null_i >= score}) / (N + 1)``. Over calibrations and images,
        ``P(p <= a) <= a`` for a trusted image, at any N, ties included; `rate_interval` says what
        one calibration may make of it. With ``set_size`` the same holds for a *set* of trusted
        images, and nothing is promised for a trusted image in a set with OOD images.

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


def judge(detector, images):
    """Scores and p-values of images: of one set, where the detector judges sets.

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


def known(detector, images):
    """Which images the score was calibrated on: uint8 ``(n, h, w, c)`` to bool ``(n,)``."""
    return np.array([digest in detector.seen for digest in digests(images)], bool)


def p_values_of(scores, null):
    """`p_values` from scores alone: ``(n,)`` and the null's ``(N,)``, to float64 ``(n,)``."""
    null = np.sort(null)
    at_least = len(null) - np.searchsorted(null, scores, side="left")
    return (1 + at_least) / (len(null) + 1)


def decide(detector, images, *, false_positive_rate=0.05, seed=0):
    """Which images to report as OOD.

    Args:
        detector: from `fit`.
        images: uint8 ``(n, h, w, c)`` to judge.
        false_positive_rate: the share of trusted images, or of sets of trusted images, that is
            reported on average over calibrations, at most; see `rate_interval`.
        seed: of the shuffle that deals images to sets, where the detector judges sets.

    Returns:
        bool ``(n,)``: ``p_value <= false_positive_rate``. With ``set_size``, the images of the sets
        that are reported: a set that holds OOD images is reported whole.

    Raises:
        ValueError: if the null is too small for that rate, or as `p_values`.
    """
    check_rate(detector, false_positive_rate)
    return p_values(detector, images, seed=seed) <= false_positive_rate


def check_rate(detector, false_positive_rate):
    """Raises ``ValueError`` where the null is too small to hold a false-positive rate."""
    smallest = 1 / (len(detector.null) + 1)
    if not smallest <= false_positive_rate < 1:
        what = "images" if detector.set_size is None else f"sets of {detector.set_size} images"
        remedy = "" if detector.set_size is None else ", judge smaller sets"
        raise ValueError(
            f"{len(detector.null)} trusted {what} give p-values from {smallest:.3g} up, so a "
            f"false-positive rate of {false_positive_rate} cannot be held: calibrate on more "
            f"images{remedy}, or choose a rate in [{smallest:.3g}, 1)"
        )


def rate_interval(detector, false_positive_rate, *, confidence=0.95):
    """Between which rates this one calibration reports trusted images in the long run.

    p-values are exact on average over calibrations. One calibration fixes a threshold, and the
    share of all trusted images beyond it is a random number: with k = floor(rate (N + 1)) it is
    Beta(k, N + 1 - k) distributed (Vovk 2012, "Conditional validity of inductive conformal
    predictors", Proposition 2a), or lower where scores tie.

    Args:
        detector: from `fit`; of sets, the rate is that of sets.
        false_positive_rate: as of `decide`.
        confidence: of the interval.

    Returns:
        ``(low, high)``: for instance (0.037, 0.064) at 5 % and N = 999.
    """
    check_rate(detector, false_positive_rate)
    n = len(detector.null)
    # A rate that is a multiple of 1 / (N + 1) must not be lost to rounding.
    k = int(np.floor(false_positive_rate * (n + 1) + 1e-9))
    tail = (1 - confidence) / 2
    low, high = beta.ppf([tail, 1 - tail], k, n + 1 - k)
    return float(low), float(high)


def fingerprint(detector):
    """A digest of the null, the calibration images and the size of sets.

    Another model, other calibration images or other settings of the score give another null, and
    so another fingerprint.
    """
    seen = np.frombuffer(b"".join(sorted(detector.seen)), np.uint8)
    return digest({"null": detector.null, "seen": seen, "set_size": detector.set_size or 0})


def finite(scores):
    """Scores as float32 ``(n,)``; ``ValueError`` where one is NaN."""
    scores = np.asarray(scores, np.float32)
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN")
    return scores


def digests(images):
    """A digest of each image's pixels: uint8 ``(n, h, w, c)`` to a list of 16 bytes each."""
    return [hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in images]


def _mean(scores):
    """The score of a set: float32, the mean of the scores of its images."""
    return np.float32(finite(scores).mean(dtype=np.float64))
