"""The scores as functions of log-likelihoods, for those who keep log-likelihoods and not images.

Higher = more OOD, in float32, as everywhere. Log-likelihoods are in nats.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxood.scores.score import Estimate


def t_perm(log_prob: np.ndarray, null_log_prob: np.ndarray) -> np.ndarray:
    """Rank log-likelihoods among those of trusted images, on both sides.

    Song et al. 2017; BatchNorm paper, eq. 2 (whose range is in fact [0, N/2]).

    Args:
        log_prob: ``(n,)``, of the images to judge.
        null_log_prob: ``(N,)``, of held-out trusted images.

    Returns:
        float32 ``(n,)``: ``|#{i: log p(x_i) <= log p(x)} - N/2|``, in ``[0, N/2]``.
    """
    return np.abs(rank(log_prob, null_log_prob) - len(null_log_prob) / 2).astype(np.float32)


def typicality(log_prob: np.ndarray, null_log_prob: np.ndarray) -> np.ndarray:
    """Measure how far log-likelihoods lie from the model's entropy on trusted images.

    Nalisnick et al. 2019, "Detecting out-of-distribution inputs to deep generative models using
    typicality", for batches of one image.

    Args:
        log_prob: ``(n,)``, of the images to judge.
        null_log_prob: ``(N,)``, of trusted images.

    Returns:
        float32 ``(n,)``, nats: ``|log p(x) - mean_i log p(x_i)|``.
    """
    return np.abs(log_prob - np.mean(null_log_prob)).astype(np.float32)


def waic(member_log_probs: np.ndarray) -> np.ndarray:
    """Score ``-WAIC(x) = -E[log p(x)] + Var[log p(x)]`` over an ensemble.

    Choi et al. 2018; BatchNorm paper, eq. 1. The variance is in nats squared, so the score, unlike
    a likelihood, depends on the unit: it is defined in nats.

    Args:
        member_log_probs: ``(members, n)``, of two members or more.

    Returns:
        float32 ``(n,)``. The variance is that of these members (divided by M).

    Raises:
        ValueError: if there are fewer than two members.
    """
    log_prob = np.asarray(member_log_probs, np.float64)
    members = len(log_prob) if log_prob.ndim == 2 else 1
    if members < 2:
        raise ValueError(f"WAIC needs an ensemble, got {members} member: train two or more")
    return (log_prob.var(0) - log_prob.mean(0)).astype(np.float32)


def delta(log_prob_1: np.ndarray, log_prob_2: np.ndarray) -> Estimate:
    """Compute ``|mean over draws of log_prob_1 - log_prob_2|`` and its standard error.

    BatchNorm paper, eq. 7.

    Args:
        log_prob_1: ``(draws, n)``, in batches with the ratio r1.
        log_prob_2: ``(draws, n)``, in batches with the ratio r2, paired with the first.

    Returns:
        An `Estimate` in nats. The standard error is that of the paired difference.
    """
    difference = np.asarray(log_prob_1, np.float64) - log_prob_2
    draws = len(difference)
    with np.errstate(invalid="ignore"):
        spread = difference.std(0, ddof=1) if draws > 1 else np.full(difference.shape[1], np.nan)
    mean = np.abs(difference.mean(0))
    return Estimate(mean.astype(np.float32), (spread / np.sqrt(draws)).astype(np.float32))


def rank(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Rank values among those of trusted images; of Delta, this is T (BatchNorm paper, eq. 8).

    Args:
        values: ``(n,)``, of the images to judge.
        null: ``(N,)``, of held-out trusted images, computed in the same way.

    Returns:
        float32 ``(n,)``: ``#{i: null_i <= value}``, in ``[0, N]``.
    """
    return np.searchsorted(np.sort(null), values, side="right").astype(np.float32)


def class_centred(
    score: np.ndarray, label: np.ndarray, trusted_score: np.ndarray, trusted_label: np.ndarray
) -> np.ndarray:
    """Subtract from a score its mean over trusted images of the same class y*.

    This goes beyond the NRM paper: the mean stands in for the normalizer of p(z|y), which depends
    on y alone. The absolute value is a two-sided score.

    Args:
        score: ``(n,)``, of the images to judge.
        label: int ``(n,)``, their y*.
        trusted_score: ``(N,)``, of held-out trusted images.
        trusted_label: int ``(N,)``, their y*.

    Returns:
        float32 ``(n,)``. A class without trusted images has the mean of all.
    """
    label, trusted_label = np.asarray(label), np.asarray(trusted_label)
    classes = 1 + max(label.max(initial=0), trusted_label.max())
    count = np.bincount(trusted_label, minlength=classes)
    total = np.bincount(trusted_label, trusted_score, minlength=classes)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.mean(trusted_score))
    return (score - mean[label]).astype(np.float32)


def over_draws(statistic: Callable[[np.ndarray], np.ndarray], draws: np.ndarray) -> Estimate:
    """Apply a statistic to the mean of Monte-Carlo draws, and say how uncertain it is.

    Args:
        statistic: maps log-likelihoods ``(..., n)``, averaged over draws, to scores ``(n,)``.
        draws: float32 ``(draws, ..., n)``.

    Returns:
        An `Estimate`, whose standard error is that of the jackknife over draws (Efron and Stein
        1981): of a mean, the usual one.
    """

    def of(values):
        return np.asarray(statistic(values.mean(0, np.float64).astype(np.float32)), np.float32)

    value, count = of(draws), len(draws)
    if count == 1:
        return Estimate(value, np.full(len(value), np.nan, np.float32))
    without = np.stack([of(np.delete(draws, draw, 0)) for draw in range(count)])
    with np.errstate(invalid="ignore"):
        stderr = np.sqrt((count - 1) * without.var(0, np.float64))
    return Estimate(value, stderr.astype(np.float32))
