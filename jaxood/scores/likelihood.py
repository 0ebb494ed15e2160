"""Scores of one image's own likelihood under evaluation-mode BatchNorm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxood import parallel, progress
from jaxood.density import image_keys


def log_prob(model, variables, x, *, key=None, draws=1, batch_size=64, show_progress=False):
    """Log-likelihood in evaluation mode: a per-image quantity.

    Args:
        model: a `DensityModel`.
        variables: of the model; each device that they lie on evaluates batches of its own.
        x: uint8 ``(n, h, w, c)``.
        key: of the model's noise; an image's noise is a function of this key and the image alone.
        draws: noise draws an image; the log-likelihoods are averaged (a lower bound).
        batch_size: images at a time and device; the last batch is padded, so the program compiles
            once.
        show_progress: draw a progress bar on stderr.

    Returns:
        float32 ``(n,)``, nats; ``(members, n)`` of an ensemble.
    """
    key = jax.random.key(0) if key is None else key
    batches = -(-len(x) // batch_size)
    with progress.bar("evaluation mode", draws * batches, show=show_progress) as advance:
        values = [
            log_prob_draw(model, variables, x, key, draw, batch_size, advance)
            for draw in range(draws)
        ]
    return np.stack(values).mean(0, np.float64).astype(np.float32)


def log_prob_draw(model, variables, x, key, draw, batch_size, advance=lambda count: None):
    """One noise draw of `log_prob`: float32 ``(n,)`` nats; ``advance(1)`` after each batch."""
    mesh = parallel.mesh_of(variables)
    evaluate = _evaluation_program(model, mesh)
    parts = []
    at_once = batch_size * mesh.size
    for start in range(0, len(x), at_once):
        images = x[start : start + at_once]
        padding = [(0, at_once - len(images))] + [(0, 0)] * 3
        pad = jnp.pad if isinstance(images, jax.Array) else np.pad  # where the images are
        values = evaluate(variables, parallel.shard(pad(images, padding), mesh), key, draw)
        parts.append(np.moveaxis(np.asarray(values), 0, -1)[..., : len(images)])
        advance(-(-len(images) // batch_size))
    return np.concatenate(parts, -1)


@functools.lru_cache(16)
def _evaluation_program(model, mesh):
    def evaluate(variables, x, key, draw):
        keys = image_keys(jax.random.fold_in(key, draw), x)
        return jnp.moveaxis(model.log_prob(variables, x, key=keys), -1, 0)  # of an ensemble

    return parallel.map_rows(evaluate, mesh, rows=(False, True, False, False))


def neg_log_prob(model, variables, x, **options):
    """Score ``-log p(x)`` in nats, evaluation mode: a per-image score (both papers' baseline).

    Args:
        model: a `DensityModel`.
        variables: of the model.
        x: uint8 ``(n, h, w, c)``.
        **options: of `log_prob`.

    Returns:
        float32 ``(n,)``, higher = more OOD.
    """
    return -log_prob(model, variables, x, **options)


def t_perm(log_prob, null_log_prob):
    """Two-sided rank of a likelihood among trusted ones: a per-image score.

    Song et al. 2017; BatchNorm paper, eq. 2 (whose range is in fact [0, N/2]).

    Args:
        log_prob: ``(n,)``, of the images to judge.
        null_log_prob: ``(N,)``, of held-out trusted images.

    Returns:
        float32 ``(n,)``: ``|#{i: log p(x_i) <= log p(x)} - N/2|``, in ``[0, N/2]``.
    """
    rank = np.searchsorted(np.sort(null_log_prob), log_prob, side="right")
    return np.abs(rank - len(null_log_prob) / 2).astype(np.float32)


def typicality(log_prob, null_log_prob):
    """Distance of a likelihood from the entropy of the model on trusted images: a per-image score.

    Nalisnick et al. 2019, "Detecting out-of-distribution inputs to deep generative models using
    typicality", for batches of one image.

    Args:
        log_prob: ``(n,)`` nats, of the images to judge.
        null_log_prob: ``(N,)`` nats, of held-out trusted images.

    Returns:
        float32 ``(n,)`` nats: ``|log p(x) - mean_i log p(x_i)|``.
    """
    return np.abs(log_prob - np.mean(null_log_prob)).astype(np.float32)
