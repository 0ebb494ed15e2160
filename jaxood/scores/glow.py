"""The density of Glow's latents, which the NRM paper compares with its own score."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import numpy as np

from jaxood.density import Array, Variables
from jaxood.models.glow import Glow
from jaxood.scores import statistics
from jaxood.scores.likelihood import log_prob, log_prob_draws
from jaxood.scores.score import Estimate, Score, scored


def glow_log_pz(model: Glow, variables: Variables, x: Array, **options: Any) -> np.ndarray:
    """Compute the log-density of Glow's latents, level by level: a per-image quantity.

    Args:
        model: from `jaxood.glow`.
        variables: variables of the model.
        x: uint8 ``(n, h, w, c)``, n > 0.
        **options: of `log_prob`.

    Returns:
        float32 ``(levels, n)``, nats.
    """
    return log_prob(_by_level(model), variables, x, **options)


def glow_neg_log_pz(
    model: Glow,
    variables: Variables,
    *,
    levels: Literal["last", "all"] = "last",
    seed: int = 0,
    draws: int = 1,
    batch_size: int = 64,
) -> Score:
    """Build the score ``-log p(z)`` of Glow in nats: a per-image score (NRM paper, Figure 1b).

    Args:
        model: from `jaxood.glow`.
        variables: variables of the model; each device that they lie on evaluates batches of its
            own.
        levels: ``"last"`` takes the latents of the last level only, as the paper says of Nalisnick
            et al.; ``"all"`` takes those of all levels, which gives the likelihood without the
            log-determinant.
        seed: seed of the model's noise; an image's noise is a function of the seed and the image
            alone.
        draws: noise draws an image, over which the log-density is averaged.
        batch_size: images at a time and device.

    Returns:
        A `Score`. Its standard error is that over draws.

    Raises:
        ValueError: if ``levels`` is another word.
    """
    if levels not in ("last", "all"):
        raise ValueError(f"levels must be 'last' or 'all', got {levels!r}")
    options = {"levels": levels, "seed": seed, "draws": draws, "batch_size": batch_size}
    return Score("glow_neg_log_pz", model, variables, options)


@scored("glow_neg_log_pz", per_image=True)
def _glow_neg_log_pz(score: Score, images: Array) -> Estimate:
    options = score.options
    draws = log_prob_draws(
        _by_level(score.model),
        score.variables,
        images,
        jax.random.key(options["seed"]),
        options["draws"],
        options["batch_size"],
    )
    if options["levels"] == "last":
        return statistics.over_draws(lambda by_level: -by_level[-1], draws)
    return statistics.over_draws(lambda by_level: -by_level.sum(0), draws)


@functools.lru_cache(16)
def _by_level(model):
    """A model whose log-density is that of the latents, ``(levels, n)``."""

    def log_pz(variables, x, *, key):
        return model.log_pz(variables, x, key=key).T

    return model._replace(log_prob=log_pz)
