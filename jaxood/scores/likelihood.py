"""Scores of one image's own likelihood under evaluation-mode BatchNorm."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxood import parallel, progress
from jaxood.density import Array, HasLogProb, Variables, image_keys
from jaxood.parallel.batches import in_batches
from jaxood.scores import statistics
from jaxood.scores.score import Estimate, Score, scored


def log_prob(
    model: HasLogProb,
    variables: Variables,
    x: Array,
    *,
    key: jax.Array | None = None,
    draws: int = 1,
    batch_size: int = 64,
    show_progress: bool = False,
) -> np.ndarray:
    """Compute log-likelihoods in evaluation mode: a per-image quantity.

    Args:
        model: a `DensityModel`, or a `Glow`.
        variables: variables of the model; each device that they lie on evaluates batches of its
            own.
        x: uint8 ``(n, h, w, c)``, n > 0.
        key: random key of the model's noise, by default that of seed 0; an image's noise is a
            function of this key and the image alone.
        draws: noise draws an image; the log-likelihoods are averaged (a lower bound).
        batch_size: images at a time and device; the last batch is padded, so the program compiles
            once.
        show_progress: draw a progress bar on stderr.

    Returns:
        float32 ``(n,)``, nats; ``(members, n)`` for an ensemble.
    """
    key = jax.random.key(0) if key is None else key
    values = log_prob_draws(model, variables, x, key, draws, batch_size, show_progress)
    return values.mean(0, np.float64).astype(np.float32)


def log_prob_draws(
    model: HasLogProb,
    variables: Variables,
    x: Array,
    key: jax.Array,
    draws: int,
    batch_size: int,
    show_progress: bool = False,
) -> np.ndarray:
    """Compute the noise draws that `log_prob` averages: float32 ``(draws, ..., n)``, nats."""
    batches = -(-len(x) // batch_size)
    with progress.bar("evaluation mode", draws * batches, show=show_progress) as advance:
        values = [
            log_prob_draw(model, variables, x, key, draw, batch_size, advance)
            for draw in range(draws)
        ]
    return np.stack(values)


def log_prob_draw(
    model: HasLogProb,
    variables: Variables,
    x: Array,
    key: jax.Array,
    draw: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Compute one noise draw of `log_prob`: float32 ``(..., n)``, nats."""
    mesh = parallel.mesh_of(variables)
    program = _evaluation_program(model, mesh)
    values = in_batches(
        lambda images: program(variables, images, key, draw),
        x,
        mesh,
        batch_size=batch_size,
        advance=advance,
    )
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))


@functools.lru_cache(16)
def _evaluation_program(model, mesh):
    def evaluate(variables, x, key, draw):
        keys = image_keys(jax.random.fold_in(key, draw), x)
        return jnp.moveaxis(model.log_prob(variables, x, key=keys), -1, 0)  # of an ensemble

    return parallel.map_rows(evaluate, mesh, rows=(False, True, False, False))


def _draws(score: Score, images: Array) -> np.ndarray:
    options = score.options
    key, draws, batch_size = (
        jax.random.key(options["seed"]),
        options["draws"],
        options["batch_size"],
    )
    return log_prob_draws(score.model, score.variables, images, key, draws, batch_size)


def neg_log_prob(
    model: HasLogProb,
    variables: Variables,
    *,
    seed: int = 0,
    draws: int = 1,
    batch_size: int = 64,
) -> Score:
    """Build the score ``-log p(x)`` in nats, both papers' baseline: a per-image score.

    Args:
        model: a `DensityModel`, or a `Glow`; it is evaluated with BatchNorm in evaluation mode.
        variables: variables of the model; each device that they lie on evaluates batches of its
            own.
        seed: seed of the model's noise; an image's noise is a function of the seed and the image
            alone.
        draws: noise draws an image, over which the log-likelihood is averaged.
        batch_size: images at a time and device.

    Returns:
        A `Score`. Its standard error is that over draws.
    """
    return Score(
        "neg_log_prob", model, variables, {"seed": seed, "draws": draws, "batch_size": batch_size}
    )


@scored("neg_log_prob", per_image=True)
def _neg_log_prob(score: Score, images: Array) -> Estimate:
    return statistics.over_draws(np.negative, _draws(score, images))


def t_perm(
    model: HasLogProb,
    variables: Variables,
    trusted: Array,
    *,
    seed: int = 0,
    draws: int = 1,
    batch_size: int = 64,
) -> Score:
    """Build the two-sided rank of a likelihood among trusted ones: a per-image score.

    Song et al. 2017; BatchNorm paper, eq. 2: see `jaxood.scores.statistics.t_perm`.

    Args:
        model: as in `neg_log_prob`.
        variables: as in `neg_log_prob`.
        trusted: uint8 ``(N, h, w, c)``, trusted images that the model was not trained on, whose
            log-likelihoods are computed here.
        seed: as in `neg_log_prob`.
        draws: as in `neg_log_prob`.
        batch_size: as in `neg_log_prob`.

    Returns:
        A `Score` with values in ``[0, N/2]``.
    """
    return _against_trusted("t_perm", model, variables, trusted, seed, draws, batch_size)


@scored("t_perm", per_image=True)
def _t_perm(score: Score, images: Array) -> Estimate:
    null = score.arrays["null"]
    return statistics.over_draws(lambda x: statistics.t_perm(x, null), _draws(score, images))


def typicality(
    model: HasLogProb,
    variables: Variables,
    trusted: Array,
    *,
    seed: int = 0,
    draws: int = 1,
    batch_size: int = 64,
) -> Score:
    """Build the distance of a likelihood from the model's entropy: a per-image score.

    Nalisnick et al. 2019: see `jaxood.scores.statistics.typicality`.

    Args:
        model: as in `neg_log_prob`.
        variables: as in `neg_log_prob`.
        trusted: uint8 ``(N, h, w, c)``, trusted images that the entropy is estimated on; Nalisnick
            et al. take training images. Images that the detector is calibrated on have no place
            here: they would lie nearer to the entropy than fresh ones.
        seed: as in `neg_log_prob`.
        draws: as in `neg_log_prob`.
        batch_size: as in `neg_log_prob`.

    Returns:
        A `Score` in nats.
    """
    return _against_trusted("typicality", model, variables, trusted, seed, draws, batch_size)


@scored("typicality", per_image=True)
def _typicality(score: Score, images: Array) -> Estimate:
    null = score.arrays["null"]
    return statistics.over_draws(lambda x: statistics.typicality(x, null), _draws(score, images))


def _against_trusted(name, model, variables, trusted, seed, draws, batch_size) -> Score:
    null = log_prob(
        model,
        variables,
        trusted,
        key=jax.random.key(seed),
        draws=draws,
        batch_size=batch_size,
    )
    options = {"seed": seed, "draws": draws, "batch_size": batch_size}
    return Score(name, model, variables, options, {"null": null})


def waic(
    model: HasLogProb,
    variables: Variables,
    *,
    seed: int = 0,
    draws: int = 1,
    batch_size: int = 64,
) -> Score:
    """Build minus the WAIC, high where the members of an ensemble disagree: a per-image score.

    Choi et al. 2018; BatchNorm paper, eq. 1: see `jaxood.scores.statistics.waic`.

    Args:
        model: from `jaxood.ensemble`, of two members or more.
        variables: variables of the ensemble.
        seed: as in `neg_log_prob`; all members see the same noise.
        draws: as in `neg_log_prob`.
        batch_size: as in `neg_log_prob`.

    Returns:
        A `Score`. A call raises ``ValueError`` for an ensemble of one.
    """
    return Score("waic", model, variables, {"seed": seed, "draws": draws, "batch_size": batch_size})


@scored("waic", per_image=True)
def _waic(score: Score, images: Array) -> Estimate:
    return statistics.over_draws(statistics.waic, _draws(score, images))
