"""WAIC: where independently trained models disagree (BatchNorm paper, eq. 1)."""

import numpy as np


def waic(log_prob):
    """Score ``-WAIC(x) = -E[log p(x)] + Var[log p(x)]`` over an ensemble: a per-image score.

    Choi et al. 2018; BatchNorm paper, eq. 1. The variance is in nats squared, so the score, unlike
    a likelihood, depends on the unit: it is defined in nats.

    Args:
        log_prob: ``(members, n)`` nats, of two members or more.

    Returns:
        float32 ``(n,)``, higher = more OOD. The variance is that of these members (divided by M).

    Raises:
        ValueError: of fewer than two members.
    """
    log_prob = np.asarray(log_prob, np.float64)
    if len(log_prob) < 2:
        raise ValueError(f"WAIC needs an ensemble, got {len(log_prob)} member: train two or more")
    return (log_prob.var(0) - log_prob.mean(0)).astype(np.float32)
