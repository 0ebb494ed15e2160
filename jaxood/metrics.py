"""Metrics of how well a score separates out-of-distribution (OOD) images from trusted ones.

Every function takes the scores of trusted images and of OOD images, shape ``(n_in,)`` and
``(n_ood,)``, any real dtype. Higher scores mean more OOD, and OOD images are the positives. Only
the order of the scores counts, so infinite scores are legitimate and units do not matter.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# SciPy and scikit-learn take as long to import as JAX: they are imported where they are used.


class Detection(NamedTuple):
    """The quality of one score as a detector of one OOD set.

    Attributes:
        auroc: area under the ROC curve, in [0, 1]; ties count one half.
        auroc_ci: lower and upper end of the confidence interval of ``auroc``.
        ap: average precision at 1 : 1 class balance; 0.5 for a constant score.
        fpr95: share of trusted images flagged where 95 % of OOD images are caught.
        n_in: number of trusted images.
        n_ood: number of OOD images.
    """

    auroc: float
    auroc_ci: tuple[float, float]
    ap: float
    fpr95: float
    n_in: int
    n_ood: int


def detection(
    scores_in: ArrayLike, scores_ood: ArrayLike, *, confidence: float = 0.95
) -> Detection:
    """Measure how well a score separates OOD images from trusted ones.

    Args:
        scores_in: (n_in,) scores of trusted images.
        scores_ood: (n_ood,) scores of OOD images.
        confidence: coverage of the interval around the AUROC.

    Returns:
        The area under the ROC curve with its interval, average precision and FPR at 95 % TPR.

    Raises:
        ValueError: if a score array is empty, not one-dimensional or holds NaN, or if
            ``confidence`` is not between 0 and 1.
    """
    return Detection(
        auroc=auroc(scores_in, scores_ood),
        auroc_ci=auroc_interval(scores_in, scores_ood, confidence=confidence),
        ap=average_precision(scores_in, scores_ood),
        fpr95=fpr_at_tpr(scores_in, scores_ood),
        n_in=np.size(scores_in),
        n_ood=np.size(scores_ood),
    )


def auroc(scores_in: ArrayLike, scores_ood: ArrayLike) -> float:
    """Compute the area under the ROC curve: P(OOD score > trusted score) + P(tie) / 2.

    Args:
        scores_in: (n_in,) scores of trusted images.
        scores_ood: (n_ood,) scores of OOD images.

    Returns:
        A number in [0, 1]; 0.5 is chance.

    Raises:
        ValueError: if a score array is empty, not one-dimensional or holds NaN.
    """
    from sklearn import metrics

    is_ood, ranks = _labels_and_ranks(scores_in, scores_ood)
    return float(metrics.roc_auc_score(is_ood, ranks))


def auroc_interval(
    scores_in: ArrayLike, scores_ood: ArrayLike, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Compute a confidence interval of the AUROC: a score interval with DeLong's variance.

    The interval holds every AUROC t with (A - t)^2 <= z^2 V(t), where A is the estimate and z the
    normal quantile (Wilson 1927; for the AUROC Newcombe 2006, "Confidence intervals for an effect
    size measure based on the Mann-Whitney statistic", part 2, method 5). Newcombe's V comes from a
    model of the scores; here V(A) is the variance of DeLong, DeLong & Clarke-Pearson (1988,
    "Comparing the areas under two or more correlated receiver operating characteristic curves"),
    from ranks as in Sun & Xu (2014, "Fast implementation of DeLong's algorithm"), and only its
    change with t is modelled, in proportion to t (1 - t). The interval speaks for new images from
    the same sets, not for a newly trained model.

    Fewer misordered pairs raise both ends, and complete separation is the limit; exceptions, of
    less than 0.01, need a class of at most 4 images or one that is several times as large as the
    other. In simulations (normal scores with a ratio of standard deviations of 1/3, 1 and 3,
    exponential scores, 128 to 2000 images a class, also 128 against 1000) the 95 % interval covers
    the true AUROC in 94 to 97 % of cases from 0.5 to 0.95 and in 94 to 98 % up to 0.9999. It is
    cautious, at 97 to 98 %, where 1 - AUROC is below about 2 / n, n the smaller class: the lower
    end then allows for rare images far out of place, of which the sample may have shown none. With
    5 or 10 images a class it covers 90 to 99 %.

    Args:
        scores_in: (n_in,) scores of trusted images.
        scores_ood: (n_ood,) scores of OOD images.
        confidence: the share of such intervals that cover the true AUROC.

    Returns:
        The lower and the upper end, both in [0, 1].

    Raises:
        ValueError: if a score array is empty, not one-dimensional or holds NaN, or if
            ``confidence`` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a share between 0 and 1, not {confidence}; try 0.95.")
    n_in, n_ood = np.size(scores_in), np.size(scores_ood)
    area = auroc(scores_in, scores_ood)
    variance = _delong_variance(scores_in, scores_ood) if min(n_in, n_ood) > 1 else None
    return _score_interval(area, variance, n_in, n_ood, confidence)


def average_precision(scores_in: ArrayLike, scores_ood: ArrayLike) -> float:
    """Compute the average precision at 1 : 1 class balance.

    Each class weighs one half whatever its size, so numbers from sets of different sizes compare.

    Args:
        scores_in: (n_in,) scores of trusted images.
        scores_ood: (n_ood,) scores of OOD images.

    Returns:
        A number in (0, 1]; 0.5 for a constant score.

    Raises:
        ValueError: if a score array is empty, not one-dimensional or holds NaN.
    """
    from sklearn import metrics

    is_ood, ranks = _labels_and_ranks(scores_in, scores_ood)
    weights = np.where(is_ood, 1 / np.sum(is_ood), 1 / np.sum(~is_ood))
    return float(metrics.average_precision_score(is_ood, ranks, sample_weight=weights))


def fpr_at_tpr(scores_in: ArrayLike, scores_ood: ArrayLike, *, tpr: float = 0.95) -> float:
    """Compute the share of trusted images flagged where a share ``tpr`` of OOD images is caught.

    An image is flagged where its score reaches the threshold; the threshold is the highest score
    that catches at least ``tpr`` of the OOD images.

    Args:
        scores_in: (n_in,) scores of trusted images.
        scores_ood: (n_ood,) scores of OOD images.
        tpr: the share of OOD images to catch, in (0, 1].

    Returns:
        The false-positive rate, in [0, 1]; lower is better.

    Raises:
        ValueError: if a score array is empty, not one-dimensional or holds NaN, or if ``tpr`` is
            outside (0, 1].
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr is the share of OOD images to catch, in (0, 1], not {tpr}.")
    false_rate, true_rate = roc_curve(scores_in, scores_ood)
    return float(false_rate[np.argmax(true_rate >= tpr)])


def roc_curve(
    scores_in: ArrayLike, scores_ood: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the ROC curve, one point per distinct score and the origin.

    Args:
        scores_in: (n_in,) scores of trusted images.
        scores_ood: (n_ood,) scores of OOD images.

    Returns:
        False-positive and true-positive rates, each (k,) float64, rising from 0 to 1.

    Raises:
        ValueError: if a score array is empty, not one-dimensional or holds NaN.
    """
    from sklearn import metrics

    is_ood, ranks = _labels_and_ranks(scores_in, scores_ood)
    # Dropping collinear points would move FPR at a TPR that falls inside a run of ties.
    false_rate, true_rate, _ = metrics.roc_curve(is_ood, ranks, drop_intermediate=False)
    return false_rate, true_rate


def _labels_and_ranks(
    scores_in: ArrayLike, scores_ood: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Join the classes; midranks stand in for scores, since scikit-learn refuses infinities."""
    from scipy.stats import rankdata

    trusted = _scores(scores_in, "scores_in")
    ood = _scores(scores_ood, "scores_ood")
    is_ood = np.repeat([False, True], [trusted.size, ood.size])
    return is_ood, rankdata(np.concatenate([trusted, ood]))


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1:
        raise ValueError(
            f"{name} has shape {scores.shape}; pass one score per image, shape (n,), "
            "not averaged or stacked."
        )
    if scores.size == 0:
        raise ValueError(f"{name} is empty; pass the score of at least one image.")
    if nans := int(np.isnan(scores).sum()):
        raise ValueError(
            f"{nans} of {scores.size} values in {name} are NaN; find the images behind them, "
            "since a NaN has no rank (an underflowed likelihood should be infinite instead)."
        )
    return scores


def _score_interval(
    area: float, variance: float | None, n_in: int, n_ood: int, confidence: float
) -> tuple[float, float]:
    """The interval of an AUROC with DeLong's variance, which needs two images of each class."""
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    spread = area * (1 - area)
    # The variance is that of 1 / share independent comparisons: at least as many as the smaller
    # class has images (Birnbaum & Klose 1957), and at most all pairs.
    if variance is None:
        share = 1 / min(n_in, n_ood)
    else:
        share = max(1 / (n_in * n_ood), variance / spread if spread else 0.0)
    # A tenth of one comparison is added: where one misordered image makes the whole estimate, it
    # says little about how rare such images are, and coverage would fall to 92 %.
    variance = share * (spread + share / 10)
    # Nearer to 0.5 there are misordered pairs that the sample does not show. They are taken to be
    # those of exponential scores, whose rare outliers lie anywhere among the other class: two
    # comparisons an image. Nearer to 0 or 1 those that it shows are fewer.
    unseen = 1 / (2 * min(n_in, n_ood))
    ends = []
    for side in (-1, 1):
        end = _end(area, z, variance, unseen, side)
        if abs(end - 0.5) >= abs(area - 0.5):
            end = _end(area, z, variance, share, side)
        ends.append(min(max(end, 0.0), 1.0))
    return ends[0], ends[1]


def _end(area: float, z: float, variance: float, slope: float, side: int) -> float:
    """Solve (area - t)^2 = z^2 V(t) for the lower (``side`` -1) or the upper (1) t.

    V(t) = variance + slope (t (1 - t) - area (1 - area)) makes this a quadratic equation.
    """
    k = z**2 * slope
    middle = area + k / 2
    constant = area**2 - z**2 * (variance - slope * area * (1 - area))
    return (middle + side * math.sqrt(middle**2 - (1 + k) * constant)) / (1 + k)


def _delong_variance(scores_in: ArrayLike, scores_ood: ArrayLike) -> float:
    """Compute DeLong's variance of the AUROC from midranks; needs two images of each class."""
    from scipy.stats import rankdata

    is_ood, ranks = _labels_and_ranks(scores_in, scores_ood)
    n_in, n_ood = int(np.sum(~is_ood)), int(np.sum(is_ood))
    # The share of the other class that an image beats: its rank among all less among its own.
    below_ood = (ranks[is_ood] - rankdata(ranks[is_ood])) / n_in
    below_in = (ranks[~is_ood] - rankdata(ranks[~is_ood])) / n_ood
    return float(np.var(below_ood, ddof=1) / n_ood + np.var(below_in, ddof=1) / n_in)
