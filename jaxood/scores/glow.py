"""Density of the latents of Glow, which the NRM paper holds its own score against."""

import functools
from typing import Literal

import numpy as np

from jaxood.scores.likelihood import log_prob


def glow_log_pz(model, variables, x, **options) -> np.ndarray:
    """Log-density of Glow's latents, level by level: a per-image quantity.

    Args:
        model: a `jaxood.models.glow.Glow`.
        variables: of the model.
        x: uint8 ``(n, h, w, c)``.
        **options: of `log_prob`.

    Returns:
        float32 ``(levels, n)`` nats.
    """
    return log_prob(_by_level(model), variables, x, **options)


def glow_neg_log_pz(
    model, variables, x, *, levels: Literal["last", "all"] = "last", **options
) -> np.ndarray:
    """Score ``-log p(z)`` of Glow: a per-image score (NRM paper, Figure 1b).

    Args:
        model: a `jaxood.models.glow.Glow`.
        variables: of the model.
        x: uint8 ``(n, h, w, c)``.
        levels: whose latents: of the last level only, as the paper says of Nalisnick et al.; or
            of all levels, which is the likelihood without the log-determinant.
        **options: of `log_prob`.

    Returns:
        float32 ``(n,)`` nats, higher = more OOD.
    """
    by_level = glow_log_pz(model, variables, x, **options)
    return -(by_level[-1] if levels == "last" else by_level.sum(0))


@functools.lru_cache(16)
def _by_level(model):
    """A model whose log-density is that of the latents, ``(levels, n)``."""

    def log_pz(variables, x, *, key):
        return model.log_pz(variables, x, key=key).T

    return model._replace(log_prob=log_pz)
